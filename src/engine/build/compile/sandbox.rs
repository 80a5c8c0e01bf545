//! A thread that reaches no file, no network and no other program.
//!
//! Invariant: what is closed stays closed for the thread and for those that it makes.
//!
//! Two fences, one behind the other. A filter of system calls answers whatever looks a
//! path up with "no such file", so that not even the presence of a file can be told from
//! its absence. Landlock (Linux 5.13) lets the kernel itself refuse. A kernel that has
//! neither is said: the caller then has the sources looked through ([`super::stay_inside`]).

use std::collections::BTreeMap;

use landlock::{Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// System calls that look a path up, make one, or run one.
#[rustfmt::skip]
const PATHS: &[c_long] = &[
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat,
    libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat,
    libc::SYS_mknodat, libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_statfs,
    libc::SYS_truncate, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_chroot, libc::SYS_getcwd,
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at, libc::SYS_inotify_add_watch,
    libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_execve, libc::SYS_execveat, libc::SYS_uname,
    libc::SYS_io_uring_setup,
    #[cfg(target_arch = "x86_64")] libc::SYS_open,
    #[cfg(target_arch = "x86_64")] libc::SYS_creat,
    #[cfg(target_arch = "x86_64")] libc::SYS_stat,
    #[cfg(target_arch = "x86_64")] libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")] libc::SYS_access,
    #[cfg(target_arch = "x86_64")] libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")] libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")] libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")] libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")] libc::SYS_rename,
    #[cfg(target_arch = "x86_64")] libc::SYS_link,
    #[cfg(target_arch = "x86_64")] libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")] libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")] libc::SYS_chown,
    #[cfg(target_arch = "x86_64")] libc::SYS_mknod,
];

/// System calls that reach other processes, machines or the kernel's settings.
#[rustfmt::skip]
const OTHERS: &[c_long] = &[
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_bpf,
    libc::SYS_perf_event_open, libc::SYS_mount, libc::SYS_setns, libc::SYS_keyctl, libc::SYS_shmget,
];

/// What fences a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fences {
    /// The filter of system calls.
    pub(super) filter: bool,
    /// Landlock.
    pub(super) landlock: bool,
}

impl Fences {
    /// Whether no content of any file can be read.
    pub(super) fn closed(self) -> bool {
        self.filter || self.landlock
    }
}

/// Closes the file system for this thread, for good. The working folder of the thread
/// alone becomes `/` first: it can stand in debug information.
pub(super) fn close() -> Fences {
    // SAFETY: only this thread's own view of its working folder changes, none of its files.
    if unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.is_ok() {
        let _ = rustix::process::chdir("/");
    }
    let landlock = Ruleset::default()
        .handle_access(AccessFs::from_all(landlock::ABI::V5))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced);
    let filters = filters();
    let filter = filters
        .iter()
        .all(|filter| seccompiler::apply_filter(filter).is_ok())
        && !filters.is_empty();
    Fences { filter, landlock }
}

/// Made anew for each thread: some microseconds beside a compile's hundreds of thousands.
fn filters() -> Vec<BpfProgram> {
    let always = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    let mut missing: BTreeMap<c_long, Vec<SeccompRule>> = always(PATHS);
    // `fstat` is one of these with an empty path, and reads no more than an open file's facts.
    let empty_path = u64::from(rustix::fs::AtFlags::EMPTY_PATH.bits());
    for (call, argument) in [(libc::SYS_newfstatat, 3), (libc::SYS_statx, 2)] {
        if let Some(rule) = rule(argument, SeccompCmpOp::MaskedEq(empty_path), 0) {
            missing.insert(call, vec![rule]);
        }
    }
    // NVRTC takes over SIGINT and SIGTERM and lifts the limit of the stack while it
    // compiles: it is told that it did.
    let mut pretended: BTreeMap<c_long, Vec<SeccompRule>> = always(&[libc::SYS_rt_sigaction]);
    if let Some(rule) = rule(2, SeccompCmpOp::Ne, 0) {
        pretended.insert(libc::SYS_prlimit64, vec![rule]);
    }
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    [
        (missing, errno(libc::ENOENT)),
        (always(OTHERS), errno(libc::EPERM)),
        (pretended, errno(0)),
    ]
    .into_iter()
    .filter_map(|(rules, answer)| {
        let arch = std::env::consts::ARCH.try_into().ok()?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).ok()?;
        filter.try_into().ok()
    })
    .collect()
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value).ok()?;
    SeccompRule::new(vec![condition]).ok()
}

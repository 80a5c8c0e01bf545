//! The pinned NVRTC: fetched by pip, checked by hash, unpacked atomically.
//!
//! Invariant: the managed folder appears by one rename and holds the pinned
//! libraries whole, or it does not exist. Of processes that want it at once one
//! fetches, and the others take what came of that.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};

use super::contents::sha256_of;
use super::held::{Held, is_ending};
use super::lock::{Claim, claim};
use super::managed::{FETCHING, UNPACKING, close_to_others, collect, folder, make, managed, work};
use super::pin::{PINNED_VERSION, Pin, pin};
use super::pip::{FETCH_LIMIT, Pip};
use super::{Toolchain, ToolchainError, failure, wheel};
use crate::engine::config::Config;

/// The longest wait for another process's install: its fetch, and its unpacking.
const WAIT_LIMIT: Duration = FETCH_LIMIT.saturating_add(Duration::from_mins(2));

/// Who wants it installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A person or program, by name: what is there is read afresh and repaired, and a
    /// fetch that failed before is tried again.
    ByName,
    /// A compile that has no compiler.
    ByCompile,
}

/// Fetches and installs the pinned NVRTC into the managed folder. What is there
/// already is read whole, and replaced where it is not what is pinned.
pub fn install(config: &Config) -> Result<Toolchain, ToolchainError> {
    install_by(config, Asked::ByName)
}

/// The same for a compile that has found no NVRTC: a fetch is tried once a process,
/// and once by processes that want it at the same time.
pub fn install_once(config: &Config) -> Result<Toolchain, ToolchainError> {
    install_by(config, Asked::ByCompile)
}

fn install_by(config: &Config, asked: Asked) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    let offline = config.offline()?;
    install_into(&root, pin()?, &Pip::default(), asked, offline)
}

fn install_into(
    root: &Path,
    pin: &Pin<'_>,
    pip: &Pip,
    asked: Asked,
    offline: bool,
) -> Result<Toolchain, ToolchainError> {
    let by_name = asked == Asked::ByName;
    let since = if by_name {
        SystemTime::now()
    } else {
        failure::process_started()
    };
    if by_name {
        close_to_others(root)?;
    }
    let there = || match managed(root, pin, by_name) {
        // It is about to be replaced.
        Err(ToolchainError::Changed { .. } | ToolchainError::Untrusted { .. }) if by_name => Ok(None),
        other => other,
    };
    if let Some(there) = there()? {
        if by_name && let Ok(Claim::Held(_alone)) = claim(root, Duration::ZERO) {
            collect(root, true);
        }
        return Ok(there);
    }
    if !by_name && let Some(reason) = failure::own(root) {
        return Err(ToolchainError::Fetch(reason));
    }
    if offline {
        // One that is there and may not be used is not missing.
        managed(root, pin, by_name)?;
        return Err(ToolchainError::Offline {
            managed: root.join(PINNED_VERSION).display().to_string(),
        });
    }
    make(root)?;
    let lock = match claim(root, WAIT_LIMIT)? {
        Claim::Held(lock) => Some(lock),
        Claim::Unsupported => None,
        Claim::Taken => return Err(ToolchainError::Busy { path: root.into() }),
    };
    // What a process did that was waited for.
    if let Some(there) = there()? {
        return Ok(there);
    }
    if let Some(reason) = failure::told(root, since) {
        failure::keep(root, &reason);
        return Err(ToolchainError::Fetch(reason));
    }
    collect(root, lock.is_some());
    let fetched = fetch(root, pin, pip);
    match &fetched {
        Ok(_) => failure::forget(root),
        Err(ToolchainError::Fetch(reason)) if !is_ending() => {
            failure::keep(root, reason);
            failure::tell(root, reason);
        }
        Err(_) => {}
    }
    fetched
}

fn fetch(root: &Path, pin: &Pin<'_>, pip: &Pip) -> Result<Toolchain, ToolchainError> {
    let work = work(root, FETCHING)?;
    let downloaded = pip.download(&work, pin.wheel_sha256);
    if is_ending() {
        return Err(ToolchainError::Ending);
    }
    let wheel = downloaded.map_err(ToolchainError::Fetch)?;
    check(pin, &wheel)?;
    place(root, pin, &work, &wheel)
}

/// Installs from a wheel that is already here: neither Python nor a network is
/// needed, and nobody is waited for.
pub fn install_wheel(config: &Config, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    install_pinned(&root, pin()?, wheel)
}

fn install_pinned(root: &Path, pin: &Pin<'_>, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    check(pin, wheel)?;
    close_to_others(root)?;
    make(root)?;
    let work = work(root, UNPACKING)?;
    let toolchain = place(root, pin, &work, wheel)?;
    failure::forget(root);
    if let Ok(Claim::Held(_alone)) = claim(root, Duration::ZERO) {
        collect(root, true);
    }
    Ok(toolchain)
}

fn check(pin: &Pin<'_>, wheel: &Path) -> Result<(), ToolchainError> {
    let actual = sha256_of(wheel)?;
    if actual == pin.wheel_sha256 {
        return Ok(());
    }
    Err(ToolchainError::Hash {
        path: wheel.to_path_buf(),
        actual,
        expected: pin.wheel_sha256.to_owned(),
    })
}

/// Unpacks the wheel and puts it where it belongs. What stands there and is not what
/// is pinned ends up in the working folder, and goes with it.
fn place(root: &Path, pin: &Pin<'_>, work: &Held, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let unpacked = work.path().join("unpacked");
    folder(&unpacked)?;
    wheel::unpack(wheel, &unpacked)?;
    let home = root.join(PINNED_VERSION);
    let there = || managed(root, pin, true).ok().flatten();
    if let Some(there) = there() {
        return Ok(there);
    }
    if fs_err::rename(&unpacked, &home).is_err() {
        // Another process may have been first.
        if let Some(there) = there() {
            return Ok(there);
        }
        if rustix::fs::renameat_with(CWD, &unpacked, CWD, &home, RenameFlags::EXCHANGE).is_err() {
            // Not every file system exchanges.
            fs_err::rename(&home, work.path().join("replaced"))?;
            fs_err::rename(&unpacked, &home)?;
        }
    }
    managed(root, pin, false)?.ok_or(ToolchainError::Written { path: home })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use sha2::{Digest, Sha256};

    use super::super::contents::Contents;
    use super::super::pin::{BUILTINS_FILE, NVRTC_FILE};
    use super::*;

    const NVRTC: &[u8] = b"not an ELF: only its content matters";
    const BUILTINS: &[u8] = b"neither is this";

    /// A folder to install into, a wheel, and a pin of that wheel.
    struct Place {
        dir: tempfile::TempDir,
        root: PathBuf,
        wheel: PathBuf,
        hashes: [String; 3],
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let wheel = dir.path().join("a.whl");
            let members: [(&str, &[u8]); 4] = [
                ("nvidia/cu13/lib/libnvrtc.so.13", NVRTC),
                ("nvidia/cu13/lib/libnvrtc-builtins.so.13.0", BUILTINS),
                ("../../escape.so", b"only bare names are used"),
                ("x.dist-info/License.txt", b"license"),
            ];
            zip(&wheel, &members);
            let of_wheel = sha256(&fs_err::read(&wheel).expect("wheel"));
            Self {
                root: dir.path().join("toolchain"),
                hashes: [of_wheel, sha256(NVRTC), sha256(BUILTINS)],
                wheel,
                dir,
            }
        }

        fn pin(&self) -> Pin<'_> {
            let [wheel_sha256, nvrtc, builtins] = self.hashes.each_ref().map(String::as_str);
            Pin {
                wheel_sha256,
                contents: Contents { nvrtc, builtins },
                nvrtc: "build-id:1",
                builtins: "build-id:2",
            }
        }

        /// A python3 that notes that it was started and does this.
        fn pip(&self, does: &str, limit: Duration) -> Pip {
            let python = self.dir.path().join("python3");
            let log = self.dir.path().join("started");
            let script = format!("#!/bin/sh\necho x >> {}\n{does}\n", log.display());
            fs_err::write(&python, script).expect("script");
            fs_err::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("mode");
            Pip {
                python: python.into(),
                limit,
            }
        }

        /// What leaves the wheel where pip would: the last but two of its words.
        fn delivers(&self) -> String {
            let wheel = self.wheel.display();
            format!("while [ $# -gt 3 ]; do shift; done\ncp {wheel} \"$1\"/x.whl")
        }

        fn starts(&self) -> usize {
            let log = fs_err::read_to_string(self.dir.path().join("started"));
            log.map_or(0, |log| log.lines().count())
        }

        fn install(&self, pip: &Pip, asked: Asked) -> Result<Toolchain, ToolchainError> {
            install_into(&self.root, &self.pin(), pip, asked, false)
        }

        fn library(&self) -> PathBuf {
            self.root.join(PINNED_VERSION).join(NVRTC_FILE)
        }
    }

    const LONG: Duration = Duration::from_mins(2);

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    fn zip(at: &Path, members: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(fs_err::File::create(at).expect("file"));
        for (name, bytes) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())
                .expect("member");
            zip.write_all(bytes).expect("bytes");
        }
        zip.finish().expect("zip");
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(path).expect("folder");
        let mut names: Vec<_> = entries
            .map(|e| e.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn installing_from_many_threads_at_once_leaves_one_whole_folder() {
        let place = Place::new();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let toolchain =
                        install_pinned(&place.root, &place.pin(), &place.wheel).expect("installed");
                    assert_eq!(toolchain.identity, place.pin().identity());
                });
            }
        });
        assert_eq!(names(&place.root), [PINNED_VERSION], "no working folder is left");
        assert_eq!(
            names(&place.root.join(PINNED_VERSION)),
            ["License.txt", BUILTINS_FILE, NVRTC_FILE]
        );
    }

    #[test]
    fn a_changed_file_is_refused_by_name_and_replaced_by_an_install() {
        let place = Place::new();
        install_pinned(&place.root, &place.pin(), &place.wheel).expect("installed");
        for name in [NVRTC_FILE, BUILTINS_FILE] {
            let file = place.root.join(PINNED_VERSION).join(name);
            let mut bytes = fs_err::read(&file).expect("library");
            bytes[0] ^= 1;
            fs_err::write(&file, bytes).expect("write");
            for afresh in [false, true] {
                match managed(&place.root, &place.pin(), afresh) {
                    Err(ToolchainError::Changed { path, .. }) => assert_eq!(path, file),
                    other => panic!("{other:?}"),
                }
            }
            // A compile does not mend it behind anybody's back.
            let pip = place.pip(&place.delivers(), LONG);
            let refused = place.install(&pip, Asked::ByCompile).expect_err("changed");
            assert!(matches!(refused, ToolchainError::Changed { .. }), "{refused}");
            assert_eq!(place.starts(), 0);
            install_pinned(&place.root, &place.pin(), &place.wheel).expect("replaced");
            managed(&place.root, &place.pin(), true).expect("as pinned");
        }
        assert_eq!(fs_err::read(place.library()).expect("library"), NVRTC);
        assert_eq!(names(&place.root), [PINNED_VERSION]);
    }

    #[test]
    fn what_others_may_write_to_is_refused_until_an_install_has_read_it() {
        let place = Place::new();
        install_pinned(&place.root, &place.pin(), &place.wheel).expect("installed");
        let home = place.root.join(PINNED_VERSION);
        for path in [&place.root, &home, &place.library(), &home.join(BUILTINS_FILE)] {
            let mode = fs_err::metadata(path).expect("there").permissions().mode();
            fs_err::set_permissions(path, PermissionsExt::from_mode(mode | 0o020)).expect("chmod");
            match managed(&place.root, &place.pin(), false) {
                Err(ToolchainError::Untrusted { path: named, .. }) => assert_eq!(named, *path),
                other => panic!("{other:?}"),
            }
            let pip = place.pip("exit 1", LONG);
            place
                .install(&pip, Asked::ByName)
                .expect("closed to others, and read");
            managed(&place.root, &place.pin(), false).expect("trusted");
        }
        assert_eq!(place.starts(), 0, "the bytes were good: nothing was fetched");
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_changes_nothing() {
        let place = Place::new();
        let pin = Pin {
            wheel_sha256: "00",
            ..place.pin()
        };
        let error = install_pinned(&place.root, &pin, &place.wheel).expect_err("refused");
        assert!(matches!(error, ToolchainError::Hash { .. }), "{error}");
        assert!(!place.root.exists());
    }

    #[test]
    fn a_wheel_without_both_libraries_leaves_nothing_behind() {
        let place = Place::new();
        zip(&place.wheel, &[("lib/libnvrtc.so.13", NVRTC)]);
        let hash = sha256(&fs_err::read(&place.wheel).expect("wheel"));
        let pin = Pin {
            wheel_sha256: &hash,
            ..place.pin()
        };
        let error = install_pinned(&place.root, &pin, &place.wheel).expect_err("refused");
        assert!(error.to_string().contains("are not both in it"), "{error}");
        assert_eq!(names(&place.root), [""; 0]);
    }

    #[test]
    fn of_many_that_want_it_at_once_one_fetches_and_leftovers_are_collected() {
        let place = Place::new();
        let pip = place.pip(&place.delivers(), LONG);
        for left in [".tmpOld/wheels", ".tmp-dead"] {
            fs_err::create_dir_all(place.root.join(left)).expect("folder");
        }
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| place.install(&pip, Asked::ByCompile).expect("installed"));
            }
        });
        assert_eq!(place.starts(), 1);
        assert_eq!(names(&place.root), [PINNED_VERSION]);
        // With the toolchain in place leftovers go as well.
        fs_err::create_dir_all(place.root.join(".tmp-dead")).expect("folder");
        place.install(&pip, Asked::ByName).expect("there");
        assert_eq!(names(&place.root), [PINNED_VERSION]);
    }

    #[test]
    fn a_fetch_that_failed_is_not_tried_again_for_the_next_compile() {
        let place = Place::new();
        let pip = place.pip("echo ERROR: no network >&2; exit 1", LONG);
        for _ in 0..12 {
            let error = place.install(&pip, Asked::ByCompile).expect_err("failed");
            assert!(
                matches!(&error, ToolchainError::Fetch(words) if words == "ERROR: no network"),
                "{error}"
            );
        }
        assert_eq!(place.starts(), 1);
        // Asked for by name it is, and then the compiles have it.
        let pip = place.pip(&place.delivers(), LONG);
        place.install(&pip, Asked::ByName).expect("installed");
        assert_eq!(place.starts(), 2);
        place.install(&pip, Asked::ByCompile).expect("there");
        assert_eq!(names(&place.root), [PINNED_VERSION], "no failure is remembered");
    }

    #[test]
    fn a_fetch_that_does_not_end_is_ended_with_all_its_processes() {
        let place = Place::new();
        let pids = place.dir.path().join("pids");
        // A child of the stub's own, as a wrapper of Python would have.
        let does = format!("sleep 600 & echo $! > {}; wait", pids.display());
        let pip = place.pip(&does, Duration::from_millis(300));
        let error = place.install(&pip, Asked::ByName).expect_err("ended");
        assert!(error.to_string().contains("it was ended after"), "{error}");
        assert_eq!(names(&place.root), [failure::FAILED], "no working folder is left");
        let pid: i32 = fs_err::read_to_string(&pids)
            .expect("the stub ran")
            .trim()
            .parse()
            .expect("a number");
        // Killed; whoever inherits it may not have waited for it yet.
        let state = || {
            let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.trim().chars().next()
        };
        for _ in 0..500 {
            if matches!(state(), None | Some('Z')) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("process {pid} still runs");
    }

    #[test]
    fn offline_nothing_is_fetched_and_nothing_is_made() {
        let place = Place::new();
        let pip = place.pip(&place.delivers(), LONG);
        for asked in [Asked::ByName, Asked::ByCompile] {
            let error = install_into(&place.root, &place.pin(), &pip, asked, true).expect_err("offline");
            assert!(matches!(error, ToolchainError::Offline { .. }), "{error}");
        }
        assert_eq!(place.starts(), 0);
        assert!(!place.root.exists());
    }
}

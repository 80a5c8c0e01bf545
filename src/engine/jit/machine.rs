//! What this process may use of the machine: memory, in a container or outside of one.
//!
//! Invariant: the least of all limits counts. A control group bounds its members
//! whatever the machine has free, and so does every group above it.

use std::path::{Component, Path, PathBuf};

/// Memory that this process could take without being killed or swapping, bytes: what the
/// system has free, or less where a control group (either version) leaves less. `None`
/// where nothing says so.
pub(super) fn available_bytes() -> Option<u64> {
    Machine::at(Path::new("/")).available_bytes()
}

/// A file system that shows a machine. Tests make one of files.
struct Machine<'a> {
    root: &'a Path,
}

/// A mounted hierarchy of control groups, and this process' group in it.
struct Hierarchy {
    /// Where it is mounted.
    mount: PathBuf,
    /// The process' group, at or below the mount.
    group: PathBuf,
    /// The files of a group.
    files: &'static Files,
}

/// What a version calls its files.
struct Files {
    limits: &'static [&'static str],
    usage: &'static str,
    /// In `memory.stat`: cached pages that are given up first.
    reclaimable: &'static str,
}

const V2: Files = Files {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: "inactive_file",
};

const V1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

impl<'a> Machine<'a> {
    fn at(root: &'a Path) -> Self {
        Self { root }
    }

    fn read(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix("/").unwrap_or(path);
        fs_err::read_to_string(self.root.join(below)).ok()
    }

    fn available_bytes(&self) -> Option<u64> {
        let groups = self.hierarchies().into_iter();
        let groups = groups.filter_map(|hierarchy| self.left_in(&hierarchy));
        groups.chain(self.free()).min()
    }

    /// Memory that the system says could be had without swapping.
    fn free(&self) -> Option<u64> {
        let text = self.read(Path::new("/proc/meminfo"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// The hierarchies that bound memory: of version 2, and of version 1 that with the
    /// memory controller.
    fn hierarchies(&self) -> Vec<Hierarchy> {
        let groups = self.read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let mounts = self.read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        // `number:controllers:path`; of version 2, `0::path`.
        let group_of = |v2: bool| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let named = controllers.split(',').any(|c| c == "memory");
                (if v2 { controllers.is_empty() } else { named }).then_some(path)
            })
        };
        mounts
            .lines()
            .filter_map(|line| {
                // `36 35 0:28 /root /mount options ... - type source super-options`
                let (front, back) = line.split_once(" - ")?;
                let mut front = front.split(' ').skip(3);
                let (root, mount) = (unescaped(front.next()?), unescaped(front.next()?));
                let mut back = back.split(' ');
                let (kind, options) = (back.next()?, back.nth(1)?);
                let v2 = match kind {
                    "cgroup2" => true,
                    "cgroup" if options.split(',').any(|o| o == "memory") => false,
                    _ => return None,
                };
                let mount = PathBuf::from(mount);
                // Seen from inside a container the path may be that of the host, of
                // which only the part below the mount's root is here; or none of it.
                let below = Path::new(group_of(v2)?).strip_prefix(&root).ok();
                let below = below.filter(|b| b.components().all(|c| matches!(c, Component::Normal(_))));
                Some(Hierarchy {
                    group: below.map_or_else(|| mount.clone(), |below| mount.join(below)),
                    mount,
                    files: if v2 { &V2 } else { &V1 },
                })
            })
            .collect()
    }

    /// What the tightest of a group and those above it leaves.
    fn left_in(&self, hierarchy: &Hierarchy) -> Option<u64> {
        let groups = hierarchy.group.ancestors();
        let groups = groups.take_while(|group| group.starts_with(&hierarchy.mount));
        groups
            .filter_map(|group| self.left_in_group(group, hierarchy.files))
            .min()
    }

    fn left_in_group(&self, group: &Path, files: &Files) -> Option<u64> {
        let number = |name: &str| -> Option<u64> { self.read(&group.join(name))?.trim().parse().ok() };
        // No limit is `max`, or of version 1 a number that no machine has.
        let limit = files.limits.iter().filter_map(|name| number(name)).min()?;
        let stat = self.read(&group.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == files.reclaimable).then(|| value.trim().parse::<u64>().ok())?
        });
        let used = number(files.usage)
            .unwrap_or(0)
            .saturating_sub(reclaimable.unwrap_or(0));
        Some(limit.saturating_sub(used))
    }
}

/// The kernel writes a space in a path as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 64 GiB free, and these files.
    fn left(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().expect("tempdir");
        let free = ("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   67108864 kB\n");
        for (name, text) in [free].iter().chain(files) {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
            fs_err::write(path, text).expect("written");
        }
        Machine::at(dir.path()).available_bytes()
    }

    const V2_MOUNT: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNTS: &str = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
         31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn without_control_groups_it_is_what_the_system_has_free() {
        assert_eq!(left(&[]), Some(64 << 30));
    }

    #[test]
    fn a_group_of_version_2_bounds_it_less_what_is_used_and_not_reclaimable() {
        let group = "sys/fs/cgroup/a.slice/b.scope";
        let files = [
            ("proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            (&format!("{group}/memory.max"), "1073741824\n"),
            (&format!("{group}/memory.high"), "max\n"),
            (&format!("{group}/memory.current"), "536870912\n"),
            (
                &format!("{group}/memory.stat"),
                "anon 1\ninactive_file 268435456\n",
            ),
        ];
        assert_eq!(left(&files), Some(768 << 20));
    }

    #[test]
    fn the_tightest_of_the_groups_above_counts() {
        let files = [
            ("proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/a.slice/memory.current", "3221225472\n"),
        ];
        assert_eq!(left(&files), Some(0), "more is used than may be");
    }

    #[test]
    fn a_group_of_version_1_bounds_it_beside_a_version_2_without_the_controller() {
        let mounts = format!(
            "{V1_MOUNTS}{}",
            V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        );
        let files = [
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/x\n4:memory:/docker/c\n0::/docker/c\n",
            ),
            ("proc/self/mountinfo", &mounts),
            (
                "sys/fs/cgroup/memory/docker/c/memory.limit_in_bytes",
                "536870912\n",
            ),
            ("sys/fs/cgroup/memory/docker/c/memory.usage_in_bytes", "4096\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/unified/docker/c/cgroup.procs", "1\n"),
        ];
        assert_eq!(left(&files), Some((512 << 20) - 4096));
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_is_bounded_by_it() {
        let mount = V1_MOUNTS.replace(" / /sys/fs/cgroup/memory ", " /docker/c /sys/fs/cgroup/memory ");
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n");
        let mounts = ("proc/self/mountinfo", mount.as_str());
        // With the host's path, with the container's own, and with one from outside.
        for path in ["4:memory:/docker/c\n", "4:memory:/\n", "4:memory:/../other\n"] {
            assert_eq!(left(&[("proc/self/cgroup", path), mounts, limit]), Some(1 << 20));
        }
    }
}

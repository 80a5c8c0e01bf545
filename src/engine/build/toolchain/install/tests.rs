//! Installing, from wheels made here and with stubs in the place of python3.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::*;
use crate::engine::build::toolchain::contents::Contents;
use crate::engine::build::toolchain::pin::{BUILTINS_FILE, NVRTC_FILE};

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
                let toolchain = install_pinned(&place.root, &place.pin(), &place.wheel).expect("installed");
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

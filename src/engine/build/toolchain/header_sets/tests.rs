//! Fetching header sets, from wheels made here and with stubs in the place of python3.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::*;

const LONG: Duration = Duration::from_mins(2);

/// A folder to install into, a wheel, and the pin of what is in it.
struct Stand {
    dir: tempfile::TempDir,
    wheel: PathBuf,
    sha256: String,
    pinned: &'static PinnedSet,
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let wheel = dir.path().join("a.whl");
        let mut zip = zip::ZipWriter::new(fs_err::File::create(&wheel).expect("file"));
        for (name, text) in [
            ("nvidia/cu13/include/a.h", "#include \"d/b\"\n"),
            ("nvidia/cu13/include/cccl/d/b", "#include \"c.inl\"\n"),
            ("nvidia/cu13/include/cccl/d/c.inl", "int c;\n"),
            ("nvidia/cu13/lib/libx.so", "no header"),
            ("x.dist-info/License.txt", "license"),
        ] {
            zip.start_file(name, zip::write::SimpleFileOptions::default())
                .expect("member");
            zip.write_all(text.as_bytes()).expect("bytes");
        }
        zip.finish().expect("zip");
        let texts = [
            ("a.h", "#include \"d/b\"\n"),
            ("d/b", "#include <d/c.inl>\n"),
            ("d/c.inl", "int c;\n"),
        ];
        let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let set = HeaderSet::from_texts(&BTreeMap::from(texts)).expect("set");
        // As long as a test: a pin is a constant of the program.
        let pinned = Box::leak(Box::new(PinnedSet {
            name: "some",
            version: "1.2",
            digest: Box::leak(set.digest().to_owned().into_boxed_str()),
            summary: "a test's",
        }));
        Self {
            sha256: hex::encode(Sha256::digest(fs_err::read(&wheel).expect("wheel"))),
            wheel,
            pinned,
            dir,
        }
    }

    fn place(&self) -> Place {
        Place::below(self.dir.path().join("toolchain"), self.pinned)
    }

    /// A python3 that notes that it was started and does this.
    fn pip(&self, does: &str) -> Pip {
        let python = self.dir.path().join("python3");
        let log = self.dir.path().join("started");
        let script = format!("#!/bin/sh\necho x >> {}\n{does}\n", log.display());
        fs_err::write(&python, script).expect("script");
        fs_err::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("mode");
        Pip {
            python: python.into(),
            limit: LONG,
        }
    }

    /// What leaves the wheel where pip would: the last but two of its words.
    fn delivers(&self) -> Pip {
        let wheel = self.wheel.display();
        self.pip(&format!(
            "while [ $# -gt 3 ]; do shift; done\ncp {wheel} \"$1\"/x.whl"
        ))
    }

    fn starts(&self) -> usize {
        let log = fs_err::read_to_string(self.dir.path().join("started"));
        log.map_or(0, |log| log.lines().count())
    }

    fn obtain(&self, pip: &Pip, asked: Asked, offline: bool) -> Result<HeaderSet, ToolchainError> {
        let sha256 = [self.sha256.as_str()];
        let wheels = [Requirement {
            name: "some-wheel",
            version: "1.2",
            sha256: &sha256,
        }];
        obtain(&self.place(), &wheels, pip, asked, offline)
    }
}

#[test]
fn a_set_is_fetched_once_and_then_read_offline() {
    let stand = Stand::new();
    let pip = stand.delivers();
    let fetched = stand.obtain(&pip, Asked::ByCompile, false).expect("fetched");
    assert!(fetched.has("d/c.inl") && fetched.has("a.h") && fetched.len() == 3);
    let held = stand.obtain(&pip, Asked::ByCompile, true).expect("held");
    assert_eq!(held.digest(), stand.pinned.digest);
    assert_eq!(stand.starts(), 1);
    let folder = stand.place().folder;
    let left: Vec<_> = fs_err::read_dir(&folder)
        .expect("folder")
        .map(|e| e.expect("entry").file_name())
        .collect();
    assert_eq!(left, ["1.2"], "no working folder is left");
}

#[test]
fn a_changed_set_is_refused_by_name_and_replaced_by_an_install() {
    let stand = Stand::new();
    let pip = stand.delivers();
    stand.obtain(&pip, Asked::ByName, false).expect("fetched");
    let file = stand.place().file();
    for broken in [&b"a.h\0int b;\0"[..], b"a.h", b""] {
        fs_err::write(&file, broken).expect("written");
        // A compile does not mend it behind anybody's back.
        match stand.obtain(&pip, Asked::ByCompile, false) {
            Err(ToolchainError::Changed { path, .. }) => assert_eq!(path, file),
            other => panic!("{other:?}"),
        }
        let set = stand.obtain(&pip, Asked::ByName, false).expect("replaced");
        assert_eq!(set.digest(), stand.pinned.digest);
    }
    assert_eq!(stand.starts(), 4);
}

#[test]
fn what_others_may_write_to_is_refused_until_an_install_has_read_it() {
    let stand = Stand::new();
    let pip = stand.delivers();
    stand.obtain(&pip, Asked::ByName, false).expect("fetched");
    let place = stand.place();
    for path in place.folders().iter().chain([&place.file()]) {
        let mode = fs_err::metadata(path).expect("there").permissions().mode();
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode | 0o020)).expect("chmod");
        match stand.obtain(&pip, Asked::ByCompile, false) {
            Err(ToolchainError::Untrusted { path: named, .. }) => assert_eq!(named, *path),
            other => panic!("{other:?}"),
        }
        stand
            .obtain(&pip, Asked::ByName, false)
            .expect("closed to others, and read");
    }
    assert_eq!(stand.starts(), 1, "the bytes were good: nothing more was fetched");
}

#[test]
fn a_wheel_that_is_not_pinned_or_makes_another_set_changes_nothing() {
    let mut stand = Stand::new();
    let pip = stand.delivers();
    let pinned = std::mem::replace(&mut stand.sha256, "00".into());
    let refused = stand
        .obtain(&pip, Asked::ByName, false)
        .expect_err("another wheel");
    assert!(
        matches!(refused, ToolchainError::UnknownWheel { .. }),
        "{refused}"
    );
    stand.sha256 = pinned;
    stand.pinned = Box::leak(Box::new(PinnedSet {
        digest: "00",
        ..*stand.pinned
    }));
    let refused = stand.obtain(&pip, Asked::ByName, false).expect_err("another set");
    assert!(matches!(refused, ToolchainError::Hash { .. }), "{refused}");
    assert!(!stand.place().file().exists());
}

#[test]
fn a_fetch_that_fails_is_tried_once_a_process_and_says_why() {
    let stand = Stand::new();
    let pip = stand.pip("echo ERROR: no network >&2\nexit 1");
    for _ in 0..3 {
        let failed = stand
            .obtain(&pip, Asked::ByCompile, false)
            .expect_err("no network");
        assert!(
            failed.to_string().ends_with("failed: ERROR: no network"),
            "{failed}"
        );
    }
    assert_eq!(stand.starts(), 1);
    stand
        .obtain(&stand.delivers(), Asked::ByName, false)
        .expect("tried again by name");
}

#[test]
fn offline_nothing_is_fetched_and_the_file_is_named() {
    let stand = Stand::new();
    let refused = stand
        .obtain(&stand.delivers(), Asked::ByCompile, true)
        .expect_err("offline");
    let file = stand.place().file().display().to_string();
    assert!(refused.to_string().contains(&file), "{refused}");
    assert_eq!(stand.starts(), 0);
}

#[test]
fn every_pinned_set_has_wheels_for_both_kinds_of_machines() {
    for set in &PINNED_SETS {
        let wheels = wheels_of(set);
        assert!(!wheels.is_empty(), "{}", set.name);
        assert!(wheels.iter().all(|wheel| wheel.sha256.len() == 2), "{}", set.name);
        assert_eq!(set.digest.len(), 64, "{}", set.name);
    }
}

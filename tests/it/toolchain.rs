//! The compiler is what it says: checked by content, trusted by owner and mode.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use jitc::engine::build::toolchain::{PINNED_VERSION, identify, pinned_identity};
use jitc::engine::config::{Config, Environment, Flags};
use predicates::str::contains;

use crate::cli::{events, jitc, succeeded};

const NVRTC: &str = "libnvrtc.so.13";
const BUILTINS: &str = "libnvrtc-builtins.so.13.0";

fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The managed toolchain of whoever runs the tests.
fn installed() -> Option<PathBuf> {
    let config = Config::load(Flags::default(), Environment::capture()).ok()?;
    let folder = config.toolchain_dir()?.join(PINNED_VERSION);
    folder.join(NVRTC).is_file().then_some(folder)
}

/// A home of its own with a copy of it.
struct Home {
    dir: tempfile::TempDir,
    folder: PathBuf,
}

impl Home {
    fn with_toolchain() -> Option<Self> {
        let Some(source) = installed() else {
            skip("the managed toolchain is not installed");
            return None;
        };
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = dir.path().join("jitc/toolchain").join(PINNED_VERSION);
        fs_err::create_dir_all(&folder).expect("folder");
        for name in [NVRTC, BUILTINS] {
            fs_err::copy(source.join(name), folder.join(name)).expect("copy");
        }
        for folder in folder.ancestors().take(3) {
            fs_err::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("mode");
        }
        Some(Self { dir, folder })
    }

    fn jitc(&self) -> Command {
        let mut command = jitc(self.dir.path());
        command.env("XDG_DATA_HOME", self.dir.path());
        command
    }

    fn warm(&self) -> Output {
        let args = ["warm", "stream", "--arch", "sm_90a", "--offline", "--json"];
        self.jitc().args(args).output().expect("ran")
    }

    /// One bit of a file is another.
    fn change(&self, name: &str) {
        let path = self.folder.join(name);
        let mut bytes = fs_err::read(&path).expect("library");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs_err::write(&path, bytes).expect("write");
    }
}

fn words(output: &Output) -> String {
    let [err, out] = [&output.stderr, &output.stdout].map(|words| String::from_utf8_lossy(words));
    format!("{err}{out}")
}

#[test]
fn a_changed_compiler_is_not_used_and_doctor_names_the_file() {
    let Some(home) = Home::with_toolchain() else {
        return;
    };
    succeeded(&home.jitc().args(["toolchain", "path"]).output().expect("ran"));
    let key = ["key", "stream", "--arch", "sm_90a", "--json"];
    let pinned = home.jitc().args(key).output().expect("ran");
    succeeded(&pinned);
    for name in [NVRTC, BUILTINS] {
        home.change(name);
        let file = home.folder.join(name).display().to_string();
        let doctor = home.jitc().args(["doctor", "--offline"]).output().expect("ran");
        assert_eq!(doctor.status.code(), Some(1), "{}", words(&doctor));
        let said = format!("{file} is not the pinned file and is not used");
        assert!(words(&doctor).contains(&said), "{}", words(&doctor));
        assert!(words(&doctor).contains("jitc toolchain install"));
        let warm = home.warm();
        assert!(!warm.status.success());
        assert!(words(&warm).contains(&said), "{}", words(&warm));
        home.jitc().args(key).assert().code(2).stderr(contains(&said));
        // Its bytes again: the same key.
        home.change(name);
        let again = home.jitc().args(key).output().expect("ran");
        assert_eq!(again.stdout, pinned.stdout, "{}", words(&again));
    }
}

#[test]
fn a_compiler_that_others_may_write_is_not_used() {
    let Some(home) = Home::with_toolchain() else {
        return;
    };
    let library = home.folder.join(BUILTINS);
    fs_err::set_permissions(&library, PermissionsExt::from_mode(0o664)).expect("chmod");
    let said = format!(
        "{} is not trusted: others may write to it (mode 664)",
        library.display()
    );
    let warm = home.warm();
    assert!(
        !warm.status.success() && words(&warm).contains(&said),
        "{}",
        words(&warm)
    );
    home.jitc()
        .args(["doctor", "--offline"])
        .assert()
        .code(1)
        .stdout(contains(&said))
        .stdout(contains("chmod go-w"));
    // Read whole and closed to others, it is good again, without a fetch.
    succeeded(
        &home
            .jitc()
            .args(["toolchain", "install", "--offline"])
            .output()
            .expect("ran"),
    );
    succeeded(&home.jitc().args(["toolchain", "path"]).output().expect("ran"));
    if std::os::unix::fs::chown(&library, Some(12345), None).is_err() {
        return skip("only root can give a file to somebody else");
    }
    home.jitc()
        .args(["doctor", "--offline"])
        .assert()
        .code(1)
        .stdout(contains("it belongs to user 12345"));
}

#[test]
fn the_pinned_bytes_are_the_pinned_compiler_wherever_they_lie() {
    let Some(home) = Home::with_toolchain() else {
        return;
    };
    let identity = identify(&home.folder.join(NVRTC), &home.folder.join(BUILTINS)).expect("an identity");
    assert_eq!(Some(identity), pinned_identity());
    // Elsewhere a changed one is another compiler, by content, with other keys.
    let named = |home: &Home| {
        let output = home
            .jitc()
            .args(["toolchain", "path", "--json", "--nvrtc"])
            .arg(&home.folder)
            .output()
            .expect("ran");
        succeeded(&output);
        events(&output)[0]["identity"].clone()
    };
    let pinned = named(&home);
    assert!(
        pinned["nvrtc"].as_str().expect("text").starts_with("build-id:"),
        "{pinned}"
    );
    home.change(BUILTINS);
    let changed = named(&home);
    for library in ["nvrtc", "builtins"] {
        assert!(
            changed[library].as_str().expect("text").starts_with("sha256:"),
            "{changed}"
        );
    }
    assert_ne!(changed["builtins"], pinned["builtins"]);
    // Its stamp lies with the user, not with the library.
    let stamps = fs_err::read_dir(home.dir.path().join("jitc/toolchain/.stamps")).expect("stamps");
    assert_eq!(stamps.count(), 1);
}

#[test]
fn a_library_is_what_its_content_is_whatever_its_times_say() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (nvrtc, builtins) = (dir.path().join(NVRTC), dir.path().join(BUILTINS));
    fs_err::write(&nvrtc, b"one").expect("write");
    fs_err::write(&builtins, b"builtins").expect("write");
    let first = identify(&nvrtc, &builtins).expect("an identity");
    assert_eq!(identify(&nvrtc, &builtins).expect("an identity"), first);
    let modified = fs_err::metadata(&nvrtc)
        .expect("a file")
        .modified()
        .expect("a time");
    // As long as before, and its time set back.
    fs_err::write(&nvrtc, b"two").expect("write");
    let file = fs_err::OpenOptions::new()
        .write(true)
        .open(&nvrtc)
        .expect("a file");
    file.file().set_modified(modified).expect("a time");
    let second = identify(&nvrtc, &builtins).expect("an identity");
    assert_ne!(second.nvrtc, first.nvrtc);
    assert_eq!(second.builtins, first.builtins);
}

#[test]
fn the_loaders_own_words_reach_the_user() {
    let dir = tempfile::tempdir().expect("tempdir");
    for name in [NVRTC, BUILTINS] {
        fs_err::write(dir.path().join(name), "no library at all").expect("write");
    }
    let args = ["warm", "stream", "--arch", "sm_90a", "--nvrtc"];
    let output = jitc(dir.path()).args(args).arg(dir.path()).output().expect("ran");
    assert!(!output.status.success());
    assert!(
        words(&output).contains("file too short") || words(&output).contains("invalid ELF header"),
        "{}",
        words(&output)
    );
}

#[test]
fn on_a_mount_without_execution_the_advice_is_another_folder() {
    let Some(home) = Home::with_toolchain() else {
        return;
    };
    let mount = home.dir.path().join("mount");
    fs_err::create_dir(&mount).expect("folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "noexec,size=300m,mode=755", "tmpfs"])
        .arg(&mount)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("only root can mount a folder");
    }
    let folder = mount.join("jitc/toolchain").join(PINNED_VERSION);
    fs_err::create_dir_all(&folder).expect("folder");
    for name in [NVRTC, BUILTINS] {
        fs_err::copy(home.folder.join(name), folder.join(name)).expect("copy");
    }
    let there = |args: &[&str]| {
        let mut command = home.jitc();
        command
            .env("XDG_DATA_HOME", &mount)
            .args(args)
            .output()
            .expect("ran")
    };
    let warm = there(&["warm", "stream", "--arch", "sm_90a", "--offline"]);
    let doctor = there(&["doctor", "--offline"]);
    let unmounted = std::process::Command::new("umount")
        .arg("-l")
        .arg(&mount)
        .status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert!(words(&warm).contains("failed to map segment"), "{}", words(&warm));
    assert_eq!(doctor.status.code(), Some(1));
    assert!(words(&doctor).contains("mounted noexec"), "{}", words(&doctor));
    assert!(words(&doctor).contains("set XDG_DATA_HOME"), "{}", words(&doctor));
}

#[test]
fn remove_says_what_it_frees_and_that_there_is_nothing() {
    let Some(home) = Home::with_toolchain() else {
        return;
    };
    let remove = |json: &[&str]| {
        home.jitc()
            .args(["toolchain", "remove"])
            .args(json)
            .output()
            .expect("ran")
    };
    let removed = remove(&["--json"]);
    succeeded(&removed);
    let said = &events(&removed)[0];
    assert!(said["bytes"].as_u64().expect("bytes") > 100_000_000, "{said}");
    assert!(!home.folder.exists());
    let again = remove(&[]);
    succeeded(&again);
    assert!(words(&again).contains("nothing is removed"), "{}", words(&again));
}

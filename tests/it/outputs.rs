//! Outputs go to what was named, whatever kind of file that is.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use jitc::engine::atomic_file::write_atomically;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::cache_support::{Root, build, subject};
use crate::command::{jitc, succeeded};

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    write_atomically(path, 0o644, |file| file.write_all(text.as_bytes()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).expect("folder");
    let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_link_stays_and_its_target_is_replaced_whole_with_its_mode() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::create_dir(dir.path().join("deep")).expect("folder");
    let target = dir.path().join("deep/target");
    fs_err::write(&target, "before, and longer").expect("written");
    fs_err::set_permissions(&target, std::fs::Permissions::from_mode(0o606)).expect("mode");
    let inode = fs_err::metadata(&target).expect("target").ino();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs_err::os::unix::fs::symlink("deep/target", &first).expect("link");
    fs_err::os::unix::fs::symlink(&first, &second).expect("link");

    write(&second, "after").expect("written");
    assert!(fs_err::symlink_metadata(&first).expect("link").is_symlink());
    assert!(fs_err::symlink_metadata(&second).expect("link").is_symlink());
    assert_eq!(fs_err::read_to_string(&target).expect("target"), "after");
    let after = fs_err::metadata(&target).expect("target");
    assert_eq!(after.mode() & 0o777, 0o606);
    assert_ne!(after.ino(), inode, "replaced by a rename, never half written");
    assert_eq!(names(&dir.path().join("deep")), ["target"]);

    // One whose target is not there yet names that place.
    fs_err::remove_file(&target).expect("removed");
    write(&first, "anew").expect("written");
    assert!(fs_err::symlink_metadata(&first).expect("link").is_symlink());
    assert_eq!(fs_err::read_to_string(&target).expect("target"), "anew");
}

#[test]
fn a_pipe_is_written_to_and_stays_a_pipe() {
    let dir = tempfile::tempdir().expect("tempdir");
    let pipe = dir.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let path = pipe.clone();
    let reader = std::thread::spawn(move || fs_err::read_to_string(path).expect("read"));
    write(&pipe, "through").expect("written");
    assert_eq!(reader.join().expect("reader"), "through");
    let there = fs_err::symlink_metadata(&pipe).expect("pipe");
    assert!(there.file_type().is_fifo());
    assert_eq!(names(dir.path()), ["pipe"]);
}

#[test]
fn a_device_named_as_receipt_or_bundle_stays_a_device() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let dir = tempfile::tempdir().expect("tempdir");
    let device = dir.path().join("null");
    let null = rustix::fs::makedev(1, 3);
    if mknodat(
        CWD,
        &device,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        null,
    )
    .is_err()
    {
        let _ = writeln!(std::io::stderr(), "in part: a device node cannot be made here");
        fs_err::os::unix::fs::symlink("/dev/null", &device).expect("link");
    }
    let before = fs_err::symlink_metadata(&device).expect("device");
    let output = jitc(dir.path())
        .args(["cache", "export", "-o"])
        .arg(&device)
        .arg("--cache-dir")
        .arg(root.path())
        .output()
        .expect("ran");
    succeeded(&output);
    let output = jitc(dir.path())
        .args(["warm", "axpy", "--arch", "sm_90a", "--receipt"])
        .arg(&device)
        .output()
        .expect("ran");
    succeeded(&output);
    write(&device, "gone").expect("written");
    let after = fs_err::symlink_metadata(&device).expect("device");
    assert_eq!(
        (before.ino(), before.file_type()),
        (after.ino(), after.file_type())
    );
}

#[test]
fn standard_output_may_be_named_as_the_bundle() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let dir = tempfile::tempdir().expect("tempdir");
    let export = |out: &str| {
        let mut command = jitc(dir.path());
        command.args(["cache", "export", "-o", out, "--cache-dir"]);
        command.arg(root.path());
        command
    };
    succeeded(&export("bundle").output().expect("ran"));
    let bundle = fs_err::read(dir.path().join("bundle")).expect("bundle");
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = export(name).output().expect("ran");
        succeeded(&output);
        assert!(output.stdout.starts_with(&bundle), "{name}: through a pipe");
        // Into a file, after what is there, and before the line that says so.
        let file = dir.path().join("redirected");
        fs_err::write(&file, "before\n").expect("written");
        let mut append = fs_err::OpenOptions::new();
        let handle = append.append(true).open(&file).expect("opened");
        let status = std::process::Command::new(assert_cmd::cargo::cargo_bin!("jitc"))
            .args(["cache", "export", "-o", name, "--cache-dir"])
            .arg(root.path())
            .current_dir(dir.path())
            .stdout(handle.into_parts().0)
            .status()
            .expect("ran");
        assert!(status.success(), "{name}: {status}");
        let mut all = Vec::new();
        let mut opened = fs_err::File::open(&file).expect("opened");
        opened.read_to_end(&mut all).expect("read");
        let rest = all.strip_prefix(b"before\n").expect("what was there");
        assert!(rest.starts_with(&bundle), "{name}: into a file");
        assert!(String::from_utf8_lossy(rest).contains("1 entries in"), "{name}");
    }
}

#[test]
fn a_folder_or_a_circle_of_links_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let error = write(dir.path(), "x").expect_err("a folder").to_string();
    assert!(error.ends_with("is a folder: expected a file's name"), "{error}");
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs_err::os::unix::fs::symlink(&a, &b).expect("link");
    fs_err::os::unix::fs::symlink(&b, &a).expect("link");
    let error = write(&a, "x").expect_err("a circle").to_string();
    assert!(error.ends_with("its links go round in a circle"), "{error}");
}

#[test]
fn a_filter_that_fits_nothing_overwrites_nothing_and_names_the_slip() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("b"), "a good bundle").expect("written");
    for (verb, filter, says) in [
        (
            "export",
            ["--set", "nn=1"],
            "none of 1 entries fits the filter: no entry has a constant `nn` (did you mean `n`?)",
        ),
        ("embed", ["--family", "prob"], "none of 1 entries fits the filter"),
        ("export", ["--set", "n=2"], "none of 1 entries fits the filter"),
    ] {
        let output = jitc(dir.path())
            .args(["cache", verb, "-o", "b"])
            .args(filter)
            .arg("--cache-dir")
            .arg(root.path())
            .output()
            .expect("ran");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.trim_end(), format!("error: b: not written: {says}"));
        let bundle = fs_err::read_to_string(dir.path().join("b")).expect("bundle");
        assert_eq!(bundle, "a good bundle");
    }
}

/// A single file that is mounted into a container cannot be replaced; and where nothing
/// may be made in its folder, a file that may be written is written.
#[test]
fn a_file_that_cannot_be_replaced_is_overwritten() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (outside, inside) = (dir.path().join("outside"), dir.path().join("inside"));
    fs_err::write(&outside, "before, and longer").expect("written");
    fs_err::write(&inside, "").expect("written");
    let script = "mount --bind \"$0\" \"$1\" && exec \"$2\" cache export -o \"$1\" --cache-dir \"$3\"";
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let able = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\""])
        .args([&outside, &inside])
        .output();
    if !able.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: nothing can be mounted here");
        return;
    }
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .args([
            &outside,
            &inside,
            assert_cmd::cargo::cargo_bin!("jitc"),
            &root.path(),
        ])
        .output()
        .expect("ran");
    succeeded(&output);
    let bundle = fs_err::read(&outside).expect("bundle");
    assert!(bundle.starts_with(b"JITCBNDL"), "written to the mounted file");
    assert_eq!(names(dir.path()), ["inside", "outside"]);
}

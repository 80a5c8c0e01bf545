//! `jitc sign`, and what the program says of what is signed and what is not.

use std::os::unix::fs::PermissionsExt;

use jitc::engine::cache::{Receipt, Store, Whole};

use crate::cache_support::{artifact, subject};
use crate::command::{jitc, succeeded};
use crate::signatures::{key, open_up, set_modes};

#[test]
fn the_command_line_makes_keys_signs_and_verifies() {
    let dir = tempfile::tempdir().expect("tempdir");
    let cache = dir.path().join("cache");
    fs_err::create_dir(&cache).expect("create");
    let run = |args: &[&str], keys: &str| {
        let mut command = jitc(&cache);
        if !keys.is_empty() {
            command.env("JITC_TRUSTED_KEYS", keys);
        }
        command.current_dir(dir.path()).args(args).output().expect("ran")
    };
    let made = run(&["sign", "keygen", "fleet-1", "--out", "secret"], "");
    succeeded(&made);
    let public = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    assert!(public.starts_with("fleet-1:"), "{public}");
    let again = run(&["sign", "keygen", "fleet-1", "--out", "secret"], "");
    assert_eq!(again.status.code(), Some(2), "a key is not written over");
    // One entry that needs no compiler, in this folder.
    Store::new(&cache)
        .publish(&Whole::new(&subject(0), &artifact(0)))
        .expect("published");
    let verify = |args: &[&str]| run(&[&["sign", "verify"], args].concat(), &public);
    assert_eq!(verify(&[]).status.code(), Some(1));
    assert_eq!(
        run(&["sign", "verify"], "").status.code(),
        Some(2),
        "no key is trusted"
    );
    succeeded(&run(&["cache", "export", "--out", "bundle"], ""));
    fs_err::write(
        dir.path().join("receipt"),
        Receipt::new(vec!["none".into()]).to_bytes(),
    )
    .expect("written");
    assert_eq!(verify(&["bundle", "receipt"]).status.code(), Some(1));
    succeeded(&run(&["sign", "sign", "--key", "secret"], ""));
    succeeded(&run(&["sign", "sign", "--key", "secret", "bundle"], ""));
    // By a descriptor, as a secret store hands a key out.
    let fd = std::process::Command::new("sh")
        .args([
            "-c",
            "exec \"$0\" sign sign receipt --key-fd 7 7< secret",
            assert_cmd::cargo::cargo_bin("jitc").to_str().expect("a path"),
        ])
        .current_dir(dir.path())
        .env("JITC_CACHE_DIR", &cache)
        .output()
        .expect("ran");
    succeeded(&fd);
    for args in [&[][..], &["bundle"], &["receipt"]] {
        let verified = verify(args);
        succeeded(&verified);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(said.contains("signed by fleet-1"), "{said}");
    }
    let secret = dir.path().join("secret");
    fs_err::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let exposed = run(&["sign", "sign", "--key", "secret"], "");
    assert_eq!(exposed.status.code(), Some(2));
    let said = String::from_utf8_lossy(&exposed.stderr).into_owned();
    assert!(
        said.contains("chmod 600") && said.trim().lines().count() == 1,
        "{said}"
    );
}

#[test]
fn why_a_check_and_a_load_decide_alike_of_what_is_signed_and_what_is_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let [built, own] = ["built", "own"].map(|name| {
        let folder = dir.path().join(name);
        fs_err::create_dir(&folder).expect("create");
        folder
    });
    let request = ["stream", "--arch", "sm_90a"];
    let warm = jitc(&built).arg("warm").args(request).output().expect("ran");
    succeeded(&warm);
    let ours = key("fleet-1");
    let store = Store::new(&built);
    let entry = store.keys().expect("keys")[0];
    let ask = |verb: &[&str]| {
        let output = jitc(&own)
            .args(verb)
            .args(request)
            .arg("--cache-ro")
            .arg(&built)
            .env("JITC_TRUSTED_KEYS", ours.public().to_string())
            .env("JITC_MISS", "forbid")
            .output()
            .expect("ran");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    open_up(&built);
    for (verb, code) in [
        (&["warm"][..], Some(2)),
        (&["warm", "--check"], Some(1)),
        (&["why"], Some(1)),
    ] {
        let (status, said) = ask(verb);
        assert_eq!(status, code, "{verb:?}: {said}");
        assert!(said.contains("it is not signed"), "{verb:?}: {said}");
    }
    // Signed by its owner, and open to everybody again.
    set_modes(&built, 0o755);
    assert!(store.sign(&entry, &ours).expect("signed"));
    open_up(&built);
    for verb in [&["warm"][..], &["warm", "--check"], &["why"]] {
        let (status, said) = ask(verb);
        assert_eq!(status, Some(0), "{verb:?}: {said}");
    }
}

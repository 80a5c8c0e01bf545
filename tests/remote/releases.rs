//! Releases and entries that are pushed and pulled by the program.

use std::path::Path;

use assert_cmd::Command;
use jitc::engine::cache::{Release, Remote, Store};

use crate::cache_support::{Root, build, subject};
use crate::command::{events, jitc, succeeded};
use crate::events::store;
use crate::server::{Mood, Server};
use crate::tier::Share;

/// The program, on the cache of a machine with entries of these subjects.
fn machine(root: &Root, subjects: impl IntoIterator<Item = u32>) -> impl Fn(&[&str]) -> Command {
    for n in subjects {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    let path = root.path();
    fs_err::create_dir_all(&path).expect("a folder");
    move |words| {
        let mut command = jitc(&path);
        command.args(words);
        command
    }
}

fn entries(root: &Path) -> usize {
    Store::new(root).keys().expect("keys").len()
}

fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("run");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    error
}

#[test]
fn a_release_goes_by_name_or_digest_and_a_later_one_moves_the_name() {
    let share = Share::new();
    let (first, second) = (Root::new(), Root::new());
    let push = machine(&first, 0..3);
    let output = push(&[
        "cache",
        "push",
        "rel-1",
        "--json",
        "--remote",
        &share.url("role=write"),
    ])
    .output()
    .expect("run");
    succeeded(&output);
    let pushed = &events(&output)[0];
    assert_eq!(pushed["entries"], 3);
    let digest = pushed["digest"].as_str().expect("a digest").to_owned();
    let pull = machine(&second, []);
    let url = share.url("");
    succeeded(
        &pull(&["cache", "pull", "rel-1", "--remote", &url])
            .output()
            .expect("run"),
    );
    assert_eq!(entries(&second.path()), 3);
    // The same machine with more of them: the name leads elsewhere, the digest does not.
    let push = machine(&first, 3..5);
    succeeded(
        &push(&["cache", "push", "rel-1", "--remote", &share.url("role=write")])
            .output()
            .expect("run"),
    );
    let third = Root::new();
    let pull = machine(&third, []);
    succeeded(
        &pull(&["cache", "pull", &digest, "--remote", &url])
            .output()
            .expect("run"),
    );
    assert_eq!(entries(&third.path()), 3);
    succeeded(
        &pull(&["cache", "pull", "rel-1", "--remote", &url])
            .output()
            .expect("run"),
    );
    assert_eq!(entries(&third.path()), 5);
    let error = fails(&mut pull(&["cache", "pull", "rel-2", "--remote", &url]), 2);
    assert!(error.contains("no store has rel-2"), "{error}");
    let error = fails(&mut pull(&["cache", "pull", "../x", "--remote", &url]), 2);
    assert!(error.contains("expected a name"), "{error}");
    let error = fails(&mut push(&["cache", "push", "rel-1", "--remote", &url]), 2);
    assert!(error.contains("role=write"), "{error}");
    let error = fails(&mut push(&["cache", "push", "rel-1"]), 2);
    assert!(error.contains("--remote"), "{error}");
}

#[test]
fn entries_are_pushed_one_by_one_and_those_that_are_there_stay() {
    let share = Share::new();
    let root = Root::new();
    let program = machine(&root, 0..4);
    let url = share.url("role=write");
    let push = |words: &[&str]| {
        let output = program(&[words, &["--json", "--remote", &url]].concat())
            .output()
            .expect("run");
        succeeded(&output);
        let pushed = events(&output)[0]["pushed"].clone();
        (pushed["sent"].as_u64(), pushed["present"].as_u64())
    };
    assert_eq!(push(&["cache", "push", "--set", "n=1"]), (Some(1), Some(0)));
    assert_eq!(push(&["cache", "push"]), (Some(3), Some(1)));
    assert!(share.object(subject(3).key()).exists());
    let error = fails(
        &mut program(&["cache", "push", "--set", "n=9", "--remote", &url]),
        1,
    );
    assert!(error.contains("nothing is sent"), "{error}");
    let gone = url.replace('?', "/gone?");
    let error = fails(&mut program(&["cache", "push", "--remote", &gone]), 2);
    assert_eq!(error.matches("was not sent to").count(), 4, "{error}");
}

#[test]
fn a_release_that_was_altered_cut_short_or_is_none_changes_nothing() {
    let server = Server::start();
    let root = Root::new();
    drop(machine(&root, 0..3));
    let keys = root.store().keys().expect("keys");
    let mut bundle = Vec::new();
    jitc::engine::cache::bundle::export(&root.store(), &keys, &mut bundle).expect("exported");
    let remote = Remote::new(store(&server.url("role=read-write&timeout=10s&cool_down=10ms")));
    let digest = remote.push_bundle("rel", bundle.clone()).expect("pushed");
    let pull = |release: &Release| remote.pull_bundle(release);
    let name = Release::Name("rel".into());
    assert_eq!(pull(&name).expect("pulled"), Some(bundle.clone()));
    assert_eq!(pull(&Release::Name("none".into())).expect("asked"), None);
    for mood in [Mood::Half, Mood::Cut, Mood::Flip, Mood::Garbage, Mood::Endless] {
        server.set(mood);
        let pulled = pull(&Release::Digest(digest.clone()));
        assert!(pulled.is_err(), "{mood:?}");
    }
    server.set(Mood::Good);
    std::thread::sleep(std::time::Duration::from_millis(20));
    // Put right by the next push.
    let path = format!("/fleet/v2/bundles/{digest}");
    server.held().objects.insert(path.clone(), b"altered".to_vec());
    assert!(pull(&name).is_err());
    remote.push_bundle("rel", bundle.clone()).expect("pushed");
    assert_eq!(pull(&name).expect("pulled"), Some(bundle));
    server.held().objects.remove(&path);
    assert!(
        pull(&name)
            .expect_err("gone")
            .to_string()
            .contains("its bundle is not")
    );
    server
        .held()
        .objects
        .insert("/fleet/v2/names/rel".into(), b"../../etc/passwd".to_vec());
    assert!(
        pull(&name)
            .expect_err("no digest")
            .to_string()
            .contains("is not a digest")
    );
}

#[test]
fn once_a_key_is_trusted_no_unsigned_entry_is_pushed_or_pulled() {
    let share = Share::new();
    let (here, there) = (Root::new(), Root::new());
    let program = machine(&here, 0..2);
    succeeded(
        &program(&["cache", "push", "rel", "--remote", &share.url("role=write")])
            .output()
            .expect("run"),
    );
    let key = here.path().join("secret");
    let output = program(&["sign", "keygen", "fleet-1", "--out", key.to_str().expect("text")])
        .output()
        .expect("run");
    succeeded(&output);
    let public = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .expect("a key")
        .trim()
        .to_owned();
    let pull = machine(&there, []);
    let url = share.url("");
    let error = fails(
        pull(&["cache", "pull", "rel", "--remote", &url]).env("JITC_TRUSTED_KEYS", &public),
        2,
    );
    assert!(
        error.contains("signature") && error.contains("nothing was changed"),
        "{error}"
    );
    assert_eq!(entries(&there.path()), 0);
    let push = ["cache", "push", "rel", "--remote", &share.url("role=write")];
    let error = fails(program(&push).env("JITC_TRUSTED_KEYS", &public), 2);
    assert!(
        error.contains("is not sent") && error.contains("signature"),
        "{error}"
    );
    succeeded(
        &program(&["sign", "sign", "--key", key.to_str().expect("text")])
            .output()
            .expect("run"),
    );
    succeeded(
        &program(&push)
            .env("JITC_TRUSTED_KEYS", &public)
            .output()
            .expect("run"),
    );
    succeeded(
        &pull(&["cache", "pull", "rel", "--remote", &url])
            .env("JITC_TRUSTED_KEYS", &public)
            .output()
            .expect("run"),
    );
    assert_eq!(entries(&there.path()), 2);
}

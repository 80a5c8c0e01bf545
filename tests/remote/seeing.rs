//! What the program says of stores: why, doctor, stats, logs.

use crate::cache_support::{Root, build, never, subject};
use crate::command::{events, jitc, succeeded};
use crate::events::store;
use crate::server::{Mood, Server};
use crate::tier::Share;
use jitc::engine::cache::{Cache, StoreAnswer, store_answers};

fn answers(cache: &Cache, n: u32) -> Vec<(&'static str, Option<String>)> {
    let all = store_answers(cache.tiers(), subject(n).key());
    all.into_iter()
        .map(|StoreAnswer { answer, reason, .. }| (answer, reason))
        .collect()
}

#[test]
fn each_answer_of_a_store_is_told_from_the_others() {
    let share = Share::new().filled([1]);
    let server = Server::start();
    server.set(Mood::Status(503));
    let cache = Cache::builder()
        .remote(share.store(""))
        .remote(store(&server.url("")))
        .build();
    let found = answers(&cache, 1);
    assert_eq!(found[0], ("found", None));
    assert_eq!(found[1], ("unreachable", Some("it answers 503".to_owned())));
    server.set(Mood::Garbage);
    let absent = answers(&cache, 2);
    assert_eq!(absent[0], ("absent", None));
    assert_eq!(absent[1].0, "refused");
    let words = store_answers(cache.tiers(), subject(2).key())
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    assert!(
        words[0].starts_with("asked file://") && words[0].ends_with(": absent"),
        "{words:?}"
    );
}

#[test]
fn why_says_what_each_store_answered_and_the_doctor_tries_only_when_asked() {
    let share = Share::new();
    let server = Server::start();
    let root = tempfile::tempdir().expect("a folder");
    let remote = format!("{},{}", share.url("role=read-write"), server.url("role=read"));
    let run = |words: &[&str]| {
        let mut command = jitc(root.path());
        command.args(words).env("JITC_REMOTE", &remote);
        let output = command.output().expect("run");
        (events(&output), output)
    };
    let (why, _) = run(&["why", "axpy", "--arch", "sm_90", "--json"]);
    let stores = why[0]["stores"].as_array().expect("stores");
    assert_eq!(stores.len(), 2, "{stores:?}");
    assert!(
        stores.iter().all(|store| store["answer"] == "absent"),
        "{stores:?}"
    );
    let asked = server.count("GET");
    let facts = |words: &[&str]| {
        let (found, _) = run(words);
        let facts = found[0]["facts"].as_array().expect("facts").clone();
        facts
            .into_iter()
            .filter(|fact| fact["what"] == "store")
            .collect::<Vec<_>>()
    };
    assert!(facts(&["doctor", "--json"]).is_empty());
    assert_eq!(server.count("GET"), asked, "nothing is asked by itself");
    let tried = facts(&["doctor", "--stores", "--json"]);
    assert_eq!(tried.len(), 2);
    assert!(tried.iter().all(|fact| fact["good"] == true), "{tried:?}");
    assert!(
        tried[0]["text"].as_str().expect("text").contains("put "),
        "{tried:?}"
    );
    server.set(Mood::Status(403));
    let tried = facts(&["doctor", "--stores", "--json"]);
    assert!(
        tried[1]["text"].as_str().expect("text").contains("credentials"),
        "{tried:?}"
    );
}

#[test]
fn what_processes_counted_of_stores_is_summed_in_the_folder_and_shown() {
    let share = Share::new().filled(0..3);
    let root = Root::new();
    let open = || {
        Cache::builder()
            .user(root.path())
            .remote(share.store("role=read-write"))
            .build()
    };
    let cache = open();
    cache.get_or_build(&subject(0), never).expect("a hit");
    cache.get_or_build(&subject(9), || build(9)).expect("built");
    drop(cache);
    let cache = open();
    cache.get_or_build(&subject(1), never).expect("a hit");
    let text = cache.prometheus();
    for metric in [
        "store_requests_total",
        "store_promoted_total",
        "store_wait_seconds_total",
        "store_left_alone_total",
    ] {
        assert!(text.contains(&format!("# TYPE jitc_{metric} counter")), "{text}");
    }
    drop(cache);
    let usage = root.store().usage().expect("read").stores;
    assert_eq!((usage.found, usage.promoted, usage.sent), (2, 2, 1), "{usage:?}");
    let output = jitc(&root.path()).args(["cache", "stats"]).output().expect("run");
    succeeded(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("stores: 2 found"), "{text}");
}

#[test]
fn no_log_at_any_level_has_a_password_or_a_server_s_words() {
    let server = Server::start();
    server.held().authorization = Some("Basic b3BzOmh1c2gtaHVzaA==".into());
    let root = tempfile::tempdir().expect("a folder");
    let home = tempfile::tempdir().expect("a folder");
    fs_err::write(
        home.path().join(".netrc"),
        "machine 127.0.0.1 login ops password hush-hush\n",
    )
    .expect("written");
    for mood in [Mood::Good, Mood::Status(500), Mood::Garbage] {
        server.set(mood);
        let mut command = jitc(root.path());
        command.args([
            "why",
            "axpy",
            "--arch",
            "sm_90",
            "-vvv",
            "--remote",
            &server.url("role=read-write"),
        ]);
        let output = command
            .env("HOME", home.path())
            .env("RUST_LOG", "trace")
            .output()
            .expect("run");
        let words = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        assert!(words.contains("asked"), "{words}");
        assert!(
            !words.contains("hush-hush") && !words.contains("b3BzOmh1c2gtaHVzaA"),
            "{words}"
        );
    }
    assert!(server.count("GET") > 0);
}

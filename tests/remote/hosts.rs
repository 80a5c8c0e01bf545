//! Programs of all kinds that ask stores: those that fork, are ended by a signal, or have
//! a runtime of their own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jitc::engine::cache::{Asked, Cache, Event};

use crate::apart::{apart, ended_well, in_child};
use crate::cache_support::{Root, artifact, build, never, subject};
use crate::events::{Told, store};
use crate::server::{Mood, Server};
use crate::tier::Share;

/// Until a server was asked so often.
fn until_asked(server: &Server, method: &str, times: usize) {
    let asked = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        server.count(method) >= times
    });
    assert!(asked, "{method}");
}

#[test]
fn a_child_that_is_forked_while_a_store_is_asked_and_sent_to_has_connections_and_a_queue_of_its_own() {
    let name = "hosts::a_child_that_is_forked_while_a_store_is_asked_and_sent_to_has_connections_and_a_queue_of_its_own";
    if apart(name).is_none() {
        return;
    }
    let server = Server::start();
    let cache = Arc::new(
        Cache::builder()
            .remote(store(&server.url("role=read-write&timeout=1m")))
            .build(),
    );
    let root = Root::new();
    let sends = Cache::builder()
        .user(root.path())
        .remote(store(&server.url("role=write&timeout=1m")))
        .build();
    sends.get_or_build(&subject(1), || build(1)).expect("built");
    until_asked(&server, "PUT", 1);
    // Both hang in the parent, on threads that the child has not.
    server.held().holds = Some(subject(2).key().hex());
    sends.get_or_build(&subject(2), || build(2)).expect("built");
    until_asked(&server, "PUT", 2);
    server.set(Mood::Silent);
    let (asks, before) = (Arc::clone(&cache), server.count("GET"));
    std::thread::spawn(move || asks.lookup(subject(2).key()));
    until_asked(&server, "GET", before + 1);
    let child = in_child(|| {
        let hit = cache.get_or_build(&subject(1), never).expect("a hit");
        assert_eq!(hit.artifact.cubin, artifact(1).cubin);
        sends.get_or_build(&subject(3), || build(3)).expect("built");
        jitc::engine::cache::shutdown();
    });
    server.set(Mood::Good);
    ended_well(child);
    // It would wait for what hangs.
    std::mem::forget(sends);
    let held = server.held();
    let puts = |n| {
        let is_put =
            |(method, path): &&(String, String)| method == "PUT" && path.ends_with(&subject(n).key().hex());
        held.requests.iter().filter(is_put).count()
    };
    assert_eq!([puts(1), puts(2), puts(3)], [1; 3], "{:?}", held.requests);
    assert!(
        held.objects
            .keys()
            .any(|path| path.ends_with(&subject(3).key().hex()))
    );
}

#[test]
fn a_program_that_is_ended_by_sigterm_sends_what_waits_before_it_goes() {
    let (server, folder) = (Server::start(), Root::new());
    fs_err::create_dir_all(folder.path()).expect("a folder");
    server.held().holds = Some("/v2/".into());
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("jitc"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("JITC_") {
            command.env_remove(name);
        }
    }
    let mut warm = command
        .args([
            "warm",
            "wo_gemv",
            "--wo-split",
            "1,2,4,8",
            "--arch",
            "sm_80,sm_90a",
        ])
        .args([
            "--jobs",
            "1",
            "--json",
            "--remote",
            &server.url("role=write&timeout=1m"),
        ])
        .env("JITC_CACHE_DIR", folder.path())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut first = String::new();
    BufReader::new(warm.stdout.take().expect("pipe"))
        .read_line(&mut first)
        .expect("a line");
    assert!(first.contains(r#""provenance":"built""#), "{first}");
    until_asked(&server, "PUT", 1);
    let process = rustix::process::Pid::from_child(&warm);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("sent");
    server.held().holds = None;
    let status = warm.wait().expect("ended");
    assert_eq!(status.signal(), Some(15), "{status}");
    let said: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    let key = said["key"].as_str().expect("a key");
    let held = server.held();
    assert!(
        held.objects.keys().any(|path| path.ends_with(key)),
        "{:?}",
        held.requests
    );
}

/// Asks, builds and sends, and waits for what is to be sent.
fn uses(url: &str, n: u32) {
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(store(url)));
    cache.get_or_build(&subject(n), || build(n)).expect("built");
    drop(cache);
    assert_eq!(
        told.count(|e| matches!(e, Event::Sent { .. })),
        1,
        "{:?}",
        told.all()
    );
    let cache = told.by(Cache::builder().remote(store(url)));
    let hit = cache.get_or_build(&subject(n), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(n).cubin);
    assert_eq!(told.answers().last(), Some(&Asked::Found));
}

#[test]
fn a_program_may_ask_stores_from_inside_a_runtime_of_its_own() {
    let (server, share) = (Server::start(), Share::new());
    let urls = [server.url("role=read-write"), share.url("role=read-write")];
    let mut one_thread = tokio::runtime::Builder::new_current_thread();
    let mut several = tokio::runtime::Builder::new_multi_thread();
    for (n, builder) in (0_u32..).zip([&mut one_thread, several.worker_threads(2)]) {
        let runtime = builder.enable_all().build().expect("a runtime");
        let inside = urls.clone();
        runtime.block_on(async move {
            for url in &inside {
                uses(url, 2 * n);
            }
            let task = tokio::spawn(async move {
                for url in &inside {
                    uses(url, 2 * n + 1);
                }
            });
            task.await.expect("no panic");
        });
    }
}

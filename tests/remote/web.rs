//! A web server as a store, and what a hostile one costs: a miss.

use jitc::engine::cache::{Asked, Cache, Event, Remote};
use jitc::engine::config::remote::Login;

use crate::cache_support::{Root, artifact, build, never, subject};
use crate::events::{Told, store};
use crate::server::{Mood, Server};

/// A server with the entries of these subjects.
fn filled(subjects: impl IntoIterator<Item = u32>) -> Server {
    let server = Server::start();
    fill(&server, subjects);
    server.held().requests.clear();
    server
}

fn fill(server: &Server, subjects: impl IntoIterator<Item = u32>) {
    let (root, told) = (Root::new(), Told::default());
    let remote = store(&server.url("role=write"));
    let cache = told.by(Cache::builder().user(root.path()).remote(remote));
    for n in subjects {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    drop(cache);
    let lost: Vec<Event> = told
        .all()
        .into_iter()
        .filter(|e| matches!(e, Event::NotSent { .. }))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_hit_of_a_web_server_is_one_get_and_a_miss_too() {
    let server = filled(0..3);
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(store(&server.url(""))));
    for n in 0..3 {
        let hit = cache.get_or_build(&subject(n), never).expect("a hit");
        assert_eq!(hit.artifact.cubin, artifact(n).cubin);
    }
    cache.get_or_build(&subject(3), || build(3)).expect("built");
    let methods: Vec<String> = server
        .held()
        .requests
        .iter()
        .map(|(method, _)| method.clone())
        .collect();
    assert_eq!(methods, ["GET"; 4]);
    assert_eq!(
        told.answers(),
        [Asked::Found, Asked::Found, Asked::Found, Asked::Absent]
    );
    drop(cache);
    let cache = Cache::builder()
        .user(root.path())
        .remote(store(&server.url("")))
        .build();
    for n in 0..4 {
        cache.get_or_build(&subject(n), never).expect("a hit");
    }
    assert_eq!(server.count("GET"), 4, "the second process asks nothing");
}

#[test]
fn what_a_hostile_server_sends_is_a_miss_of_its_own_kind_and_the_same_is_asked_once() {
    let long = "timeout=1m";
    let short = "timeout=300ms";
    for (mood, options, answer) in [
        (Mood::Garbage, long, Asked::Refused),
        (Mood::Half, long, Asked::Refused),
        (Mood::Flip, long, Asked::Refused),
        (Mood::Endless, long, Asked::Refused),
        (Mood::Cut, long, Asked::Unreachable),
        (Mood::EndlessError, long, Asked::Unreachable),
        (Mood::Close, long, Asked::Unreachable),
        (Mood::Status(403), long, Asked::Unreachable),
        (Mood::Status(401), long, Asked::Unreachable),
        (Mood::Status(500), long, Asked::Unreachable),
        (Mood::Status(503), long, Asked::Unreachable),
        (Mood::Status(429), long, Asked::Unreachable),
        (Mood::Status(418), long, Asked::Unreachable),
        (Mood::Status(404), long, Asked::Absent),
        (Mood::Redirect, long, Asked::Unreachable),
        (Mood::Silent, short, Asked::Unreachable),
        (Mood::Trickle, short, Asked::Unreachable),
    ] {
        let server = filled([1]);
        server.set(mood);
        let (root, told) = (Root::new(), Told::default());
        let cache = told.by(Cache::builder()
            .user(root.path())
            .remote(store(&server.url(options))));
        let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
        assert_eq!(built.artifact.cubin, artifact(1).cubin, "{mood:?}");
        assert_eq!(built.provenance.label(), "built", "{mood:?}");
        let words = format!("{:?}", told.all());
        assert_eq!(told.answers(), [answer], "{mood:?}: {words}");
        assert!(!words.contains("hush"), "{mood:?}: {words}");
    }
}

#[test]
fn an_answer_that_does_not_say_how_long_it_is_is_read_to_its_end() {
    let server = filled([1]);
    server.set(Mood::Unannounced);
    let cache = Cache::builder().remote(store(&server.url(""))).build();
    let hit = cache.get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
}

#[test]
fn a_deadline_that_passes_leaves_the_store_alone_at_once_and_it_is_tried_again_later() {
    let server = filled(0..9);
    server.set(Mood::Silent);
    let (root, told) = (Root::new(), Told::default());
    let remote = store(&server.url("timeout=200ms&cool_down=1s"));
    let cache = told.by(Cache::builder().user(root.path()).remote(remote));
    for n in 0..5 {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    let opened = told.count(|e| matches!(e, Event::StoreLeftAlone { .. }));
    assert_eq!(opened, 1);
    assert!(server.count("GET") < 5, "left alone");
    server.set(Mood::Good);
    // Until it is asked again: no more than its time to be left alone.
    let again = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        cache.lookup(subject(8).key()).is_some()
    });
    assert!(again);
    assert_eq!(told.count(|e| matches!(e, Event::StoreAskedAgain { .. })), 1);
}

#[test]
fn wrong_credentials_are_told_as_such_and_right_ones_come_from_the_user_s_own_file() {
    let server = filled([1]);
    server.held().authorization = Some("Basic b3BzOmh1c2g=".into());
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(store(&server.url(""))));
    assert!(cache.lookup(subject(1).key()).is_none());
    let reasons: Vec<String> = told
        .all()
        .into_iter()
        .filter_map(|event| match event {
            Event::TierUnavailable { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(reasons[0].contains("credentials"), "{reasons:?}");
    let remote = store(&server.url("")).with_login(Some(Login::new("ops", "hush")));
    let cache = Cache::builder().remote(remote).build();
    assert!(cache.lookup(subject(1).key()).is_some());
}

#[test]
fn a_webdav_server_is_written_to_with_the_folders_that_it_wants() {
    for (wants_folders, overwrites) in [(false, false), (true, false), (true, true)] {
        let server = Server::start();
        server.held().wants_folders = wants_folders;
        server.held().overwrites = overwrites;
        fill(&server, 0..4);
        let first = server.held().objects.clone();
        assert_eq!(first.len(), 4);
        fill(&server, 0..6);
        let second = server.held().objects.clone();
        assert_eq!(second.len(), 6);
        assert!(first.iter().all(|(name, bytes)| second[name] == *bytes));
        let probed = Remote::new(store(&server.url("role=read-write"))).probe();
        assert!(matches!(probed.put, Some(Ok(_))), "{probed:?}");
        assert_eq!(probed.creates_alone, Some(!overwrites));
        assert_eq!(server.held().objects.len(), 6, "nothing is left");
    }
}

#[test]
fn a_server_that_lies_in_one_of_ten_answers_gives_no_wrong_byte() {
    let server = filled(0..40);
    server.set(Mood::Unreliable);
    let mut found = 0;
    for _ in 0..3 {
        let root = Root::new();
        let remote = store(&server.url("timeout=300ms&cool_down=10ms"));
        let cache = Cache::builder().user(root.path()).remote(remote).build();
        for n in 0..40 {
            let fetched = cache.get_or_build(&subject(n), || build(n)).expect("an artifact");
            assert_eq!(fetched.artifact.cubin, artifact(n).cubin);
            found += u32::from(fetched.provenance.is_hit());
        }
    }
    assert!(found > 80, "only {found} of 120 were hits");
}

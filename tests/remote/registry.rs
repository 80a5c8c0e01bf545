//! A registry of images as a store: one of the tests' own, and that of a package.

use jitc::engine::cache::{Asked, Cache, Event, Release, Remote, bundle};
use jitc::engine::config::remote::{Login, RemoteStore};

use crate::cache_support::{Root, artifact, build, never, subject};
use crate::command::{events, jitc, succeeded};
use crate::events::{Told, store};
use crate::fake_registry::{Fake, digest_of};
use crate::server::Mood;
use crate::servers::{Running, program};

/// A bundle of the entries of these subjects, with a note.
fn bundle_of(subjects: std::ops::Range<u32>) -> Vec<u8> {
    let root = Root::new();
    for n in subjects {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    let keys = root.store().keys().expect("keys");
    let cache = root.cache();
    let mut bytes = Vec::new();
    let notes = ["a note".to_owned()];
    bundle::export_noting(|key| cache.whole(key), &keys, &notes, &mut bytes).expect("exported");
    bytes
}

/// Whole releases go there and come back, and single entries are read through.
fn carries(remote: &dyn Fn(&str, &str) -> RemoteStore) {
    let (small, large) = (bundle_of(0..2), bundle_of(0..4));
    let writer = Remote::new(remote("", "role=read-write&timeout=1m"));
    let first = writer.push_bundle("rel", small.clone()).expect("pushed");
    let second = writer.push_bundle("rel", large.clone()).expect("moved");
    assert_ne!(first, second);
    let reader = Remote::new(remote("", "timeout=1m"));
    let pull = |release: Release| reader.pull_bundle(&release).expect("asked");
    // To the byte, notes too.
    assert_eq!(pull(Release::Name("rel".into())), Some(large));
    assert_eq!(pull(Release::Digest(first)), Some(small));
    assert_eq!(pull(Release::Name("none".into())), None);
    assert_eq!(pull(Release::Digest("0a".repeat(32))), None);
    for reference in [":rel".to_owned(), format!("@sha256:{second}")] {
        let (root, told) = (Root::new(), Told::default());
        let store = remote(&reference, "timeout=1m");
        let cache = told.by(Cache::builder().user(root.path()).remote(store));
        for n in 0..4 {
            let hit = cache.get_or_build(&subject(n), never).expect("a hit");
            assert_eq!(hit.artifact.cubin, artifact(n).cubin);
        }
        cache.get_or_build(&subject(9), || build(9)).expect("built");
        let [hits @ .., miss] = &told.answers()[..] else {
            panic!("{:?}", told.all())
        };
        assert!(hits == [Asked::Found; 4] && *miss == Asked::Absent, "{hits:?}");
        assert_eq!(told.count(|e| matches!(e, Event::Promoted { .. })), 4);
    }
    let probed = Remote::new(remote("", "role=write&timeout=1m")).probe();
    assert!(
        probed.get.is_ok() && matches!(probed.put, Some(Ok(_))),
        "{probed:?}"
    );
}

#[test]
fn a_registry_carries_releases_and_single_entries_of_them() {
    let fake = Fake::start();
    carries(&|reference, options| fake.store(reference, options));
    // Four entries, a note and the empty configuration: what a release shares with one before
    // is sent once.
    assert_eq!(fake.count("PUT", "/uploads/"), 6);
    // Each facade asks what its tag leads to once, and of each entry that is there once more.
    fake.held().requests.clear();
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(fake.store(":rel", "")));
    for n in 0..9 {
        cache.lookup(subject(n).key());
    }
    assert_eq!(fake.count("GET", "/manifests/"), 1);
    assert_eq!(fake.count("GET", "/blobs/"), 4);
}

#[test]
fn a_registry_of_a_package_carries_releases_with_and_without_a_password() {
    let words = |port: u16, folder: &std::path::Path| {
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/root}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            folder.display()
        );
        fs_err::write(folder.join("open.yml"), &text).expect("written");
        // `ops:hush-hush`.
        let known = "ops:$2b$05$abcdefghijklmnopqrstuu4uoW5CdSDmY8cLkib7pLDRBlvRVo8Pe\n";
        fs_err::write(folder.join("known"), known).expect("written");
        let auth = format!(
            "auth: {{htpasswd: {{realm: tests, path: {}/known}}}}\n",
            folder.display()
        );
        fs_err::write(folder.join("closed.yml"), text + &auth).expect("written");
        vec!["serve".to_owned(), folder.join("open.yml").display().to_string()]
    };
    let Some(server) = Running::start("docker-registry", words) else {
        return;
    };
    let url = |port: u16, reference: &str, options: &str| {
        store(&format!(
            "oci://127.0.0.1:{port}/team/kernels{reference}?{options}"
        ))
    };
    carries(&|reference, options| url(server.port(), reference, options));
    if let Some(skopeo) = program("skopeo") {
        let of = |tag: &str| format!("docker://127.0.0.1:{}/team/{tag}", server.port());
        let mut copy = std::process::Command::new(skopeo);
        copy.args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        let output = copy
            .args([of("kernels:rel"), of("copies:rel")])
            .output()
            .expect("run");
        succeeded(&output);
        let copies = store(&format!("oci://127.0.0.1:{}/team/copies:rel", server.port()));
        let cache = Cache::builder().remote(copies).build();
        assert!(cache.lookup(subject(1).key()).is_some());
    }
    let closed = |port: u16, folder: &std::path::Path| {
        let words = words(port, folder);
        vec![words[0].clone(), words[1].replace("open.yml", "closed.yml")]
    };
    let server = Running::start("docker-registry", closed).expect("it was there");
    let login = |password| Some(Login::new("ops", password));
    carries(&|reference, options| url(server.port(), reference, options).with_login(login("hush-hush")));
    for login in [None, login("not-it")] {
        let store = url(server.port(), ":rel", "").with_login(login);
        refuses_us(store);
    }
}

/// It says that it is the credentials, and shows none.
fn refuses_us(store: RemoteStore) {
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(store));
    assert!(cache.lookup(subject(1).key()).is_none());
    let words = format!("{:?}", told.all());
    assert_eq!(told.answers(), [Asked::Unreachable], "{words}");
    assert!(words.contains("credentials"), "{words}");
    assert!(!words.contains("not-it") && !words.contains("hush"), "{words}");
}

#[test]
fn a_token_is_got_where_the_registry_says_kept_and_got_anew_when_it_is_no_longer_taken() {
    let fake = Fake::start();
    let challenge = format!(
        "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"the registry\",scope=\"repository:team/kernels:pull\"",
        fake.port
    );
    // `ops:hush-hush`.
    let password = "Basic b3BzOmh1c2gtaHVzaA==".to_owned();
    fake.held().wanted = Some(("Bearer one".into(), challenge.clone()));
    fake.held().maker = (Some(password.clone()), r#"{"token": "one"}"#.into());
    let login = Some(Login::new("ops", "hush-hush"));
    carries(&|reference, options| fake.store(reference, options).with_login(login.clone()));
    let asked = fake.held().requests.clone();
    let asked = asked.iter().find(|(_, path)| path.starts_with("/token?"));
    let (_, path) = asked.expect("asked for a token");
    assert!(path.contains("service=the+registry"), "{path}");
    assert!(
        path.contains("scope=repository%3Ateam%2Fkernels%3Apull"),
        "{path}"
    );
    let reader = Remote::new(fake.store("", "").with_login(login.clone()));
    let pull = || reader.pull_bundle(&Release::Name("rel".into()));
    pull().expect("pulled");
    fake.held().requests.clear();
    pull().expect("pulled again");
    assert_eq!(fake.count("GET", "/token"), 0);
    // Another one counts now.
    fake.held().wanted = Some(("Bearer two".into(), challenge.clone()));
    fake.held().maker = (Some(password), r#"{"access_token": "two"}"#.into());
    pull().expect("with the new one");
    assert!(fake.count("GET", "/token") >= 1);
    // Whoever is nobody gets none.
    refuses_us(fake.store(":rel", ""));
    refuses_us(
        fake.store(":rel", "")
            .with_login(Some(Login::new("ops", "not-it"))),
    );
    // For everybody.
    fake.held().maker.0 = None;
    let open = Cache::builder().remote(fake.store(":rel", "")).build();
    assert!(open.lookup(subject(1).key()).is_some());
    // A token that is refused at once is not asked for without end.
    fake.held().wanted = Some(("Bearer three".into(), challenge));
    fake.held().requests.clear();
    refuses_us(fake.store(":rel", ""));
    assert_eq!(fake.count("GET", "/token"), 1);
}

#[test]
fn who_makes_tokens_may_not_be_endless_or_unsafe_and_says_nothing_that_is_passed_on() {
    let fake = Fake::start();
    Remote::new(fake.store("", "role=write"))
        .push_bundle("rel", bundle_of(0..2))
        .expect("pushed");
    let here = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", fake.port);
    for (challenge, answer) in [
        (here.as_str(), "hush".to_owned()),
        (&here, "{}".to_owned()),
        (&here, format!("{{\"token\": \"{}\"}}", "x".repeat(1 << 20))),
        (&here, "{\"token\": \"a\\nb\"}".to_owned()),
        ("Bearer realm=\"file:///etc/passwd\"", String::new()),
        ("Bearer realm=\"nowhere\"", String::new()),
        ("Bearer", String::new()),
        ("Negotiate", String::new()),
        ("\"", String::new()),
    ] {
        fake.held().wanted = Some(("Bearer one".into(), challenge.to_owned()));
        fake.held().maker = (None, answer);
        let told = Told::default();
        let cache = told.by(Cache::builder().remote(fake.store(":rel", "")));
        assert!(cache.lookup(subject(1).key()).is_none(), "{challenge}");
        let words = format!("{:?}", told.all());
        assert_eq!(told.answers(), [Asked::Unreachable], "{challenge}: {words}");
        assert!(!words.contains("hush"), "{words}");
    }
}

#[test]
fn what_a_hostile_registry_sends_is_a_miss_and_no_release() {
    let fake = Fake::start();
    let push = || {
        Remote::new(fake.store("", "role=write"))
            .push_bundle("rel", bundle_of(0..2))
            .expect("pushed")
    };
    push();
    for (part, mood, answer) in [
        ("/blobs/", Mood::Half, Asked::Refused),
        ("/blobs/", Mood::Flip, Asked::Refused),
        ("/blobs/", Mood::Garbage, Asked::Refused),
        ("/blobs/", Mood::Endless, Asked::Refused),
        ("/blobs/", Mood::Status(404), Asked::Refused),
        ("/blobs/", Mood::Cut, Asked::Unreachable),
        ("/blobs/", Mood::Close, Asked::Unreachable),
        ("/blobs/", Mood::Status(500), Asked::Unreachable),
        ("/blobs/", Mood::Status(403), Asked::Unreachable),
        ("/blobs/", Mood::Redirect, Asked::Unreachable),
        ("/blobs/", Mood::Silent, Asked::Unreachable),
        ("/blobs/", Mood::Trickle, Asked::Refused),
        ("/manifests/", Mood::Half, Asked::Refused),
        ("/manifests/", Mood::Garbage, Asked::Refused),
        ("/manifests/", Mood::Endless, Asked::Refused),
        ("/manifests/", Mood::Cut, Asked::Unreachable),
        ("/manifests/", Mood::Silent, Asked::Unreachable),
        ("/manifests/", Mood::Status(401), Asked::Unreachable),
        ("/manifests/", Mood::Status(503), Asked::Unreachable),
        ("/manifests/", Mood::Status(404), Asked::Absent),
    ] {
        let may_wait = !matches!(mood, Mood::Silent | Mood::Trickle);
        let options = if may_wait { "timeout=1m" } else { "timeout=300ms" };
        fake.held().mood = Some((part, mood));
        let told = Told::default();
        let cache = told.by(Cache::builder().remote(fake.store(":rel", options)));
        assert!(cache.lookup(subject(1).key()).is_none(), "{part} {mood:?}");
        let words = format!("{:?}", told.all());
        let said = told.answers();
        // A byte now and then ends with the deadline, or with the size.
        let is_meant = said == [answer] || mood == Mood::Trickle && said.len() == 1;
        assert!(is_meant, "{part} {mood:?}: {words}");
        assert!(!words.contains("hush"), "{part} {mood:?}: {words}");
        if may_wait {
            let pulled = Remote::new(fake.store("", options)).pull_bundle(&Release::Name("rel".into()));
            let is_none = mood == Mood::Status(404) && part == "/manifests/";
            assert!(
                if is_none {
                    matches!(pulled, Ok(None))
                } else {
                    pulled.is_err()
                },
                "{part} {mood:?}"
            );
        }
    }
    fake.held().mood = None;
    // An honest manifest of something else, and one that lies of what it lists.
    let honest = fake.held().manifests["rel"].clone();
    let honest = String::from_utf8(honest).expect("text");
    let digest = digest_of(honest.as_bytes());
    for (lie, words) in [
        (
            honest.replace("vnd.jitc.release", "vnd.other"),
            "not a release of jitc",
        ),
        (honest.replace("\"size\":", "\"size\":9999999999"), "longer than"),
        ("{}".to_owned(), "not a release of jitc"),
    ] {
        fake.held()
            .manifests
            .insert("rel".into(), lie.clone().into_bytes());
        fake.held().manifests.insert(digest.clone(), lie.into_bytes());
        let remote = Remote::new(fake.store("", ""));
        let pull = |release: &Release| remote.pull_bundle(release).expect_err("refused").to_string();
        let error = pull(&Release::Name("rel".into()));
        assert!(error.contains(words), "{error}");
        let error = pull(&Release::Digest(digest["sha256:".len()..].to_owned()));
        assert!(error.contains("does not fit its digest"), "{error}");
    }
    // The entry of another key under this one, by a manifest that is in order.
    let keys = [0, 1].map(|n| subject(n).key().hex());
    let swapped = honest
        .replace(&keys[0], "?")
        .replace(&keys[1], &keys[0])
        .replace('?', &keys[1]);
    fake.held().manifests.insert("rel".into(), swapped.into_bytes());
    let error = Remote::new(fake.store("", "")).pull_bundle(&Release::Name("rel".into()));
    assert!(error.expect_err("refused").to_string().contains("is bad"));
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(fake.store(":rel", "")));
    assert!(cache.lookup(subject(1).key()).is_none());
    assert_eq!(told.answers(), [Asked::Refused]);
    push();
    assert!(
        Cache::builder()
            .remote(fake.store(":rel", ""))
            .build()
            .lookup(subject(1).key())
            .is_some()
    );
}

#[test]
fn a_blob_that_lies_elsewhere_is_got_there_without_what_says_who_we_are() {
    let (fake, other) = (Fake::start(), Fake::start());
    let login = Some(Login::new("ops", "hush-hush"));
    fake.held().wanted = Some(("Basic b3BzOmh1c2gtaHVzaA==".into(), "Basic realm=\"x\"".into()));
    Remote::new(fake.store("", "role=write").with_login(login.clone()))
        .push_bundle("rel", bundle_of(0..2))
        .expect("pushed");
    let blobs = fake.held().blobs.clone();
    other.held().blobs = blobs;
    fake.held().elsewhere = Some(format!("http://127.0.0.1:{}", other.port));
    let store = fake.store(":rel", "").with_login(login);
    let cache = Cache::builder().remote(store).build();
    assert!(cache.lookup(subject(1).key()).is_some());
    assert_eq!(other.count("GET", "/blobs/"), 1);
    assert!(fake.held().saw_authorization && !other.held().saw_authorization);
}

#[test]
fn the_program_sends_a_registry_whole_releases_and_nothing_else() {
    let fake = Fake::start();
    let (here, there) = (Root::new(), Root::new());
    for n in 0..2 {
        here.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    fs_err::create_dir_all(there.path()).expect("a folder");
    let url = format!("oci://127.0.0.1:{}/team/kernels?role=write", fake.port);
    let run = |root: &Root, words: &[&str]| jitc(&root.path()).args(words).output().expect("run");
    let output = run(&here, &["cache", "push", "--remote", &url]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("whole releases") && error.contains("cache push NAME"),
        "{error}"
    );
    assert_eq!(fake.held().requests, [], "nothing was asked");
    let output = run(&here, &["cache", "push", "rel", "--json", "--remote", &url]);
    succeeded(&output);
    let digest = events(&output)[0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    assert_eq!(digest_of(&fake.held().manifests["rel"]), digest);
    let url = url.replace("?role=write", "");
    for release in ["rel", &digest] {
        succeeded(&run(&there, &["cache", "pull", release, "--remote", &url]));
    }
    assert_eq!(there.store().keys().expect("keys").len(), 2);
    // What is built here is not sent behind anybody's back.
    let told = Told::default();
    let remote = fake.store(":rel", "role=read-write");
    let cache = told.by(Cache::builder().user(there.path()).remote(remote));
    cache.get_or_build(&subject(7), || build(7)).expect("built");
    drop(cache);
    assert_eq!(
        told.count(|e| matches!(e, Event::Sent { .. } | Event::NotSent { .. })),
        0
    );
    assert_eq!(fake.count("PUT", "/manifests/"), 1);
}

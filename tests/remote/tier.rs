//! Reading through a store, and sending to it: on a folder that machines share.

use std::path::{Path, PathBuf};

use jitc::engine::build::key::CacheKey;
use jitc::engine::cache::{Asked, Cache, Event, Fault, Judged, Remote, Why, passed_over, why};
use jitc::engine::config::remote::RemoteStore;
use jitc::engine::sign::{Requirements, SecretKey, Signing, TrustedKeys};

use crate::cache_support::{Root, artifact, build, never, subject};
use crate::command::{jitc, succeeded};
use crate::events::{Told, store};

/// A folder that machines share.
pub(crate) struct Share(tempfile::TempDir);

impl Share {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn url(&self, options: &str) -> String {
        format!("file://{}?{options}", self.0.path().display())
    }

    pub(crate) fn store(&self, options: &str) -> RemoteStore {
        store(&self.url(options))
    }

    pub(crate) fn object(&self, key: &CacheKey) -> PathBuf {
        let hex = key.hex();
        self.0.path().join("v2").join(&hex[..2]).join(hex)
    }

    /// Sends what is built of these subjects.
    pub(crate) fn filled(self, subjects: impl IntoIterator<Item = u32>) -> Self {
        let root = Root::new();
        let cache = Cache::builder()
            .user(root.path())
            .remote(self.store("role=write"))
            .build();
        for n in subjects {
            cache.get_or_build(&subject(n), || build(n)).expect("built");
        }
        drop(cache);
        self
    }
}

#[test]
fn a_hit_of_a_store_is_kept_near_and_the_next_process_does_not_ask() {
    let share = Share::new().filled([1]);
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(share.store("")));
    let hit = cache.get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
    assert!(hit.provenance.is_hit());
    assert_eq!(told.answers(), [Asked::Found]);
    assert_eq!(told.count(|e| matches!(e, Event::Promoted { .. })), 1);
    drop(cache);
    let told = Told::default();
    let cache = told.by(Cache::builder().user(root.path()).remote(share.store("")));
    let hit = cache.get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
    assert_eq!(told.answers(), []);
    assert_eq!(
        told.count(|e| matches!(e, Event::Hit { tier, .. } if tier.as_str() == "user")),
        1
    );
}

#[test]
fn a_miss_asks_each_store_once_and_an_absent_key_is_remembered() {
    let (first, second) = (Share::new(), Share::new());
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder()
        .user(root.path())
        .remote(first.store(""))
        .remote(second.store("")));
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built");
    assert_eq!(told.answers(), [Asked::Absent, Asked::Absent]);
    root.store().expel(subject(1).key()).expect("moved away");
    drop(built);
    assert!(cache.lookup(subject(1).key()).is_none());
    assert!(cache.lookup(subject(1).key()).is_none());
    assert_eq!(told.answers().len(), 2, "remembered");
    assert!(
        !first.object(subject(1).key()).exists(),
        "read only unless it is said"
    );
}

#[test]
fn what_is_built_is_sent_before_the_cache_is_gone_and_equal_bytes_stay() {
    let share = Share::new().filled(0..20);
    for n in 0..20 {
        assert!(share.object(subject(n).key()).exists(), "{n}");
    }
    let object = share.object(subject(3).key());
    let before = fs_err::metadata(&object)
        .expect("there")
        .modified()
        .expect("a time");
    let bytes = fs_err::read(&object).expect("read");
    let share = share.filled(0..20);
    assert_eq!(fs_err::read(&object).expect("read"), bytes);
    let after = fs_err::metadata(&object)
        .expect("there")
        .modified()
        .expect("a time");
    assert_eq!(before, after, "a name that is taken stays");
    let names = fs_err::read_dir(share.0.path().join("v2")).expect("a folder");
    assert!(names.count() > 1);
}

#[test]
fn a_damaged_object_is_a_miss_of_its_own_kind_and_is_replaced_by_who_builds() {
    let share = Share::new().filled([7]);
    let key = *subject(7).key();
    let good = fs_err::read(share.object(&key)).expect("read");
    let mut cases: Vec<Vec<u8>> = (0..good.len())
        .step_by(good.len() / 23)
        .map(|at| good[..at].to_vec())
        .collect();
    cases.extend((0..good.len()).step_by(good.len() / 31).map(|at| {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        flipped
    }));
    cases.push([good.clone(), b"more".to_vec()].concat());
    cases.push(b"<html>Please log in</html>".to_vec());
    cases.push([good.clone(), good.clone()].concat());
    for (n, bytes) in cases.iter().enumerate() {
        fs_err::write(share.object(&key), bytes).expect("written");
        let (root, told) = (Root::new(), Told::default());
        let cache = told.by(Cache::builder()
            .user(root.path())
            .remote(share.store("role=read-write")));
        let built = cache.get_or_build(&subject(7), || build(7)).expect("built");
        assert_eq!(built.provenance.label(), "built", "case {n}");
        assert_eq!(told.answers(), [Asked::Refused; 2], "case {n}");
        let healed = |e: &Event| {
            matches!(
                e,
                Event::Healed {
                    quarantined: false,
                    ..
                }
            )
        };
        assert_eq!(told.count(healed), 1);
        drop(cache);
        assert_eq!(fs_err::read(share.object(&key)).expect("read"), good, "case {n}");
    }
}

#[test]
fn the_entry_of_another_key_and_an_object_without_end_are_refused() {
    let share = Share::new().filled([1, 2]);
    fs_err::copy(share.object(subject(1).key()), share.object(subject(2).key())).expect("copied");
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(share.store("")));
    assert!(cache.lookup(subject(2).key()).is_none());
    // Longer than any object may be, and of no bytes on disk.
    let long = share.object(subject(1).key());
    fs_err::OpenOptions::new()
        .write(true)
        .open(&long)
        .and_then(|file| file.set_len(65 << 20))
        .expect("long");
    assert!(cache.lookup(subject(1).key()).is_none());
    assert_eq!(told.answers(), [Asked::Refused, Asked::Refused]);
    let faults: Vec<Fault> = told
        .all()
        .into_iter()
        .filter_map(|event| match event {
            Event::Healed { fault, .. } => Some(fault),
            _ => None,
        })
        .collect();
    assert_eq!(faults[0], Fault::Key(*subject(1).key()));
    assert_eq!(faults[1], Fault::TooLong("the object".into()));
}

#[test]
fn a_store_that_is_not_there_is_left_alone_after_three_tries() {
    let share = Share::new();
    let gone = share.url("role=read-write").replace('?', "/gone?");
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(store(&gone)));
    for n in 0..10 {
        let built = cache.get_or_build(&subject(n), || build(n)).expect("built");
        assert_eq!(built.provenance.label(), "built");
    }
    assert_eq!(told.answers(), vec![Asked::Unreachable; 10]);
    assert_eq!(told.count(|e| matches!(e, Event::StoreLeftAlone { .. })), 1);
    let store = cache.tier_counters()[1].store.expect("a store's");
    assert_eq!((store.unreachable, store.left_alone), (10, 1));
    let text = cache.prometheus();
    assert!(text.contains("answer=\"unreachable\"} 10"), "{text}");
    drop(cache);
    assert_eq!(told.count(|e| matches!(e, Event::NotSent { .. })), 10);
    assert_eq!(told.count(|e| matches!(e, Event::Sent { .. })), 0);
}

#[test]
fn a_store_without_a_folder_near_it_is_read_as_it_is() {
    let share = Share::new().filled([1]);
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(share.store("")));
    let hit = cache.get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
    assert_eq!(
        told.count(|e| matches!(e, Event::Promoted { .. } | Event::NotPublished { .. })),
        0
    );
}

#[test]
fn a_hit_that_cannot_be_kept_is_a_hit_all_the_same() {
    let share = Share::new().filled([1]);
    let (folder, told) = (tempfile::tempdir().expect("a folder"), Told::default());
    // A file stands where the folder should.
    let taken = folder.path().join("taken");
    fs_err::write(&taken, "").expect("written");
    let cache = told.by(Cache::builder().user(&taken).remote(share.store("")));
    let hit = cache.get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
    let unkept = |e: &Event| matches!(e, Event::NotPublished { .. });
    assert_eq!(told.count(unkept), 1);
}

#[test]
fn once_a_key_is_trusted_a_store_gives_out_and_takes_what_is_signed_alone() {
    let share = Share::new().filled([1, 2]);
    let key = SecretKey::generate("fleet-1").expect("a key");
    let trusted = TrustedKeys::new(vec![key.public()]).expect("keys");
    let signing = || Signing::new(trusted.clone(), Requirements::default());
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder()
        .user(root.path())
        .signing(signing())
        .remote(share.store("role=read-write")));
    assert!(cache.lookup(subject(1).key()).is_none());
    let unsigned = |e: &Event| {
        matches!(
            e,
            Event::Healed {
                fault: Fault::Signature(_),
                ..
            }
        )
    };
    assert_eq!(told.count(unsigned), 1);
    cache.get_or_build(&subject(3), || build(3)).expect("built");
    assert_eq!(
        told.count(|e| matches!(e, Event::NotSent { .. })),
        1,
        "nobody here can sign"
    );
    // Signed where the key is, and sent over what was not.
    let whole = Cache::builder()
        .remote(share.store(""))
        .build()
        .whole(subject(1).key());
    let signed = whole.expect("an entry").sign(&key).expect("signed");
    let remote = Remote::new(share.store("role=write"));
    assert!(remote.send(&signed).expect("sent"));
    assert!(!remote.send(&signed).expect("there"));
    let cache = Cache::builder()
        .user(Root::new().path())
        .signing(signing())
        .remote(share.store(""))
        .build();
    assert_eq!(
        cache.lookup(subject(1).key()).expect("a hit").artifact.cubin,
        artifact(1).cubin
    );
    assert!(cache.lookup(subject(2).key()).is_none());
    // And no longer by what is not.
    let share = share.filled([1]);
    let cache = Cache::builder()
        .signing(signing())
        .remote(share.store(""))
        .build();
    assert!(cache.lookup(subject(1).key()).is_some());
}

#[test]
fn asking_judges_a_store_as_a_load_does_and_keeps_nothing() {
    let share = Share::new().filled([1]);
    fs_err::create_dir_all(share.object(subject(2).key()).parent().expect("a folder")).expect("made");
    fs_err::write(share.object(subject(2).key()), b"garbage").expect("written");
    let root = Root::new();
    let cache = Cache::builder().user(root.path()).remote(share.store("")).build();
    let judged = |n: u32| cache.judge(subject(n).key(), None);
    assert!(matches!(judged(1), Judged::Hit { tier, .. } if tier.as_str().starts_with("file://")));
    assert!(matches!(
        judged(2),
        Judged::Bad {
            fault: Fault::Object(_),
            ..
        }
    ));
    assert!(matches!(judged(3), Judged::Absent));
    assert!(matches!(why(&cache, &subject(1), judged(1)), Why::Hit(_)));
    assert!(!root.path().exists(), "nothing was kept");
    let gone = share.url("").replace('?', "/gone?");
    let cache = Cache::builder().remote(store(&gone)).build();
    let sentences = passed_over(cache.tiers(), subject(1).key());
    assert!(
        sentences[0].contains("file://") && sentences[0].contains("passed over"),
        "{sentences:?}"
    );
}

#[test]
fn code_that_was_refused_here_is_not_loaded_again_and_others_still_may() {
    let share = Share::new().filled([1]);
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(share.store("")));
    drop(cache.get_or_build(&subject(1), never).expect("a hit"));
    cache.reject(subject(1).key(), "invalid image");
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built");
    assert_eq!(told.answers(), [Asked::Found], "asked once");
    assert!(share.object(subject(1).key()).exists());
}

#[test]
fn a_store_is_tried_where_that_is_asked_for_and_nothing_is_left_there() {
    let share = Share::new();
    let probed = Remote::new(share.store("role=read-write")).probe();
    assert!(
        probed.get.is_ok() && matches!(probed.put, Some(Ok(_))),
        "{probed:?}"
    );
    assert_eq!(probed.creates_alone, Some(true));
    assert_eq!(
        fs_err::read_dir(share.0.path().join("v2/probes"))
            .expect("made")
            .count(),
        0
    );
    assert_eq!(Remote::new(share.store("")).probe().put, None);
    let gone = share.url("role=write").replace('?', "/gone?");
    assert!(Remote::new(store(&gone)).probe().get.is_err());
}

#[test]
fn the_program_takes_stores_from_flag_variable_and_file_and_refuses_a_bad_one_in_one_line() {
    let share = Share::new();
    let root = tempfile::tempdir().expect("a folder");
    let doctor = |set: &dyn Fn(&mut assert_cmd::Command)| {
        let mut command = jitc(root.path());
        command.args(["cache", "dir"]);
        set(&mut command);
        command.output().expect("run")
    };
    succeeded(&doctor(&|command| {
        command.env("JITC_REMOTE", share.url("role=read"));
    }));
    succeeded(&doctor(&|command| {
        command.args([
            "--remote",
            &share.url("role=read"),
            "--remote",
            "file:///elsewhere",
        ]);
    }));
    for bad in ["s3://", "https://user:hush@host/x", "gopher://host"] {
        let output = doctor(&|command| {
            command.env("JITC_REMOTE", bad);
        });
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(
            error.lines().filter(|line| line.starts_with("error")).count(),
            1,
            "{error}"
        );
        assert!(
            error.contains("JITC_REMOTE") && !error.contains("hush"),
            "{error}"
        );
    }
}

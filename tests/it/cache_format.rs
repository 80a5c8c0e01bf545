//! One file an entry: bound to its key, the same from any machine, texts kept once.

use std::time::Duration;

use jitc::engine::cache::{Fault, Store};

use crate::cache_support::{Root, artifact, build, never, subject};

type Harm = fn(&Root);
type Change = fn(&mut jitc::engine::cache::Manifest);

#[test]
fn what_a_hit_does_not_read_is_found_by_a_check_and_repaired() {
    let harms: [(Harm, &str); 3] = [
        (
            |root| {
                let path = root.store().entry_path(subject(1).key());
                let mut bytes = fs_err::read(&path).expect("read");
                *bytes.last_mut().expect("a log") ^= 1;
                fs_err::write(path, bytes).expect("write");
            },
            "the log: SHA-256 mismatch",
        ),
        (
            |root| fs_err::remove_dir_all(root.path().join("v2/.texts")).expect("removed"),
            "header jitc/a.cuh is missing",
        ),
        (
            |root| {
                let texts = fs_err::read_dir(root.path().join("v2/.texts")).expect("texts");
                for text in texts {
                    fs_err::write(text.expect("a text").path(), "int x;\nint z;\n").expect("write");
                }
            },
            "header jitc/a.cuh: SHA-256 mismatch",
        ),
    ];
    for (harm, fault) in harms {
        let root = Root::new();
        root.cache()
            .get_or_build(&subject(1), || build(1))
            .expect("built");
        harm(&root);
        let hit = root.cache().get_or_build(&subject(1), never).expect("a hit");
        assert_eq!(hit.artifact.cubin, artifact(1).cubin);
        let checked = root.store().check(true).expect("checked");
        assert_eq!(checked.bad.len(), 1, "{fault}");
        assert_eq!(
            (checked.bad[0].fault.to_string(), checked.bad[0].repaired),
            (fault.to_owned(), true)
        );
        root.cache()
            .get_or_build(&subject(1), || build(1))
            .expect("built");
        assert!(root.store().check(false).expect("checked").is_clean(), "{fault}");
    }
}

#[test]
fn two_builds_of_one_key_give_one_digest_whatever_the_compiler_said_of_its_time() {
    let made = |ms: &str, us| {
        let mut built = artifact(1);
        built.compile_log = format!("ptxas info    : Compile time = {ms} ms\nptxas info: 40 registers\n");
        built.compile_us = us;
        jitc::engine::cache::Whole::new(&subject(1), &built)
    };
    let (one, other) = (made("41.000", 41_000), made("39.5", 40_000));
    assert_eq!(one.entry().digest(), other.entry().digest());
    assert_eq!(one.parts(), other.parts());
    assert_eq!(one.texts().log, "ptxas info: 40 registers\n");
}

#[test]
fn a_manifest_that_differs_from_what_its_key_covers_is_refused_member_by_member() {
    use jitc::engine::cache::{Entry, Manifest, Whole};
    let whole = Whole::new(&subject(1), &artifact(1));
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = whole.entry().manifest().clone();
        change(&mut manifest);
        Entry::verify(subject(1).key(), &manifest.to_bytes(), artifact(1).cubin)
    };
    assert!(refused(|_| {}).is_ok());
    let changes: [(&str, Change); 8] = [
        ("family", |m| m.family = "other".into()),
        ("entries", |m| m.entries.push("more".into())),
        ("constants", |m| drop(m.constants.insert("n".into(), 2.into()))),
        ("source", |m| m.source.sha256 = "0".repeat(64)),
        ("headers", |m| m.headers.clear()),
        ("options", |m| m.options.clear()),
        ("arch", |m| m.arch = "sm_80".parse().expect("an arch")),
        ("toolchain", |m| m.toolchain.nvrtc = "build-id:cc".into()),
    ];
    for (member, change) in changes {
        assert_eq!(refused(change), Err(Fault::Unbound(member)));
    }
    let version = refused(|m| drop(m.preimage.fields.remove(0)));
    assert!(matches!(version, Err(Fault::KeyVersion(_))), "{version:?}");
    let foreign = refused(|m| m.kind = jitc::engine::cache::Kind::Foreign);
    assert_eq!(foreign, Err(Fault::Kind("foreign")));
    let text = String::from_utf8(whole.entry().manifest_bytes().to_vec()).expect("text");
    for at in [
        "{\"format\"",
        "{\"entry\"",
        "{\"tag\"",
        "{\"version\"",
        "{\"length\"",
    ] {
        let more = text.replacen(at, &at.replace('{', "{\"more\":1,"), 1);
        assert_ne!(more, text, "{at}");
        let refused = Entry::verify(subject(1).key(), more.as_bytes(), artifact(1).cubin);
        assert!(matches!(refused, Err(Fault::Unparsable(_))), "{at}: {refused:?}");
    }
}

#[test]
fn a_text_goes_with_the_last_entry_that_names_it_and_not_before_its_grace() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let texts = || fs_err::read_dir(root.path().join("v2/.texts")).expect("texts");
    let none = jitc::engine::cache::Limits {
        max_entries: 0,
        ..jitc::engine::cache::Limits::NONE
    };
    root.store().prune(&none, false).expect("pruned");
    assert_eq!(texts().count(), 1, "its entry may be on its way");
    root.cache()
        .get_or_build(&subject(2), || build(2))
        .expect("built");
    for text in texts() {
        let file = fs_err::File::open(text.expect("a text").path()).expect("open");
        let long_ago = std::time::SystemTime::now() - Duration::from_hours(2);
        file.file().set_modified(long_ago).expect("stamped");
    }
    root.store().prune(&none, false).expect("pruned");
    assert_eq!(texts().count(), 0);
}

#[test]
fn what_an_older_format_left_is_counted_ignored_and_removed_when_asked() {
    let root = Root::new();
    let key = subject(1).key().hex();
    let old = root.path().join("v1").join(&key[..2]).join(&key);
    fs_err::create_dir_all(&old).expect("created");
    fs_err::write(old.join("manifest.json"), "{}").expect("written");
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let store = Store::new(root.path());
    assert_eq!(store.old_entries(), 1);
    assert!(store.check(false).expect("checked").is_clean());
    store.clean().expect("cleaned");
    assert!(old.exists(), "only when it is asked for");
    assert_eq!(store.clean_old().expect("cleaned"), 1);
    assert!(!root.path().join("v1").exists());
    assert_eq!(store.clean_old().expect("nothing to do"), 0);
}

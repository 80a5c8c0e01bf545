//! Bundles, prune, why, receipts.

use std::io::Cursor;
use std::sync::Arc;

use jitc::engine::cache::bundle::{export, import};
use jitc::engine::cache::{Cache, Component, Drift, Limits, Memory, Receipt, Why, why};

use crate::cache_support::{Root, build, never, subject, subject_with};

fn filled(count: u32) -> Root {
    let root = Root::new();
    for n in 0..count {
        let cache = root.cache();
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    root
}

fn bundle_of(root: &Root) -> Vec<u8> {
    let store = root.store();
    let mut bytes = Vec::new();
    export(&store, &store.keys().expect("keys"), &mut bytes).expect("exported");
    bytes
}

#[test]
fn a_bundle_carries_entries_and_is_deterministic() {
    let root = filled(4);
    let bytes = bundle_of(&root);
    let other = Root::new();
    let imported = import(&other.store(), &mut Cursor::new(&bytes)).expect("imported");
    assert_eq!((imported.added, imported.present), (4, 0));
    assert_eq!(bundle_of(&other), bytes);
    let again = import(&other.store(), &mut Cursor::new(&bytes)).expect("imported");
    assert_eq!((again.added, again.present), (0, 4));
    let embedded = Cache::builder().embedded(bytes.leak()).build();
    let hit = embedded.get_or_build(&subject(2), never).expect("hit");
    assert_eq!(hit.provenance.label(), "hit");
}

#[test]
fn a_damaged_bundle_is_refused_with_nothing_changed() {
    let bytes = bundle_of(&filled(2));
    for at in (0..bytes.len()).step_by(37) {
        let other = Root::new();
        let cut = import(&other.store(), &mut Cursor::new(&bytes[..at]));
        assert!(cut.is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let refused = import(&other.store(), &mut Cursor::new(&flipped));
        assert!(refused.is_err(), "flipped at {at}");
        assert!(!other.path().exists());
    }
}

#[test]
fn prune_keeps_to_the_limits_and_spares_what_is_locked() {
    let root = filled(6);
    let store = root.store();
    let claim = store.claim(subject(0).key(), &jitc::engine::cache::Wait::none());
    let limits = Limits {
        max_entries: 2,
        ..Limits::NONE
    };
    let would = store.prune(&limits, true).expect("pruned");
    assert_eq!(would.keys.len(), 4);
    assert_eq!(store.keys().expect("keys").len(), 6);
    let pruned = store.prune(&limits, false).expect("pruned");
    assert_eq!((pruned.keys.len(), pruned.in_use), (4, 1));
    assert!(store.read(subject(0).key()).is_ok());
    drop(claim);
}

#[test]
fn a_publish_keeps_the_folder_within_its_caps() {
    let root = Root::new();
    let cache = Cache::builder().user(root.path()).max_entries(3).build();
    for n in 0..8 {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    assert_eq!(root.store().keys().expect("keys").len(), 3);
    assert_eq!(cache.counters().pruned, 5);
}

#[test]
fn why_names_the_component_and_the_headers_first_differing_line() {
    let root = filled(1);
    let cache = root.cache();
    let asked = |request: &jitc::engine::build::request::CompileRequest| {
        why(&cache, request, cache.judge(request.key(), None))
    };
    let Why::Miss(Some(nearest)) = asked(&subject_with(0, "int x;\nint z;\n", "--fmad=false")) else {
        panic!("a miss with a nearest entry");
    };
    assert_eq!(nearest.differences.len(), 1);
    let difference = &nearest.differences[0];
    assert_eq!(difference.component, Component::Header);
    assert_eq!(difference.line.as_ref().expect("a line").number, 2);
    assert!(matches!(asked(&subject(0)), Why::Hit(_)));
}

#[test]
fn a_receipt_admits_what_it_lists_and_nothing_else() {
    let root = filled(2);
    let cache = root.cache();
    let mut receipt = Receipt::new(vec!["warm".into()]);
    let hit = cache.get_or_build(&subject(0), never).expect("hit");
    receipt.add(&cache, &subject(0), &hit.provenance);
    let receipt = Receipt::from_bytes(&receipt.to_bytes()).expect("read back");
    assert!(receipt.drifts(&cache).is_empty());
    assert!(cache.lookup_listed(subject(0).key(), &receipt).is_ok());
    let unlisted = cache.lookup_listed(subject(1).key(), &receipt);
    assert!(matches!(unlisted, Err(Drift::NotListed(_))));
    root.store().expel(subject(0).key()).expect("expelled");
    assert_eq!(receipt.drifts(&cache), [Drift::Missing(*subject(0).key())]);
}

#[test]
fn a_tier_that_is_no_folder_serves_and_keeps() {
    let memory = Arc::new(Memory::new("remote"));
    let make = || Cache::builder().tier(memory.clone()).build();
    make().get_or_build(&subject(1), || build(1)).expect("built");
    let hit = make().get_or_build(&subject(1), never).expect("hit");
    assert_eq!(hit.provenance.label(), "hit");
}

#[test]
fn what_dead_writers_left_and_old_quarantine_are_collected() {
    let root = filled(1);
    let store = root.store();
    let version = root.path().join("v2");
    let age = |folder: &str, minutes: u64| {
        let path = version.join(folder);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs_err::write(&path, "half").expect("written");
        let then = std::time::SystemTime::now() - std::time::Duration::from_mins(minutes);
        let opened = fs_err::File::open(&path).expect("a file");
        opened.file().set_modified(then).expect("a time");
        opened
    };
    age(".staging/dead.1.1", 2);
    age(".staging/fresh.2.2", 0);
    // Its writer lives, slowly: it holds the lock that a writer holds.
    let writer = age(".staging/slow.3.3", 2);
    let shared = rustix::fs::FlockOperation::LockShared;
    rustix::fs::flock(writer.file(), shared).expect("locked");
    age(&format!(".quarantine/{}.1000.1.1", *subject(1).key()), 0);
    let pruned = store.prune(&Limits::NONE, false).expect("pruned");
    assert_eq!((pruned.staging, pruned.quarantined), (1, 1));
    assert!(version.join(".staging/fresh.2.2").exists());
    assert!(version.join(".staging/slow.3.3").exists());
    assert_eq!(pruned.kept_entries, 1);
}

//! The fuzzer's corpus, replayed: each input comes to the outcome that names it.

use std::io::Cursor;
use std::path::Path;

use jitc::engine::cache::bundle::import;
use jitc::engine::cache::{Parts, Whole};

use crate::cache_support::{Root, artifact, subject};

#[path = "../../fuzz/targets.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8]) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut replayed = 0;
    for input in fs_err::read_dir(folder).expect("corpus") {
        let path = input.expect("an input").path();
        let bytes = fs_err::read(&path).expect("an input");
        let outcome = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(target(&bytes), outcome, "{}", path.display());
        replayed += 1;
    }
    assert!(replayed > 4, "only {replayed} inputs");
}

#[test]
fn the_corpus_of_manifests_comes_to_the_same_outcomes() {
    replay("manifest", targets::manifest);
}

#[test]
fn the_corpus_of_bundles_comes_to_the_same_outcomes() {
    replay("bundle", targets::bundle);
}

#[test]
fn a_hostile_bundle_is_refused_with_nothing_changed() {
    let entry = |n| {
        (
            *subject(n).key().as_bytes(),
            Whole::new(&subject(n), &artifact(n)).parts(),
        )
    };
    let (mut one, mut two) = (entry(1), entry(2));
    if one.0 > two.0 {
        std::mem::swap(&mut one, &mut two);
    }
    let pack = |entries: &[&([u8; 32], Parts)]| {
        let entries: Vec<_> = entries.iter().map(|(key, parts)| (*key, parts)).collect();
        targets::pack(&[&*subject(1).headers()[0].1], &entries)
    };
    // Tag and key come before the two lengths.
    let with_length = |at: usize, length: u64| {
        let mut bundle = pack(&[&one]);
        // The one text comes before the entry.
        let first = bundle.windows(33).position(|w| w[0] == 1 && w[1..] == one.0);
        let at = first.expect("the entry") + 33 + at;
        bundle[at..][..8].copy_from_slice(&length.to_le_bytes());
        targets::mend(&mut bundle);
        bundle
    };
    let swapped = (
        [one.0, two.0].map(|key| (key, two.1.clone())),
        "under another key",
    );
    let cases = [
        (pack(&[&one, &one]), "an entry twice"),
        (pack(&[&two, &one]), "out of order"),
        (pack(&[&swapped.0[0]]), swapped.1),
        (with_length(0, u64::MAX), "of any unpacked length"),
        (with_length(0, 100), "that unpacks to more than it says"),
        (with_length(8, u64::MAX), "of any packed length"),
        (
            with_length(8, (256 << 20) - 1),
            "that ends before its packed length",
        ),
        ([pack(&[&one]), vec![0]].concat(), "with bytes after its end"),
        (pack(&[&one, &two])[..2_000].to_vec(), "that ends early"),
        (targets::pack(&[], &[(one.0, &one.1)]), "without a header's text"),
    ];
    for (bundle, what) in cases {
        let root = Root::new();
        let refused = import(&root.store(), &mut Cursor::new(&bundle));
        assert!(refused.is_err(), "{what}");
        assert!(!root.path().exists(), "{what}");
    }
    let root = Root::new();
    let good = import(&root.store(), &mut Cursor::new(pack(&[&one, &two]))).expect("a good one");
    assert_eq!(good.added, 2);
    // A good entry is not replaced, and a bad one is.
    let store = root.store();
    fs_err::write(store.entry_path(subject(1).key()), b"bad").expect("write");
    let repaired = import(&store, &mut Cursor::new(pack(&[&one, &two]))).expect("a good one");
    assert_eq!((repaired.added, repaired.present), (1, 1));
    assert!(store.check(false).expect("checked").is_clean());
}

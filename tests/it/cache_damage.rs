//! An entry's file, truncated and bit-flipped on disk: found, and rebuilt.

use jitc::engine::cache::{Cache, Provenance, Store};

use crate::cache_support::{artifact, build, fast_folder, never, subject};

/// Harms a good entry; a request, or where it does not read so far a check, has to find it
/// and mend it.
fn is_found_and_rebuilt(root: &std::path::Path, harm: impl Fn(&mut Vec<u8>)) {
    let asked = subject(1);
    let store = Store::new(root);
    let path = store.entry_path(asked.key());
    let good = fs_err::read(&path).expect("a good entry");
    let mut bytes = good.clone();
    harm(&mut bytes);
    let first = good.iter().zip(&bytes).position(|(good, bad)| good != bad);
    assert!(first.is_some() || bytes.len() != good.len(), "no harm done");
    fs_err::write(&path, &bytes).expect("harmed");
    let texts = asked.source().len() + artifact(1).compile_log.len();
    if bytes.len() == good.len() && first >= Some(good.len() - texts) {
        assert_eq!(store.check(true).expect("checked").totals().repaired, 1);
    }
    let cache = Cache::builder().user(root).build();
    let rebuilt = cache.get_or_build(&asked, || build(1)).expect("built");
    assert_eq!(rebuilt.provenance, Provenance::Built);
    assert_eq!(rebuilt.artifact.cubin, artifact(1).cubin);
    assert_eq!(fs_err::read(&path).expect("a good entry").len(), good.len());
}

#[test]
fn every_truncation_and_a_thousand_flipped_bits_on_disk_are_found_and_rebuilt() {
    let folder = fast_folder();
    let root = folder.path().join("cache");
    let cache = Cache::builder().user(&root).build();
    cache.get_or_build(&subject(1), || build(1)).expect("built");
    let path = Store::new(&root).entry_path(subject(1).key());
    let length = fs_err::read(path).expect("a file").len();
    for cut in [
        0,
        1,
        2,
        64,
        159,
        160,
        512,
        4095,
        4096,
        4097,
        length / 2,
        length - 64,
        length - 2,
        length - 1,
    ] {
        is_found_and_rebuilt(&root, |bytes| bytes.truncate(cut));
    }
    for more in [1, 4096] {
        is_found_and_rebuilt(&root, |bytes| bytes.resize(bytes.len() + more, 0));
    }
    let mut random: u64 = 2026;
    for round in 0..1000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = usize::try_from(random >> 32).expect("an index");
        is_found_and_rebuilt(&root, |bytes| {
            // Half of them in what comes before the code.
            let at = place % if round % 2 == 0 { 4096 } else { bytes.len() };
            bytes[at] ^= 1 << (place / bytes.len() % 8);
        });
    }
    let cache = Cache::builder().user(&root).build();
    cache.get_or_build(&subject(1), never).expect("a hit");
}

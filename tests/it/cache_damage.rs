//! Every file of an entry, truncated and bit-flipped on disk: found, and rebuilt.

use jitc::engine::cache::{Cache, Provenance, Store};

use crate::cache_support::{artifact, build, fast_folder, never, subject};

const FILES: [&str; 5] = [
    "manifest.json",
    "kernel.cubin",
    "kernel.cu",
    "headers.json",
    "compile.log",
];

/// Harms a file of a good entry; a request has to find it and mend it.
fn is_found_and_rebuilt(root: &std::path::Path, file: &str, harm: impl Fn(&mut Vec<u8>)) {
    let asked = subject(1);
    let path = Store::new(root).entry_path(asked.key()).join(file);
    let good = fs_err::read(&path).expect("a good entry");
    let mut bytes = good.clone();
    harm(&mut bytes);
    assert_ne!(bytes, good, "{file}: no harm done");
    fs_err::write(&path, bytes).expect("harmed");
    let cache = Cache::builder().user(root).build();
    let rebuilt = cache.get_or_build(&asked, || build(1)).expect("built");
    assert_eq!(rebuilt.provenance, Provenance::Built, "{file}");
    assert_eq!(cache.counters().healed, 1, "{file}");
    assert_eq!(*rebuilt.artifact, artifact(1));
}

#[test]
fn every_truncation_and_a_thousand_flipped_bits_on_disk_are_found_and_rebuilt() {
    let folder = fast_folder();
    let root = folder.path().join("cache");
    let cache = Cache::builder().user(&root).build();
    cache.get_or_build(&subject(1), || build(1)).expect("built");
    for file in FILES {
        let path = Store::new(&root).entry_path(subject(1).key()).join(file);
        let length = fs_err::read(path).expect("a file").len();
        for cut in [
            0,
            1,
            2,
            64,
            512,
            4096,
            length / 2,
            length.saturating_sub(64),
            length - 2,
            length - 1,
        ] {
            if cut < length {
                is_found_and_rebuilt(&root, file, |bytes| bytes.truncate(cut));
            }
        }
        for more in [1, 4096] {
            is_found_and_rebuilt(&root, file, |bytes| bytes.resize(bytes.len() + more, 0));
        }
    }
    let mut random: u64 = 2026;
    for round in 0..1000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = usize::try_from(random >> 32).expect("an index");
        is_found_and_rebuilt(&root, FILES[round % FILES.len()], |bytes| {
            let at = place % bytes.len();
            bytes[at] ^= 1 << (place / bytes.len() % 8);
        });
    }
    let cache = Cache::builder().user(&root).build();
    cache.get_or_build(&subject(1), never).expect("a hit");
}

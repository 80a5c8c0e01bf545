//! What other caches keep here: bytes in, bytes out, by the rules of jitc's own entries.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jitc::engine::build::key::CacheKey;
use jitc::engine::cache::{Cache, CacheBuilder, CacheError, Fault, Load, Store};
use jitc::engine::sign::{Requirements, SecretKey, Signing, TrustedKeys};

/// The one file of an entry below a root.
fn file(root: &Path) -> PathBuf {
    let version = root.join("foreign/v2");
    let shards = fs_err::read_dir(&version)
        .expect("listed")
        .map(|e| e.expect("entry").path());
    let shard = shards.filter(|path| {
        !path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'))
    });
    let mut files = shard.flat_map(|shard| fs_err::read_dir(shard).expect("listed"));
    let file = files.next().expect("a file").expect("entry").path();
    assert!(files.next().is_none(), "one file");
    file
}

fn cache(root: &Path) -> CacheBuilder {
    Cache::builder().user(root)
}

#[test]
fn bytes_come_out_as_they_went_in_by_client_and_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let own = cache(dir.path()).build();
    let triton = own.foreign("triton");
    assert_eq!((triton.get(b"a"), triton.names().expect("none")), (None, vec![]));
    for bytes in [&b"one"[..], b"another, longer", b""] {
        triton.put(b"a", bytes.to_vec()).expect("kept");
        assert_eq!(triton.get(b"a").as_deref(), Some(bytes));
    }
    triton.put(&[0, 255], b"two".to_vec()).expect("kept");
    assert_eq!(own.foreign("cuda.core").get(b"a"), None);
    assert_eq!(triton.names().expect("names"), [vec![0, 255], b"a".to_vec()]);
    assert!(triton.remove(b"a").expect("removed") && !triton.remove(b"a").expect("gone"));
    assert_eq!(triton.get(b"a"), None);
    // Another process, which only reads this folder.
    let read_only = Cache::builder().read_only(dir.path()).build().foreign("triton");
    assert_eq!(read_only.get(&[0, 255]).as_deref(), Some(&b"two"[..]));
    assert!(matches!(
        read_only.put(b"b", vec![1]),
        Err(CacheError::NoWritableTier)
    ));
}

#[test]
fn what_is_foreign_is_never_taken_for_an_entry_nor_an_entry_for_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    cache(dir.path())
        .build()
        .foreign("triton")
        .put(b"a", vec![1; 5000])
        .expect("kept");
    assert_eq!(Store::new(dir.path()).keys().expect("keys"), []);
    let written = file(dir.path());
    let stem = written
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let key: CacheKey = stem.parse().expect("a key");
    // Where an entry would lie.
    let shard = dir.path().join("v2").join(&stem[..2]);
    fs_err::create_dir_all(&shard).expect("folder");
    fs_err::copy(&written, shard.join(written.file_name().expect("a name"))).expect("copied");
    let Load::Bad(fault) = Store::new(dir.path()).load(&key) else {
        panic!("loaded");
    };
    assert_eq!(fault, Fault::Kind("foreign"));
}

#[test]
fn a_flipped_bit_a_cut_and_a_renamed_file_are_misses_and_are_replaced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let triton = cache(dir.path()).build().foreign("triton");
    triton.put(b"a", vec![7; 100]).expect("kept");
    let path = file(dir.path());
    let good = fs_err::read(&path).expect("read");
    for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        fs_err::write(&path, bytes).expect("written");
        assert_eq!(triton.get(b"a"), None, "byte {at}");
    }
    fs_err::write(&path, &good[..good.len() - 1]).expect("written");
    assert_eq!(triton.get(b"a"), None);
    triton.put(b"a", vec![7; 100]).expect("kept again");
    assert_eq!(triton.get(b"a"), Some(vec![7; 100]));
    triton.put(b"b", vec![8]).expect("kept");
    fs_err::write(&path, b"").expect("written");
    let other = cache(dir.path()).build().foreign("triton");
    assert_eq!(other.get(b"b"), Some(vec![8]));
    // The file of one name under another.
    triton.remove(b"a").expect("removed");
    let b = file(dir.path());
    fs_err::create_dir_all(path.parent().expect("a folder")).expect("folder");
    fs_err::rename(&b, &path).expect("renamed");
    assert_eq!(triton.get(b"a"), None);
}

#[test]
fn a_file_that_others_may_write_to_is_not_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let triton = cache(dir.path()).build().foreign("triton");
    triton.put(b"a", vec![7]).expect("kept");
    let open = std::fs::Permissions::from_mode(0o666);
    fs_err::set_permissions(file(dir.path()), open).expect("mode");
    assert_eq!(triton.get(b"a"), None);
    let anybody = cache(dir.path()).trust(true).build().foreign("triton");
    assert_eq!(anybody.get(b"a"), Some(vec![7]));
}

#[test]
fn where_signatures_are_required_only_signed_bytes_go_in_and_come_out() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (ours, theirs) = (
        SecretKey::generate("ours-1").expect("key"),
        SecretKey::generate("theirs-1").expect("key"),
    );
    let signing = || {
        let keys = TrustedKeys::new(vec![ours.public()]).expect("keys");
        let rules: Requirements = "signed".parse().expect("rules");
        Signing::new(keys, rules)
    };
    let strict = cache(dir.path()).signing(signing()).build();
    let refused = strict
        .foreign("triton")
        .put(b"a", vec![7])
        .expect_err("not signed");
    assert!(
        matches!(refused, CacheError::Refused(Fault::Signature(_))),
        "{refused}"
    );
    // By one who signs nothing, or with a key that nobody trusts.
    let lax = cache(dir.path()).build();
    lax.foreign("triton").put(b"a", vec![7]).expect("kept");
    assert_eq!(strict.foreign("triton").get(b"a"), None);
    lax.foreign("triton")
        .signed_by(theirs)
        .put(b"a", vec![7])
        .expect("kept");
    assert_eq!(strict.foreign("triton").get(b"a"), None);
    strict
        .foreign("triton")
        .signed_by(ours)
        .put(b"a", vec![8])
        .expect("signed");
    assert_eq!(strict.foreign("triton").get(b"a"), Some(vec![8]));
}

#[test]
fn a_client_or_a_name_that_cannot_be_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let own = cache(dir.path()).build();
    for client in ["", "Triton", "a/b", "../a", &"a".repeat(65)] {
        let refused = own
            .foreign(client)
            .put(b"a", vec![])
            .expect_err(client)
            .to_string();
        assert!(refused.contains("expected 1 to 64 small letters"), "{refused}");
    }
    let refused = own
        .foreign("a")
        .put(&vec![0; 32769], vec![])
        .expect_err("long")
        .to_string();
    assert!(refused.contains("the name is too long"), "{refused}");
    assert!(!dir.path().join("foreign").exists());
}

#[test]
fn the_folder_stays_within_its_limits() {
    let dir = tempfile::tempdir().expect("tempdir");
    let triton = cache(dir.path()).max_entries(3).build().foreign("triton");
    for name in 0..9_u8 {
        triton.put(&[name], vec![name; 10]).expect("kept");
    }
    assert_eq!(triton.names().expect("names").len(), 3);
}

//! Signatures: once a key is trusted, what somebody else may have written is served signed
//! or not at all, by every path; and what is signed is served whoever wrote it.

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::cache::bundle::{self, BundleError};
use jitc::engine::cache::{
    Cache, CacheError, Fault, Judged, Load, Memory, Outcome, Receipt, ReceiptError, Store, Tier, Whole, Why,
    passed_over, sign_bundle,
};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::sign::{Admission, Place, Requirements, SecretKey, SignatureFault, Signing, TrustedKeys};

use crate::cache_support::{Root, artifact, build, subject};
use crate::policy::{builder, counted, spec};

pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::generate(name).expect("a key")
}

fn trusting(keys: &[&SecretKey], require: &str) -> Signing {
    let keys = TrustedKeys::new(keys.iter().map(|key| key.public()).collect()).expect("keys");
    let rules = if require.is_empty() {
        Requirements::default()
    } else {
        require.parse().expect("rules")
    };
    Signing::new(keys, rules)
}

/// Gives all of a folder this mode.
pub(crate) fn set_modes(folder: &Path, mode: u32) {
    for item in fs_err::read_dir(folder).expect("a folder").flatten() {
        if item.path().is_dir() {
            set_modes(&item.path(), mode);
        } else {
            fs_err::set_permissions(item.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
    }
    fs_err::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Lets everybody write to all of a folder.
pub(crate) fn open_up(folder: &Path) {
    set_modes(folder, 0o777);
}

fn bundle_of(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    let keys = store.keys().expect("keys");
    bundle::export(store, &keys, &mut bytes).expect("exported");
    bytes
}

/// What anybody can make: the key of a request, other machine code, and every digest fits.
fn forged(n: u32) -> Whole {
    let code = Artifact {
        cubin: b"other machine code".to_vec(),
        ..artifact(n)
    };
    Whole::new(&subject(n), &code)
}

fn fault_of<T: std::fmt::Debug>(found: Load<T>) -> SignatureFault {
    match found {
        Load::Bad(Fault::Signature(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signature_by_a_trusted_key_makes_owner_and_mode_irrelevant() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    root.cache()
        .get_or_build(&subject(0), || build(0))
        .expect("built");
    assert!(root.store().sign(subject(0).key(), &ours).expect("signed"));
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    open_up(&root.path());
    let (signed, unsigned) = (*subject(0).key(), *subject(1).key());
    let plain = Cache::builder().read_only(root.path()).build();
    assert!(plain.lookup(&signed).is_none(), "no key is trusted");
    let trusted = trusting(&[&ours], "");
    let cache = Cache::builder().read_only(root.path()).signing(trusted).build();
    assert!(cache.lookup(&signed).is_some());
    assert!(matches!(cache.judge(&signed, None), Judged::Hit { .. }));
    assert!(cache.whole(&signed).is_some(), "its headers are bound by it");
    assert!(cache.lookup(&unsigned).is_none());
    let said = passed_over(cache.tiers(), &unsigned);
    assert!(
        said.len() == 1 && said[0].contains("it is not signed"),
        "{said:?}"
    );
    // Lists and checks see what lookups see.
    let store = cache.tiers()[0].store().expect("a folder");
    assert_eq!(store.keys().expect("keys").len(), 2);
    let records = store.records().expect("records");
    assert_eq!(records.iter().filter(|r| r.summary.is_ok()).count(), 1);
    let checked = store.check(false).expect("checked");
    assert_eq!((checked.good, checked.bad.len()), (1, 1));
    assert_eq!(store.manifest(&unsigned), None);
    assert!(store.standing().is_ok());
}

#[test]
fn what_is_this_users_own_needs_no_signature_unless_it_is_said() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    let cache = |require: &str| {
        let signing = trusting(&[&ours], require);
        Cache::builder().user(root.path()).signing(signing).build()
    };
    let built = cache("").get_or_build(&subject(0), || build(0)).expect("built");
    assert_eq!(built.provenance.label(), "built");
    assert!(cache("").lookup(subject(0).key()).is_some());
    let strict = cache("user=signed");
    assert!(strict.lookup(subject(0).key()).is_none());
    // What would not be loaded is not kept, and nothing that is only unsigned is moved away.
    let again = strict.get_or_build(&subject(0), || build(0)).expect("built");
    assert_eq!(again.provenance.label(), "built_uncached");
    let store = strict.tiers()[0].store().expect("a folder").clone();
    assert_eq!(store.check(true).expect("checked").totals().repaired, 0);
    assert!(cache("").lookup(subject(0).key()).is_some());
    root.store().sign(subject(0).key(), &ours).expect("signed");
    assert!(cache("user=signed").lookup(subject(0).key()).is_some());
}

#[test]
fn a_header_of_what_is_only_unsigned_is_kept_for_it() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    for n in 0..2 {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    let texts = root.path().join("v2/.texts");
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(5);
    for text in fs_err::read_dir(&texts).expect("a folder").flatten() {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(text.path())
            .expect("opened");
        file.file().set_modified(old).expect("aged");
    }
    let strict = root
        .store()
        .with_admission(trusting(&[&ours], "user=signed").of(Place::User));
    let limits = jitc::engine::cache::Limits {
        max_entries: 1,
        ..jitc::engine::cache::Limits::NONE
    };
    assert_eq!(strict.prune(&limits, false).expect("pruned").keys.len(), 1);
    let left = root.store().keys().expect("keys");
    assert!(matches!(root.store().whole(&left[0]), Load::Found(_)));
}

#[test]
fn each_way_not_to_be_signed_is_a_miss_with_its_own_fault() {
    let (ours, other, namesake) = (key("fleet-1"), key("other-1"), key("fleet-1"));
    let find = |entry: Whole| {
        let root = Root::new();
        root.store().publish(&entry).expect("published");
        open_up(&root.path());
        let admission = trusting(&[&ours], "").of(Place::ReadOnly);
        let store = Store::read_only(root.path()).with_admission(admission);
        let key = *subject(0).key();
        assert!(matches!(store.peek(&key), Load::Found(_) | Load::Bad(_)));
        let (loaded, whole) = (store.load(&key), store.whole(&key));
        match loaded {
            Load::Found(_) => assert!(matches!(whole, Load::Found(_))),
            bad => {
                let fault = fault_of(bad);
                assert_eq!(fault_of(whole), fault);
                return Err(fault);
            }
        }
        Ok(())
    };
    let entry = || Whole::new(&subject(0), &artifact(0));
    assert_eq!(find(entry()), Err(SignatureFault::Missing));
    let unknown = entry().sign(&other).expect("signed");
    assert_eq!(find(unknown), Err(SignatureFault::Unknown("other-1".into())));
    let wrong = entry().sign(&namesake).expect("signed");
    assert_eq!(find(wrong), Err(SignatureFault::WrongKey("fleet-1".into())));
    // The honest signature over other code of the same key.
    let honest = entry().sign(&ours).expect("signed");
    let mut parts = forged(0).parts();
    parts.signatures = honest.entry().notes().signatures.clone();
    let headers: std::collections::BTreeMap<String, Arc<str>> =
        forged(0).texts().headers.iter().cloned().collect();
    let bad = Whole::verify(
        subject(0).key(),
        parts,
        |header| Ok(headers[&header.name].clone()),
    );
    assert_eq!(
        find(bad.expect("consistent")),
        Err(SignatureFault::Bad("fleet-1".into()))
    );
    assert_eq!(find(honest.sign(&other).expect("signed twice")), Ok(()));
}

#[test]
fn a_bundle_carries_signatures_and_an_unsigned_one_changes_nothing() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    for n in 0..2 {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    let unsigned = bundle_of(&root.store());
    let mut signed = Vec::new();
    sign_bundle(unsigned.clone(), &ours, &mut signed).expect("signed");
    let mut again = Vec::new();
    sign_bundle(signed.clone(), &ours, &mut again).expect("signed");
    assert_eq!(signed, again, "a key signs one way");
    for n in 0..2 {
        root.store().sign(subject(n).key(), &ours).expect("signed");
    }
    assert_eq!(bundle_of(&root.store()), signed, "signed before or after");
    let admission = trusting(&[&ours], "").of(Place::Bundle);
    let import = |admission: &Admission, bytes: &[u8]| {
        let to = Root::new();
        let imported = bundle::import_signed(&to.store(), admission, &mut Cursor::new(bytes));
        let signatures = to.store().keys().expect("keys").len();
        (imported, signatures)
    };
    let (imported, there) = import(&admission, &unsigned);
    let Err(BundleError::Entry { fault, .. }) = imported else {
        panic!("{imported:?}");
    };
    assert_eq!(fault, Fault::Signature(SignatureFault::Missing));
    assert_eq!(there, 0, "nothing was changed");
    assert_eq!(import(&admission, &signed).0.expect("imported").added, 2);
    assert_eq!(import(&Admission::default(), &unsigned).1, 2);
    // A program's own bundle is judged alike, and so is any tier that is no folder.
    let leaked = |bytes: &[u8]| -> &'static [u8] { Vec::leak(bytes.to_vec()) };
    for (bytes, served) in [(&unsigned, false), (&signed, true)] {
        let cache = Cache::builder()
            .embedded(leaked(bytes))
            .signing(trusting(&[&ours], ""))
            .build();
        assert_eq!(cache.lookup(subject(0).key()).is_some(), served);
        assert_eq!(cache.peek(subject(0).key()).is_some(), served);
        assert_eq!(cache.whole(subject(0).key()).is_some(), served);
        let open = Cache::builder()
            .embedded(leaked(bytes))
            .signing(trusting(&[&ours], "bundle=none"))
            .build();
        assert!(open.lookup(subject(0).key()).is_some());
    }
}

#[test]
fn signatures_of_a_bundle_that_would_not_fit_an_entry_are_refused() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(0), || build(0))
        .expect("built");
    let export = |signatures: Vec<String>| {
        let mut parts = match root.store().whole(subject(0).key()) {
            Load::Found(whole) => whole.parts(),
            other => panic!("{other:?}"),
        };
        parts.signatures = signatures;
        let text: Arc<str> = "int x;\nint y;\n".into();
        let whole = Whole::verify(subject(0).key(), parts, |_| Ok(Arc::clone(&text))).expect("consistent");
        let mut bytes = Vec::new();
        let keys = [*subject(0).key()];
        bundle::export_with(|_| Some(whole.clone()), &keys, &mut bytes).expect("exported");
        bytes
    };
    let import = |bytes: Vec<u8>| bundle::import(&Root::new().store(), &mut Cursor::new(bytes));
    assert!(matches!(
        import(export(vec!["\u{1}".repeat(64 << 10)])),
        Err(BundleError::Damaged(_))
    ));
    // The longest that are taken are read again as they were written.
    let to = Root::new();
    let most = export(vec!["\u{1}".repeat(8 << 10)]);
    bundle::import(&to.store(), &mut Cursor::new(most)).expect("imported");
    assert!(matches!(to.store().load(subject(0).key()), Load::Found(_)));
}

/// One request at the facade, and an entry for it that somebody else forged.
struct Attack {
    dir: tempfile::TempDir,
    ours: SecretKey,
    forged: Whole,
    honest: Whole,
}

impl Attack {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let (jit, _) = counted(builder(&dir.path().join("own"), &[]));
        let (request, _) = jit.describe(&spec(&jit, "8")).expect("described");
        let code = |cubin: &[u8]| Artifact {
            cubin: cubin.to_vec(),
            resources: vec![Resources::default()],
            compile_log: String::new(),
            compile_us: 7,
        };
        Self {
            forged: Whole::new(&request, &code(b"the attacker's machine code")),
            honest: Whole::new(&request, &code(b"machine code")),
            ours: key("fleet-1"),
            dir,
        }
    }

    /// A folder that everybody may write to, with this entry.
    fn folder(&self, name: &str, entry: &Whole) -> std::path::PathBuf {
        let folder = self.dir.path().join(name);
        Store::new(&folder).publish(entry).expect("published");
        open_up(&folder);
        folder
    }

    fn settings<'a>(&self, keys: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut settings = vec![("JITC_MISS", "forbid")];
        if !keys.is_empty() {
            settings.push(("JITC_TRUSTED_KEYS", keys));
        }
        settings.extend(more);
        let _ = self;
        settings
    }

    /// Whether the facade gives out these bytes, by every path alike.
    fn served(jit: &Jit, spec: &KernelSpec, code: &[u8]) -> bool {
        let prepared = jit.prepare(spec);
        let judged = jit.judge(spec).expect("judged").1;
        let why = jit.why(spec).expect("why").1;
        let served = prepared.is_ok();
        assert_eq!(judged.is_hit(), served, "{judged:?}");
        assert_eq!(matches!(why, Why::Hit(_)), served, "{why:?}");
        let key = *jit.describe(spec).expect("described").0.key();
        assert_eq!(jit.cache().whole(&key).is_some(), served);
        if let Ok(prepared) = prepared {
            assert_eq!(prepared.fetched.artifact.cubin, code);
        }
        served
    }
}

#[test]
fn a_forged_entry_bundle_and_receipt_are_served_by_no_path_once_a_key_is_trusted() {
    let attack = Attack::new();
    let trusted = attack.ours.public().to_string();
    let (namesake, stranger) = (key("fleet-1"), key("other-1"));
    let own = |n: &str| attack.dir.path().join(n);
    let code = attack.forged.entry().code().to_vec();
    // Unsigned, signed by a stranger, signed by a namesake of the trusted key.
    let forgeries = [
        ("unsigned", attack.forged.clone()),
        ("stranger", attack.forged.clone().sign(&stranger).expect("signed")),
        ("namesake", attack.forged.clone().sign(&namesake).expect("signed")),
    ];
    for (n, (name, forged)) in forgeries.iter().enumerate() {
        let folder = attack.folder(&format!("folder-{n}"), forged);
        let path = folder.to_str().expect("a path");
        let mut bytes = Vec::new();
        let keys = [forged.entry().manifest().key];
        bundle::export_with(|_| Some(forged.clone()), &keys, &mut bytes).expect("exported");
        let embedded: &'static [u8] = Vec::leak(bytes.clone());
        let memory = || {
            let memory = Memory::new("remote");
            memory.publish(forged).expect("published");
            Arc::new(memory)
        };
        // The attack works where no key is trusted and others' files are.
        let naive = |keys: &str| {
            let settings = attack.settings(keys, &[("JITC_CACHE_RO", path), ("JITC_CACHE_TRUST", "1")]);
            counted(builder(&own("own"), &settings)).0
        };
        for (keys, served) in [("", true), (trusted.as_str(), false)] {
            let what = format!("{name}, keys `{keys}`");
            let jit = naive(keys);
            let spec = spec(&jit, "8");
            assert_eq!(Attack::served(&jit, &spec, &code), served, "read-only, {what}");
            if !served {
                let error = jit.prepare(&spec).expect_err("refused").to_string();
                assert!(error.contains("signature is required of it"), "{error}");
            }
            let settings = attack.settings(keys, &[("JITC_CACHE_TRUST", "1")]);
            let (jit, count) = counted(builder(&folder, &settings));
            assert_eq!(Attack::served(&jit, &spec, &code), served, "user, {what}");
            let settings = attack.settings(keys, &[]);
            let (jit, _) = counted(builder(&own("own"), &settings).embedded(embedded));
            assert_eq!(Attack::served(&jit, &spec, &code), served, "embedded, {what}");
            let (jit, _) = counted(builder(&own("own"), &settings).tier(memory()));
            assert_eq!(Attack::served(&jit, &spec, &code), served, "remote, {what}");
            assert_eq!(count.load(Ordering::Relaxed), 0);
            let store = Store::new(own(&format!("import-{n}-{served}")));
            let admission = jit.signing().of(Place::Bundle);
            let imported = bundle::import_signed(&store, &admission, &mut Cursor::new(&bytes));
            assert_eq!(imported.is_ok(), served, "import, {what}");
            assert_eq!(store.keys().expect("keys").is_empty(), !served);
        }
    }
    // The honest entry, signed, is served from the same places.
    let signed = attack.honest.clone().sign(&attack.ours).expect("signed");
    let folder = attack.folder("honest", &signed);
    let path = folder.to_str().expect("a path");
    let settings = attack.settings(&trusted, &[("JITC_CACHE_RO", path)]);
    let (jit, _) = counted(builder(&own("own"), &settings));
    assert!(Attack::served(
        &jit,
        &spec(&jit, "8"),
        attack.honest.entry().code()
    ));
}

#[test]
fn a_forged_receipt_is_refused_once_a_key_is_trusted_and_a_signed_one_is_used() {
    let attack = Attack::new();
    let trusted = attack.ours.public().to_string();
    // In this user's own folder, where no signature is asked for.
    let root = attack.dir.path().join("root");
    Store::new(&root).publish(&attack.honest).expect("published");
    let (jit, _) = counted(builder(&root, &[]));
    let (request, fetched) = {
        let spec = spec(&jit, "8");
        let request = jit.describe(&spec).expect("described").0;
        let fetched = jit.cache().lookup(request.key()).expect("there");
        (request, fetched)
    };
    let mut receipt = Receipt::new(vec!["all".into()]);
    receipt.add(jit.cache(), &request, &fetched.provenance);
    assert_eq!(receipt.entries[request.key()].outcome, Outcome::Kept);
    let path = attack.dir.path().join("receipt.json");
    let write = |receipt: &Receipt| {
        fs_err::write(&path, receipt.to_bytes()).expect("written");
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    };
    let under = |keys: &str, require: &str| {
        let mut settings = vec![("JITC_REQUIRE_RECEIPT", path.to_str().expect("a path"))];
        for (name, value) in [("JITC_TRUSTED_KEYS", keys), ("JITC_REQUIRE", require)] {
            if !value.is_empty() {
                settings.push((name, value));
            }
        }
        let (jit, _) = counted(builder(&root, &settings));
        let spec = spec(&jit, "8");
        // Judged alike: what a load refuses, a question does.
        let prepared = jit.prepare(&spec).map(drop);
        assert_eq!(jit.judge(&spec).is_ok(), prepared.is_ok());
        match prepared {
            Ok(()) => Ok(()),
            Err(Error::Receipt {
                source: ReceiptError::Signature { fault, .. },
                ..
            }) => Err(*fault),
            Err(other) => panic!("{other}"),
        }
    };
    write(&receipt);
    assert_eq!(under("", ""), Ok(()), "no key is trusted");
    assert_eq!(under(&trusted, ""), Err(SignatureFault::Missing));
    assert_eq!(under(&trusted, "receipt=none"), Ok(()));
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(under(&trusted, "receipt=signed"), Err(SignatureFault::Missing));
    let mut signed = receipt.clone();
    signed.sign(&attack.ours).expect("signed");
    write(&signed);
    assert_eq!(under(&trusted, ""), Ok(()));
    assert_eq!(under(&trusted, "receipt=signed"), Ok(()));
    // Another list under the honest signature.
    let mut other = signed.clone();
    other.asked.push("and more".into());
    write(&other);
    assert_eq!(under(&trusted, ""), Err(SignatureFault::Bad("fleet-1".into())));
    for (by, fault) in [
        (key("other-1"), SignatureFault::Unknown("other-1".into())),
        (key("fleet-1"), SignatureFault::WrongKey("fleet-1".into())),
    ] {
        let mut forged = receipt.clone();
        forged.sign(&by).expect("signed");
        write(&forged);
        assert_eq!(under(&trusted, ""), Err(fault));
    }
}

#[test]
fn what_must_be_signed_without_a_trusted_key_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("tempdir");
    let refused = builder(dir.path(), &[("JITC_REQUIRE", "user=signed")]).build();
    assert!(matches!(refused.map(drop), Err(Error::NoTrustedKey)));
}

#[test]
fn what_a_load_would_not_take_is_not_published() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    let admission = trusting(&[&ours], "user=signed").of(Place::User);
    let store = root.store().with_admission(admission);
    let entry = Whole::new(&subject(0), &artifact(0));
    assert!(matches!(
        store.publish(&entry),
        Err(CacheError::Refused(Fault::Signature(SignatureFault::Missing)))
    ));
    let signed = entry.sign(&ours).expect("signed");
    store.publish(&signed).expect("published");
    assert!(matches!(store.load(subject(0).key()), Load::Found(_)));
}

#[test]
fn nothing_of_anothers_is_signed_by_being_there() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    root.store().publish(&forged(0)).expect("published");
    let file = root.store().entry_path(subject(0).key());
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    for store in [root.store(), root.store().with_trust(true)] {
        assert!(store.sign(subject(0).key(), &ours).is_err());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn what_another_user_owns_is_read_signed_or_not_at_all() {
    let (root, ours) = (Root::new(), key("fleet-1"));
    for n in 0..2 {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    root.store().sign(subject(0).key(), &ours).expect("signed");
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(65_534), None);
    if give(&root.path()).is_err() {
        eprintln!("skipped: only root can give a folder to another user");
        return;
    }
    for n in 0..2 {
        give(&root.store().entry_path(subject(n).key())).expect("given");
    }
    let found = |keys: &[&SecretKey], n: u32| {
        let signing = trusting(keys, "");
        let cache = Cache::builder().user(root.path()).signing(signing).build();
        cache.lookup(subject(n).key()).is_some()
    };
    assert_eq!([found(&[], 0), found(&[], 1)], [false, false]);
    assert_eq!([found(&[&ours], 0), found(&[&ours], 1)], [true, false]);
    assert!(!found(&[&key("fleet-2")], 0), "revoked");
}

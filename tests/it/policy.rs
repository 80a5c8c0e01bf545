//! What the facade may do where no tier has a kernel: miss policy, receipts,
//! traces, listeners. The compiler here counts, and makes nothing.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::cache::{Drift, Event, Receipt};
use jitc::engine::config::{Config, Environment, Flags, MissPolicy};
use jitc::engine::jit::{Error, ErrorKind, Jit, JitBuilder, read_trace};
use jitc::engine::request::spec::KernelSpec;

struct Counting(Arc<AtomicU32>);

impl Compiler for Counting {
    fn compile(&self, rendered: &RenderedSource, _cancel: &Cancel) -> Result<Artifact, CompileError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Artifact {
            cubin: crate::cubin::of_source(rendered),
            resources: vec![Resources::default()],
            compile_log: String::new(),
            compile_us: 7,
        })
    }
}

pub(crate) fn builder(cache: &Path, settings: &[(&str, &str)]) -> JitBuilder {
    let cache = cache.to_str().expect("a path");
    let own = [("JITC_CACHE_DIR", cache)];
    let pairs = settings.iter().chain(&own);
    let env: Environment = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Jit::builder(Config::load(Flags::default(), env).expect("config"))
}

pub(crate) fn counted(builder: JitBuilder) -> (Jit, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let jit = builder.build().expect("a facade");
    (jit.with_compiler(Box::new(Counting(Arc::clone(&count)))), count)
}

pub(crate) fn spec(jit: &Jit, splits: &str) -> KernelSpec {
    let family = jit.registry().get("wo_gemv").expect("family");
    let arch = "sm_90a".parse().expect("an arch");
    KernelSpec::new(family, [("wo_split", splits)], arch).expect("a spec")
}

#[test]
fn with_compiling_forbidden_a_miss_names_the_key_and_the_command_that_would_warm_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("cache");
    let (jit, count) = counted(builder(&root, &[("JITC_MISS", "forbid")]));
    let spec_8 = spec(&jit, "8");
    let error = jit.prepare(&spec_8).expect_err("forbidden");
    assert_eq!(error.kind(), ErrorKind::Policy);
    let key = *jit.describe(&spec_8).expect("described").0.key();
    let Error::Forbidden {
        key: named, command, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*named, key);
    assert_eq!(command, "jitc warm wo_gemv --arch sm_90a --set wo_split=8");
    assert!(error.to_string().contains(&key.hex()) && error.to_string().contains(command));
    assert!(!root.exists(), "forbidding writes nothing");
    // What somebody warmed is a hit all the same.
    let (warming, _) = counted(builder(&root, &[]));
    warming.prepare(&spec_8).expect("built");
    let hit = jit.prepare(&spec_8).expect("a hit");
    assert_eq!(hit.fetched.provenance.label(), "hit");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_programs_policy_holds_over_the_settings() {
    let dir = tempfile::tempdir().expect("tempdir");
    let forbidding = builder(dir.path(), &[("JITC_MISS", "forbid")]).miss(MissPolicy::Warn);
    let (jit, count) = counted(forbidding);
    jit.prepare(&spec(&jit, "8")).expect("built");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn under_a_receipt_nothing_unlisted_is_loaded_and_nothing_is_compiled() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("cache");
    let (warming, _) = counted(builder(&root, &[]));
    let mut receipt = Receipt::new(vec!["warm".into()]);
    let listed = warming.prepare(&spec(&warming, "8")).expect("built");
    receipt.add(warming.cache(), &listed.request, &listed.fetched.provenance);
    warming.prepare(&spec(&warming, "4")).expect("built");
    let path = dir.path().join("receipt.json");
    fs_err::write(&path, receipt.to_bytes()).expect("write");
    let path = path.to_str().expect("a path");

    let (jit, count) = counted(builder(&root, &[("JITC_REQUIRE_RECEIPT", path)]));
    jit.prepare(&spec(&jit, "8")).expect("listed");
    for unlisted in ["4", "2"] {
        let error = jit.prepare(&spec(&jit, unlisted)).expect_err("refused");
        assert!(
            matches!(
                &error,
                Error::Drift {
                    drift: Drift::NotListed(_),
                    ..
                }
            ),
            "{error}"
        );
    }
    // Another good entry under the listed key is not what was listed.
    let store = jitc::engine::cache::Store::new(&root);
    store.expel(listed.request.key()).expect("expelled");
    let missing = jit.prepare(&spec(&jit, "8")).expect_err("missing");
    assert!(
        matches!(
            &missing,
            Error::Drift {
                drift: Drift::Missing(_),
                ..
            }
        ),
        "{missing}"
    );
    let mut other = (*listed.fetched.artifact).clone();
    other.compile_log.push_str("another log");
    let entry = jitc::engine::cache::Whole::new(&listed.request, &other);
    store.publish(&entry).expect("published");
    let error = jit.prepare(&spec(&jit, "8")).expect_err("drifted");
    assert!(error.to_string().contains("manifest of"), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);

    let missing = dir.path().join("none.json");
    let missing = missing.to_str().expect("a path");
    let (jit, count) = counted(builder(&root, &[("JITC_REQUIRE_RECEIPT", missing)]));
    let error = jit.prepare(&spec(&jit, "8")).expect_err("no receipt");
    assert!(matches!(error, Error::Receipt { .. }), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_trace_has_a_line_for_each_compile_and_none_for_a_hit() {
    let dir = tempfile::tempdir().expect("tempdir");
    let trace = dir.path().join("trace.jsonl");
    let settings = [("JITC_TRACE", trace.to_str().expect("a path"))];
    for _ in 0..2 {
        let (jit, _) = counted(builder(dir.path(), &settings));
        jit.prepare(&spec(&jit, "8")).expect("prepared");
        jit.prepare(&spec(&jit, "2")).expect("prepared");
    }
    let lines = read_trace(&trace).expect("read");
    assert_eq!(lines.len(), 2);
    let (jit, _) = counted(builder(dir.path(), &[]));
    for line in lines {
        let texts = line.texts();
        let family = jit.registry().get(&line.family).expect("family");
        let set = texts.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let again = KernelSpec::new(family, set, line.arch).expect("a spec");
        assert_eq!(*jit.describe(&again).expect("described").0.key(), line.key);
    }
}

#[test]
fn a_trace_of_hits_has_each_request_of_a_warmed_server_once_a_process_and_warms_another() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (warming, _) = counted(builder(dir.path(), &[]));
    warming.prepare(&spec(&warming, "8")).expect("built");
    let trace = dir.path().join("trace.jsonl");
    let trace_text = trace.to_str().expect("a path");
    for settings in [
        &[("JITC_TRACE", trace_text), ("JITC_TRACE_HITS", "1")][..],
        &[
            ("JITC_TRACE", trace_text),
            ("JITC_TRACE_HITS", "1"),
            ("JITC_MISS", "forbid"),
        ],
    ] {
        let _ = fs_err::remove_file(&trace);
        let (server, count) = counted(builder(dir.path(), settings));
        for _ in 0..3 {
            server.prepare(&spec(&server, "8")).expect("a hit");
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let lines = read_trace(&trace).expect("read");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let described = server.describe(&spec(&server, "8")).expect("described");
        assert_eq!(lines[0].key, *described.0.key());
        assert_eq!(lines[0].compile_us, 7, "what its compile took");
    }
    // A compile is such a request, and has no second line as a hit.
    let _ = fs_err::remove_file(&trace);
    let settings = [("JITC_TRACE", trace_text), ("JITC_TRACE_HITS", "true")];
    let (server, count) = counted(builder(dir.path(), &settings));
    for _ in 0..2 {
        server.prepare(&spec(&server, "2")).expect("prepared");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    assert_eq!(read_trace(&trace).expect("read").len(), 1);
    let refused = builder(dir.path(), &[("JITC_TRACE_HITS", "some")]).build();
    let error = refused.err().expect("no yes or no").to_string();
    assert!(error.contains("trace_hits") && error.contains("some"), "{error}");
}

#[test]
fn a_listener_is_told_of_every_step_in_order() {
    let dir = tempfile::tempdir().expect("tempdir");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let listening =
        builder(dir.path(), &[("JITC_CACHE_MAX_ENTRIES", "1")]).listener(Arc::new(move |event: &Event| {
            let word = match event {
                Event::Lookup { .. } => "lookup",
                Event::MemoryHit { .. } => "memory hit",
                Event::Hit { .. } => "hit",
                Event::Miss { .. } => "miss",
                Event::Building { .. } => "building",
                Event::Built { compile_us: 7, .. } => "built",
                Event::Published { .. } => "published",
                Event::Healed { .. } => "healed",
                Event::Pruned { .. } => "pruned",
                _ => "other",
            };
            ear.lock().expect("heard").push(word);
        }));
    let (jit, _) = counted(listening);
    let held = jit.prepare(&spec(&jit, "8")).expect("built");
    jit.prepare(&spec(&jit, "8")).expect("in memory");
    jit.cache().reject(held.request.key(), "CUDA_ERROR_INVALID_IMAGE");
    drop(held);
    drop(jit.prepare(&spec(&jit, "8")).expect("rebuilt"));
    drop(jit.prepare(&spec(&jit, "8")).expect("a hit"));
    drop(jit.prepare(&spec(&jit, "2")).expect("built"));
    let built = ["lookup", "miss", "building", "built", "published"];
    let expected = [
        &built[..],
        &["memory hit", "healed"],
        &built,
        &["lookup", "hit"],
        &built,
        &["pruned"],
    ];
    assert_eq!(*heard.lock().expect("heard"), expected.concat());
    let counters = jit.cache().counters();
    assert_eq!((counters.built, counters.hits, counters.memory_hits), (3, 1, 1));
    assert_eq!((counters.healed, counters.pruned), (1, 1));
}

#[test]
fn a_receipt_of_a_familys_former_name_is_refused_with_that_reason() {
    let dir = tempfile::tempdir().expect("tempdir");
    let layer = |jit: &Jit| {
        let family = jit.registry().get("decode_layer").expect("family");
        let arch = "sm_90a".parse().expect("an arch");
        KernelSpec::new(family, [("launch", "separate")], arch).expect("a spec")
    };
    let (jit, _) = counted(builder(dir.path(), &[]));
    let prepared = jit.prepare(&layer(&jit)).expect("prepared");
    let mut receipt = Receipt::new(Vec::new());
    receipt.add(jit.cache(), &prepared.request, &prepared.fetched.provenance);
    // As it was written before: another name, and so another key.
    let text = String::from_utf8(receipt.to_bytes()).expect("text");
    let key = prepared.request.key().hex();
    let old = text
        .replace(&key, &"0".repeat(64))
        .replace("decode_layer", "beta_lite");
    let receipt = Receipt::from_bytes(old.as_bytes()).expect("a receipt");
    let (jit, count) = counted(builder(dir.path(), &[]).require_receipt(receipt));
    let error = jit.prepare(&layer(&jit)).expect_err("refused").to_string();
    let reason = format!(
        "{key} is not in the receipt, which was written when the family was called `beta_lite`: \
         write a new one with `jitc warm --receipt`"
    );
    assert!(error.ends_with(&reason), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_live_facade_is_forbidden_to_compile_and_what_is_compiled_after_that_is_counted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let listening = builder(dir.path(), &[]).listener(Arc::new(move |event: &Event| {
        let word = match event {
            Event::LateCompile { compile_us: 7, .. } => "late",
            Event::Refused { reason, .. } if reason.contains("jitc warm wo_gemv") => "refused",
            _ => return,
        };
        ear.lock().expect("heard").push(word);
    }));
    let (jit, count) = counted(listening);
    assert_eq!(jit.miss(), MissPolicy::Compile);
    jit.prepare(&spec(&jit, "8")).expect("start-up compiles");
    jit.forbid();
    jit.prepare(&spec(&jit, "8")).expect("a hit");
    let error = jit.prepare(&spec(&jit, "4")).expect_err("forbidden");
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    jit.set_miss(MissPolicy::Compile);
    jit.prepare(&spec(&jit, "4")).expect("lifted");
    jit.set_miss(MissPolicy::Warn);
    assert_eq!(jit.miss(), MissPolicy::Warn);
    jit.prepare(&spec(&jit, "2")).expect("warned of");
    assert_eq!(*heard.lock().expect("heard"), ["refused", "late", "late"]);
    let counters = jit.cache().counters();
    assert_eq!((counters.refused, counters.late_compiles), (1, 2));
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[test]
fn what_is_forbidden_while_a_request_looks_is_forbidden_to_it_too() {
    let dir = tempfile::tempdir().expect("tempdir");
    let facade: Arc<Mutex<Option<Arc<Jit>>>> = Arc::default();
    let forbidder = Arc::clone(&facade);
    // Between the look and the compile, as another thread may.
    let listening = builder(dir.path(), &[]).listener(Arc::new(move |event: &Event| {
        if matches!(event, Event::Miss { .. })
            && let Some(jit) = &*forbidder.lock().expect("facade")
        {
            jit.forbid();
        }
    }));
    let (jit, count) = counted(listening);
    let jit = Arc::new(jit);
    *facade.lock().expect("facade") = Some(Arc::clone(&jit));
    let error = jit.prepare(&spec(&jit, "8")).expect_err("forbidden");
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
    assert_eq!(jit.cache().counters().refused, 1);
    facade.lock().expect("facade").take();
}

//! Code of another arch that answers where a request's own is missing: when it does, when
//! it never does, and where it is said. The compiler here counts, and makes nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::cache::{Provenance, Receipt};
use jitc::engine::config::{ArchMatch, Config, Environment, Flags};
use jitc::engine::jit::{ErrorKind, Jit, JitBuilder};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Registry;

/// Counts, and says of every entry point that it takes this much static shared memory.
struct Counting(Arc<AtomicU32>, u32);

impl Compiler for Counting {
    fn compile(&self, rendered: &RenderedSource, _cancel: &Cancel) -> Result<Artifact, CompileError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let named = |entry: &str| Resources {
            entry: entry.to_owned(),
            shared_bytes: self.1,
            ..Resources::default()
        };
        Ok(Artifact {
            cubin: crate::cubin::of_source(rendered),
            resources: ["stream", "wo_gemv"].map(named).to_vec(),
            compile_log: String::new(),
            compile_us: 7,
        })
    }
}

fn builder(cache: &Path, settings: &[(&str, &str)]) -> JitBuilder {
    let cache = cache.to_str().expect("a path");
    let own = [("JITC_CACHE_DIR", cache)];
    let pairs = settings.iter().chain(&own);
    let env: Environment = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Jit::builder(Config::load(Flags::default(), env).expect("config"))
}

fn counted(builder: JitBuilder, shared_bytes: u32) -> (Jit, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let jit = builder.build().expect("a facade");
    let compiler = Counting(Arc::clone(&count), shared_bytes);
    (jit.with_compiler(Box::new(compiler)), count)
}

fn compatible(cache: &Path) -> (Jit, Arc<AtomicU32>) {
    counted(builder(cache, &[("JITC_ARCH_MATCH", "compatible")]), 0)
}

fn spec(jit: &Jit, family: &str, arch: &str) -> KernelSpec {
    let family = jit.registry().get(family).expect("family");
    KernelSpec::new(family, [], arch.parse().expect("an arch")).expect("a spec")
}

/// Prepares a family for these archs, with a compiler that says so much of its code.
fn warm(cache: &Path, family: &str, archs: &[&str], shared_bytes: u32) {
    let (jit, _) = counted(builder(cache, &[]), shared_bytes);
    for arch in archs {
        jit.prepare(&spec(&jit, family, arch)).expect("built");
    }
}

fn arch(text: &str) -> Arch {
    text.parse().expect("an arch")
}

#[test]
fn code_of_the_nearest_older_arch_answers_where_the_own_one_is_missing() {
    let dir = tempfile::tempdir().expect("tempdir");
    warm(dir.path(), "stream", &["sm_80", "sm_86"], 0);
    let (jit, count) = compatible(dir.path());
    let requested = spec(&jit, "stream", "sm_89");
    let prepared = jit.prepare(&requested).expect("a hit");
    let Provenance::Compatible { tier, arch: made_for } = &prepared.fetched.provenance else {
        panic!("{:?}", prepared.fetched.provenance);
    };
    assert_eq!(
        (tier.as_str(), *made_for),
        ("user", arch("sm_86")),
        "the best of both"
    );
    assert_eq!(prepared.request.arch(), arch("sm_86"));
    let own = jit.describe(&spec(&jit, "stream", "sm_86")).expect("described").0;
    assert_eq!(prepared.request.key(), own.key());
    assert_eq!(prepared.stand_in.map(|spec| spec.arch()), Some(arch("sm_86")));
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn an_exact_match_is_the_rule_and_holds_over_a_compatible_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    warm(dir.path(), "stream", &["sm_80"], 0);
    let (exact, count) = counted(builder(dir.path(), &[]), 0);
    let requested = spec(&exact, "stream", "sm_89");
    assert!(exact.stand_in(&requested).expect("looked").is_none());
    let built = exact.prepare(&requested).expect("built");
    assert_eq!(built.fetched.provenance, Provenance::Built);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    let (jit, count) = compatible(dir.path());
    assert!(jit.stand_in(&requested).expect("looked").is_none());
    let hit = jit.prepare(&requested).expect("a hit");
    assert!(matches!(hit.fetched.provenance, Provenance::Hit(_)) && hit.stand_in.is_none());
    assert_eq!(count.load(Ordering::Relaxed), 0);
    // What the program says holds over what the variable says.
    let strict = builder(dir.path(), &[("JITC_ARCH_MATCH", "compatible")]).arch_match(ArchMatch::Exact);
    let (strict, _) = counted(strict, 0);
    let sm_86 = spec(&strict, "stream", "sm_86");
    assert!(strict.stand_in(&sm_86).expect("looked").is_none());
}

#[test]
fn code_that_a_gpu_cannot_run_answers_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    warm(
        dir.path(),
        "stream",
        &["sm_89", "sm_90a", "sm_100a", "sm_120a"],
        0,
    );
    let (jit, _) = compatible(dir.path());
    for requested in ["sm_80", "sm_86", "sm_87", "sm_90", "sm_103a", "sm_121a"] {
        let found = jit.stand_in(&spec(&jit, "stream", requested)).expect("looked");
        assert!(found.is_none(), "{requested}: {found:?}");
    }
    warm(dir.path(), "stream", &["sm_100f", "sm_120f"], 0);
    for (requested, family) in [("sm_103a", "sm_100f"), ("sm_121a", "sm_120f")] {
        let found = jit.stand_in(&spec(&jit, "stream", requested)).expect("looked");
        assert_eq!(found.map(|found| found.spec.arch()), Some(arch(family)));
    }
}

#[test]
fn a_family_whose_bits_depend_on_the_arch_gets_its_own_code_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    warm(dir.path(), "wo_gemv", &["sm_80"], 0);
    let (jit, count) = compatible(dir.path());
    let built = jit.prepare(&spec(&jit, "wo_gemv", "sm_89")).expect("built");
    assert_eq!(built.fetched.provenance, Provenance::Built);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn code_that_takes_more_shared_memory_than_the_gpu_has_answers_nothing() {
    for (bytes, fits) in [(101_376, true), (101_377, false)] {
        let dir = tempfile::tempdir().expect("tempdir");
        warm(dir.path(), "stream", &["sm_80"], bytes);
        let (jit, _) = compatible(dir.path());
        let found = jit.stand_in(&spec(&jit, "stream", "sm_86")).expect("looked");
        assert_eq!(found.is_some(), fits, "{bytes} bytes");
    }
}

#[test]
fn under_a_receipt_only_listed_code_stands_in() {
    let dir = tempfile::tempdir().expect("tempdir");
    warm(dir.path(), "stream", &["sm_80", "sm_86"], 0);
    let (warming, _) = compatible(dir.path());
    // The receipt of a warm for 8.9 names the code that was loaded, which is of sm_86.
    let requested = spec(&warming, "stream", "sm_89");
    let loaded = warming.prepare(&requested).expect("a hit");
    let mut receipt = Receipt::new(vec![]);
    receipt.add(warming.cache(), &loaded.request, &loaded.fetched.provenance);
    assert!(receipt.entries.values().all(|line| line.arch == arch("sm_86")));
    let under = |receipt: Receipt| {
        let builder = builder(dir.path(), &[("JITC_ARCH_MATCH", "compatible")]);
        counted(builder.require_receipt(receipt), 0).0
    };
    let jit = under(receipt);
    let hit = jit.prepare(&requested).expect("a listed hit");
    assert_eq!(hit.request.arch(), arch("sm_86"));
    let error = under(Receipt::new(vec![]))
        .prepare(&requested)
        .expect_err("not listed");
    assert_eq!(error.kind(), ErrorKind::Policy);
}

#[test]
fn every_built_in_family_that_converts_by_arch_says_so() {
    let registry = Registry::load(None).expect("families");
    let dir = tempfile::tempdir().expect("tempdir");
    let (jit, _) = compatible(dir.path());
    let mut by_arch = Vec::new();
    for family in registry.families() {
        let (request, _) = jit
            .describe(&spec(&jit, &family.name, "sm_90a"))
            .expect("described");
        let converts = (request.headers().iter()).any(|(_, text)| text.contains("__CUDA_ARCH__ >= 890"));
        assert!(family.arch_changes_bits || !converts, "{}", family.name);
        by_arch.extend(converts.then(|| family.name.clone()));
    }
    assert!(by_arch.contains(&"wo_gemv".to_owned()), "{by_arch:?}");
}

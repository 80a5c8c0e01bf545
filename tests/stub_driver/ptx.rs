//! PTX, which the driver compiles when it is loaded: what it is given, and that this counts
//! as a compile.

use std::sync::{Arc, Mutex};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::cache::Event;
use jitc::engine::config::{Config, Environment, Flags, MissPolicy};
use jitc::engine::jit::{Error, ErrorKind, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;

use crate::stub::{Stub, under_stub};

const AXPY: &str = "//\n.version 9.0\n.target sm_80\n.address_size 64\n\n.visible .entry axpy(\n\
    \t.param .f32 p0,\n\t.param .u64 p1,\n\t.param .u64 p2,\n\t.param .u64 p3,\n\t.param .u32 p4\n)\n{\n\tret;\n}\n";

/// Makes PTX of whatever it is given.
struct ToPtx;

impl Compiler for ToPtx {
    fn compile(&self, rendered: &RenderedSource, _: &Cancel) -> Result<Artifact, CompileError> {
        assert!(
            rendered
                .options
                .contains(&"--gpu-architecture=compute_80".to_owned())
        );
        Ok(Artifact {
            cubin: AXPY.into(),
            resources: vec![Resources {
                entry: "axpy".into(),
                ..Resources::default()
            }],
            compile_log: String::new(),
            compile_us: 1,
        })
    }
}

fn facade(stub: &Stub, settings: &[(&str, &str)]) -> (Jit, Arc<Mutex<Vec<String>>>) {
    let pairs = settings.iter();
    let env: Environment = pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = Flags {
        cache_dir: Some(stub.folder().join("cache")),
        ..Flags::default()
    };
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let events = Arc::clone(&heard);
    let listener = move |event: &Event| {
        let text = format!("{event:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default().to_owned();
        heard.lock().expect("unlocked").push(name);
    };
    let config = Config::load(flags, env).expect("settings");
    let jit = Jit::builder(config)
        .listener(Arc::new(listener))
        .build()
        .expect("families");
    (jit.with_compiler(Box::new(ToPtx)), events)
}

fn spec(jit: &Jit, arch: &str) -> KernelSpec {
    let family = jit.registry().get("axpy").expect("built in");
    KernelSpec::new(family, [], arch.parse().expect("an arch")).expect("a spec")
}

/// FNV-1a, as the stub works it out.
fn digest(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211);
    format!("{:016x}", text.bytes().fold(14_695_981_039_346_656_037, step))
}

#[test]
fn the_driver_is_given_the_whole_text_and_that_it_compiles_is_told() {
    let name = "ptx::the_driver_is_given_the_whole_text_and_that_it_compiles_is_told";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let (jit, events) = facade(&stub, &[]);
    stub.calls();
    let kernel = jit.load(&spec(&jit, "compute_80"), &context).expect("loaded");
    let load = format!("cuModuleLoadData image {} in 0x1000", digest(AXPY));
    assert_eq!(stub.calls_of("cuModuleLoadData"), [load], "up to a NUL behind it");
    assert_eq!(kernel.entries()[0].block_threads, 256);
    assert_eq!(
        events.lock().expect("unlocked").last().map(String::as_str),
        Some("DriverCompiled")
    );
    let counters = jit.cache().counters();
    assert_eq!((counters.driver_compiles, counters.late_compiles), (1, 0));
    jit.load(&spec(&jit, "compute_80"), &context)
        .expect("loaded already");
    assert_eq!(jit.cache().counters().driver_compiles, 1);
}

#[test]
fn where_compiling_is_forbidden_no_ptx_reaches_the_driver() {
    let Some(stub) = under_stub("ptx::where_compiling_is_forbidden_no_ptx_reaches_the_driver") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let (warming, _) = facade(&stub, &[]);
    warming.prepare(&spec(&warming, "compute_80")).expect("built");
    let (jit, events) = facade(&stub, &[("JITC_MISS", "forbid"), ("JITC_ARCH_MATCH", "ptx")]);
    stub.calls();
    let error = jit
        .load(&spec(&jit, "compute_80"), &context)
        .expect_err("forbidden");
    assert!(matches!(error, Error::DriverCompile { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Policy);
    let line = error.to_string();
    assert!(
        line.contains("axpy defaults for compute_80 is PTX") && !line.contains('\n'),
        "{line}"
    );
    assert_eq!(
        events.lock().expect("unlocked").last().map(String::as_str),
        Some("Refused")
    );
    // Nor does it stand in for machine code that is missing.
    let error = jit.load(&spec(&jit, "sm_90a"), &context).expect_err("forbidden");
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert!(stub.calls_of("cuModuleLoadData").is_empty());
    // Once it is allowed it is late.
    jit.set_miss(MissPolicy::Compile);
    jit.load(&spec(&jit, "compute_80"), &context).expect("loaded");
    let counters = jit.cache().counters();
    assert_eq!((counters.driver_compiles, counters.late_compiles), (1, 1));
}

#[test]
fn ptx_stands_in_for_machine_code_that_is_missing_where_that_was_asked_for() {
    let name = "ptx::ptx_stands_in_for_machine_code_that_is_missing_where_that_was_asked_for";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let (warming, _) = facade(&stub, &[]);
    warming.prepare(&spec(&warming, "compute_80")).expect("built");
    let (jit, _) = facade(&stub, &[("JITC_ARCH_MATCH", "ptx")]);
    let asked = spec(&jit, "sm_90a");
    let prepared = jit.prepare(&asked).expect("found");
    assert_eq!(prepared.fetched.provenance.label(), "compatible");
    let arch = prepared.stand_in.as_ref().map(|other| other.arch().to_string());
    assert_eq!(arch.as_deref(), Some("compute_80"));
    let kernel = jit.load(&asked, &context).expect("loaded");
    assert_eq!(kernel.spec().arch().to_string(), "compute_80");
    assert_eq!(jit.cache().counters().driver_compiles, 1);
    for narrower in ["exact", "compatible"] {
        let (jit, _) = facade(&stub, &[("JITC_ARCH_MATCH", narrower)]);
        assert!(
            jit.stand_in(&spec(&jit, "sm_90a")).expect("judged").is_none(),
            "{narrower}"
        );
    }
}

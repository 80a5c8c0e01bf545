//! What becomes of a cached entry when the driver says no.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jitc::engine::build::artifact::Artifact;
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::cache::{Store, Whole};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, ErrorKind, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::driver_error::DriverError;
use jitc::engine::run::load::LoadError;

use crate::cubin::of_source;
use crate::stub::{under_stub, with_cubin};

struct Counting(Arc<AtomicU32>);

impl Compiler for Counting {
    fn compile(&self, rendered: &RenderedSource, _: &Cancel) -> Result<Artifact, CompileError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(with_cubin(of_source(rendered)))
    }
}

/// A facade over this cache whose compiler counts, and a spec for the stub's GPU.
fn jit(folder: &Path) -> (Jit, KernelSpec, impl Fn() -> u32 + use<>) {
    let flags = Flags {
        cache_dir: Some(folder.to_owned()),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::default()).expect("settings");
    let count = Arc::new(AtomicU32::new(0));
    let jit = Jit::new(config).expect("families");
    let jit = jit.with_compiler(Box::new(Counting(Arc::clone(&count))));
    let family = jit.registry().get("axpy").expect("built in");
    let spec = KernelSpec::new(family, [], "sm_90a".parse().expect("an arch")).expect("a spec");
    (jit, spec, move || count.load(Ordering::Relaxed))
}

fn quarantined(folder: &Path) -> u64 {
    Store::new(folder).tally().expect("tally").totals.quarantined
}

#[test]
fn trouble_that_is_not_the_images_leaves_the_entry_where_it_is() {
    let Some(stub) = under_stub("cache::trouble_that_is_not_the_images_leaves_the_entry_where_it_is") else {
        return;
    };
    let cache = stub.folder().join("cache");
    let (warming, spec, _) = jit(&cache);
    warming.prepare(&spec).expect("built");
    let context = Context::new(0).expect("a GPU");
    for (code, version) in [
        (2, 13_000),
        (36, 13_000),
        (209, 13_000),
        (218, 13_000),
        (222, 13_000),
        (301, 13_000),
        (700, 13_000),
        (719, 13_000),
        (999, 13_000),
        (200, 12_040),
    ] {
        stub.say("cuModuleLoadData", code).say("version", version);
        let (jit, spec, compiled) = jit(&cache);
        let error = jit.load(&spec, &context).expect_err("refused");
        assert!(
            matches!(error, Error::Load(LoadError::Refused { .. })),
            "{code}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Load);
        assert_eq!((compiled(), quarantined(&cache)), (0, 0), "{code}");
        let key = *jit.describe(&spec).expect("described").0.key();
        assert!(jit.cache().peek(&key).is_some(), "{code}: the entry is gone");
        // The same facade loads it once the trouble is over.
        stub.forget("cuModuleLoadData");
        jit.load(&spec, &context).expect("loaded");
        assert_eq!(compiled(), 0, "{code}");
    }
}

#[test]
fn an_image_that_the_driver_calls_invalid_is_moved_away_and_made_anew_once() {
    let Some(stub) =
        under_stub("cache::an_image_that_the_driver_calls_invalid_is_moved_away_and_made_anew_once")
    else {
        return;
    };
    let cache = stub.folder().join("cache");
    jit(&cache).0.prepare(&jit(&cache).1).expect("built");
    let context = Context::new(0).expect("a GPU");
    stub.say("cuModuleLoadData#1", 200);
    let (facade, spec, compiled) = jit(&cache);
    let kernel = facade.load(&spec, &context).expect("the second is good");
    assert_eq!((compiled(), quarantined(&cache)), (1, 1));
    assert_eq!(stub.calls_of("cuModuleLoadData").len(), 2);
    // Asked again, it is the same kernel.
    assert!(Arc::ptr_eq(
        &kernel,
        &facade.load(&spec, &context).expect("loaded")
    ));
    assert!(stub.calls_of("cuModuleLoadData").is_empty());

    stub.say("cuModuleLoadData", 200);
    let (facade, spec, compiled) = jit(&cache);
    let error = facade.load(&spec, &context).expect_err("refused twice");
    let invalid = LoadError::Refused {
        family: "axpy".into(),
        arch: spec.arch(),
        reason: DriverError::InvalidImage,
    };
    assert_eq!(error.to_string(), invalid.to_string());
    assert_eq!(
        (compiled(), stub.calls_of("cuModuleLoadData").len()),
        (1, 2),
        "made anew once"
    );

    // What was only just compiled is not compiled again.
    let empty = stub.folder().join("empty");
    let (facade, spec, compiled) = jit(&empty);
    facade.load(&spec, &context).expect_err("refused");
    assert_eq!((compiled(), quarantined(&empty)), (1, 0));
}

#[test]
fn a_broken_image_in_a_good_entry_is_moved_away_unseen_by_the_driver() {
    let Some(stub) = under_stub("cache::a_broken_image_in_a_good_entry_is_moved_away_unseen_by_the_driver")
    else {
        return;
    };
    let cache = stub.folder().join("cache");
    let (facade, spec, compiled) = jit(&cache);
    let (request, rendered) = facade.describe(&spec).expect("described");
    let mut cubin = of_source(&rendered);
    cubin.truncate(cubin.len() / 2);
    let entry = Whole::new(&request, &with_cubin(cubin));
    Store::new(&cache).publish(&entry).expect("published");
    let context = Context::new(0).expect("a GPU");
    facade.load(&spec, &context).expect("made anew");
    assert_eq!((compiled(), quarantined(&cache)), (1, 1));
    assert_eq!(stub.calls_of("cuModuleLoadData").len(), 1);
}

#[test]
fn a_kernel_is_loaded_once_a_context_and_unloaded_with_its_last_holder() {
    let Some(stub) = under_stub("cache::a_kernel_is_loaded_once_a_context_and_unloaded_with_its_last_holder")
    else {
        return;
    };
    stub.say("count", 2);
    let (facade, spec, compiled) = jit(&stub.folder().join("cache"));
    let contexts = [Context::new(0).expect("a GPU"), Context::new(1).expect("a GPU")];
    let load = |at: usize| facade.load(&spec, &contexts[at]).expect("loaded");
    let kernels = [load(0), load(0), load(1)];
    assert!(Arc::ptr_eq(&kernels[0], &kernels[1]) && !Arc::ptr_eq(&kernels[0], &kernels[2]));
    assert_eq!(kernels[2].context().id(), contexts[1].id());
    assert_eq!((stub.calls_of("cuModuleLoadData").len(), compiled()), (2, 1));
    drop(facade);
    assert!(stub.calls_of("cuModuleUnload").is_empty(), "held");
    drop(kernels);
    let mut unloaded = stub.calls_of("cuModuleUnload");
    unloaded.sort();
    assert_eq!(
        unloaded,
        [
            "cuModuleUnload 0x2000 in 0x1000",
            "cuModuleUnload 0x2001 in 0x1001"
        ]
    );
}

//! What only a GPU can show. Without one every test says why it skips;
//! `JITC_REQUIRE_GPU=1` turns a skip into a failure.

mod facilities;
mod layer;
mod library;
mod own_launches;
mod own_measures;
mod pack;
mod quantize;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use jitc::engine::build::artifact::Artifact;
use jitc::engine::cache::{Cache, Provenance};
use jitc::engine::config::{Config, Environment, FlagConstant, Flags};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::run::device::Context;
use jitc::engine::run::launch::{LaunchError, Order, launch_grid};
use jitc::engine::run::load::LoadError;
use jitc::families::wo_gemv::device_buffers::WoBuffers;
use jitc::families::wo_gemv::reference::WoInputs;
use jitc::families::wo_gemv::reference::WoShape;
use jitc::families::wo_gemv::reference::split_order;
use jitc::measure::compare::compare;

/// The first GPU, or nothing, with the reason said.
#[expect(
    clippy::disallowed_methods,
    reason = "the test's own switch, no setting of jitc's"
)]
fn gpu() -> Option<Context> {
    match Context::new(0) {
        Ok(context) => Some(context),
        Err(reason) => {
            assert!(
                std::env::var_os("JITC_REQUIRE_GPU").is_none_or(|v| v != "1"),
                "JITC_REQUIRE_GPU=1, and there is no GPU: {reason}"
            );
            say(&format!("skipped, no GPU: {reason}"));
            None
        }
    }
}

/// Past the test harness, which shows what a test prints only if it fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The same with constants, and with families of one's own where a folder is named.
fn jit_of(cache: &Path, constants: &[(&str, &str)], templates: Option<&Path>) -> Jit {
    let constant = |(name, value): &(&str, &str)| FlagConstant {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        flag: "--set".into(),
    };
    let flags = Flags {
        cache_dir: Some(cache.to_path_buf()),
        templates: templates.map(Path::to_path_buf),
        constants: constants.iter().map(constant).collect(),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture()).expect("settings");
    Jit::new(config).expect("families")
}

/// A facade with the caller's NVRTC and a cache of its own.
fn jit(cache: &std::path::Path) -> Jit {
    jit_of(cache, &[], None)
}

const SHAPE: WoShape = WoShape {
    hidden: 72,
    k: 192,
    num_kv_heads: 4,
    wo_split: 2,
};

fn spec(jit: &Jit, geometry: &str, arch: Arch) -> KernelSpec {
    let set = [
        ("hidden", "72"),
        ("num_q_heads", "8"),
        ("head_dim", "24"),
        ("num_kv_heads", "4"),
        ("wo_split", "2"),
        ("geometry", geometry),
    ];
    KernelSpec::new(jit.registry().get("wo_gemv").expect("family"), set, arch).expect("legal")
}

fn arch_of(context: &Context) -> Arch {
    context.device().arch()
}

fn assert_right(jit: &Jit, context: &Context, spec: &KernelSpec) {
    let kernel = jit.load(spec, context).expect("loaded");
    let inputs = WoInputs::random(&SHAPE, 3, 0.0123, 7);
    let stream = context.cuda().default_stream();
    let mut problem = WoBuffers::new(&stream, &SHAPE, SHAPE.num_slots(), &inputs).expect("memory");
    let actual = problem.run(&kernel, 3, SHAPE.num_slots()).expect("launched");
    let expected = split_order(&SHAPE, &inputs, true);
    assert!(compare(&expected.partials, &actual.partials).is_exact());
    assert!(compare(&expected.output, &actual.output).is_exact());
}

#[test]
fn both_geometries_give_the_bits_of_the_reference() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    for geometry in ["tiled", "original"] {
        assert_right(&jit, &context, &spec(&jit, geometry, arch_of(&context)));
    }
}

/// Small enough for every tool of compute-sanitizer: slots of whole pieces of 16 weights and of
/// three weights, one scale for all rows and one for each.
#[test]
fn chains_over_fp8_weights_have_the_bits_of_the_reference() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let stream = context.cuda().default_stream();
    let family = jit.registry().get("wo_gemv").expect("family");
    for (head_dim, num_kv_heads, by_row) in [(64, 4, false), (24, 8, true)] {
        let shape = WoShape {
            hidden: 72,
            k: 8 * head_dim,
            num_kv_heads,
            wo_split: 8,
        };
        let inputs = WoInputs::random_fp8(&shape, 3, 0.0123, by_row, 7);
        let mut problem = WoBuffers::new(&stream, &shape, shape.num_slots(), &inputs).expect("memory");
        for mode in ["fma", "mul_add"] {
            let numbers = [("head_dim", head_dim), ("num_kv_heads", num_kv_heads)];
            let numbers = numbers.map(|(name, n)| (name, n.to_string()));
            let set = [
                ("hidden", "72"),
                ("num_q_heads", "8"),
                ("wo_split", "8"),
                ("wo_format", "fp8"),
                ("row_scales", if by_row { "true" } else { "false" }),
                ("tokens_per_pass", "2"),
                ("accumulate", mode),
            ];
            let numbers = numbers.iter().map(|(name, n)| (*name, n.as_str()));
            let spec =
                KernelSpec::new(family, set.into_iter().chain(numbers), arch_of(&context)).expect("legal");
            let kernel = jit.load(&spec, &context).expect("loaded");
            let actual = problem.run(&kernel, 3, shape.num_slots()).expect("launched");
            let expected = split_order(&shape, &inputs, mode == "fma");
            assert!(compare(&expected.partials, &actual.partials).is_exact(), "{mode}");
            assert!(compare(&expected.output, &actual.output).is_exact(), "{mode}");
        }
    }
}

/// Small enough for every tool of compute-sanitizer.
#[test]
fn chains_over_packed_weights_have_the_bits_of_the_reference() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let shape = WoShape { k: 512, ..SHAPE };
    let inputs = WoInputs::random(&shape, 3, 0.0123, 7);
    let packed = inputs.packed(&shape).expect("whole blocks");
    let stream = context.cuda().default_stream();
    let mut problem = WoBuffers::new(&stream, &shape, shape.num_slots(), &packed).expect("memory");
    let family = jit.registry().get("wo_gemv").expect("family");
    for mode in ["fma", "mul_add"] {
        for tile in [&[][..], &[("rows_per_cta", "40"), ("tokens_per_pass", "2")]] {
            let set = [
                ("hidden", "72"),
                ("num_q_heads", "8"),
                ("head_dim", "64"),
                ("num_kv_heads", "4"),
                ("wo_split", "2"),
                ("weight_layout", "packed"),
                ("accumulate", mode),
            ];
            let set = set.iter().chain(tile).copied();
            let spec = KernelSpec::new(family, set, arch_of(&context)).expect("legal");
            let kernel = jit.load(&spec, &context).expect("loaded");
            let actual = problem.run(&kernel, 3, shape.num_slots()).expect("launched");
            let expected = split_order(&shape, &inputs, mode == "fma");
            assert!(compare(&expected.partials, &actual.partials).is_exact(), "{mode}");
            assert!(compare(&expected.output, &actual.output).is_exact(), "{mode}");
        }
    }
}

#[test]
fn a_repeated_request_is_the_same_loaded_kernel_from_any_thread() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let spec = spec(&jit, "tiled", arch_of(&context));
    let first = jit.load(&spec, &context).expect("loaded");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(Arc::ptr_eq(&first, &jit.load(&spec, &context).expect("loaded"))));
        }
    });
    let entry = &first.entries()[0];
    assert!(entry.registers > 0 && entry.blocks_per_sm > 0);
    assert_eq!(entry.capacity, entry.blocks_per_sm * context.device().sm_count);
}

#[test]
fn a_cubin_that_the_driver_rejects_is_built_anew() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let subject = {
        let jit = jit(dir.path());
        let spec = spec(&jit, "tiled", arch_of(&context));
        jit.describe(&spec).expect("rendered").0
    };
    let garbage = Artifact {
        cubin: b"verifies as bytes, and is no ELF".to_vec(),
        resources: Vec::new(),
        compile_log: String::new(),
        compile_us: 0,
    };
    let cache = Cache::builder().user(dir.path().to_path_buf()).build();
    let kept = cache
        .get_or_build(&subject, || Ok::<_, ()>(garbage))
        .expect("kept");
    assert_eq!(kept.provenance, Provenance::Built);
    let jit = jit(dir.path());
    assert_right(&jit, &context, &spec(&jit, "tiled", arch_of(&context)));
    assert_eq!(jit.cache().counters().healed, 1);
}

#[test]
fn a_cooperative_grid_over_the_gpus_capacity_is_refused_before_the_launch() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let kernel = jit
        .load(&spec(&jit, "original", arch_of(&context)), &context)
        .expect("loaded");
    let entry = &kernel.entries()[0];
    let stream = context.cuda().default_stream();
    // SAFETY: refused on the host, so no parameter is read.
    let refused = unsafe {
        launch_grid(
            entry,
            entry.grid(&[entry.capacity]),
            Order::Serial,
            stream.cu_stream(),
            &mut [],
        )
    };
    let error = refused.expect_err("over capacity");
    assert!(matches!(error, LaunchError::OverCapacity { .. }), "{error}");
}

#[test]
fn a_cubin_for_another_gpu_is_refused_with_both_named() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let other: Arch = if context.device().major == 8 {
        "sm_90a"
    } else {
        "sm_80"
    }
    .parse()
    .expect("arch");
    let error = jit
        .load(&spec(&jit, "tiled", other), &context)
        .expect_err("refused");
    assert!(
        matches!(error, Error::Load(LoadError::WrongArch { .. })),
        "{error}"
    );
    assert!(error.to_string().contains(&other.to_string()), "{error}");
}

//! A kernel from a string, loaded and launched.

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::run::device::Context;
use jitc::engine::run::launch::{Order, launch_grid};

use crate::cubin::{Kernel, cubin};
use crate::stub::under_stub;

/// Makes of every source a cubin with one kernel, which C++ named.
struct Naming;

impl Compiler for Naming {
    fn compile(&self, rendered: &RenderedSource, _: &Cancel) -> Result<Artifact, CompileError> {
        let (entry, expression) = &rendered.expressions[0];
        let symbol = format!("_Z{}{expression}", expression.len());
        let kernel = Kernel {
            name: symbol.clone(),
            takes: Vec::new(),
        };
        Ok(Artifact {
            cubin: cubin(
                "sm_90a".parse().expect("arch"),
                130,
                &[kernel],
                rendered.source.as_bytes(),
            ),
            resources: vec![Resources {
                entry: entry.clone(),
                symbol: Some(symbol),
                ..Resources::default()
            }],
            compile_log: String::new(),
            compile_us: 1,
        })
    }
}

#[test]
fn a_kernel_from_a_string_is_loaded_by_its_name_in_the_cubin_and_launched() {
    let name = "source::a_kernel_from_a_string_is_loaded_by_its_name_in_the_cubin_and_launched";
    let Some(stub) = under_stub(name) else { return };
    let flags = Flags {
        cache_dir: Some(stub.folder().join("cache")),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::default()).expect("settings");
    let jit = Jit::new(config)
        .expect("families")
        .with_compiler(Box::new(Naming));
    let context = Context::new(0).expect("a GPU");
    let load = |text: &str| {
        let kernel = jit
            .source(text)
            .expression("fill", "fill")
            .block_of([32, 3, 1])
            .shared_mem_bytes(64);
        kernel.load(&context).expect("loaded")
    };
    let kernel = load("one");
    assert!(std::sync::Arc::ptr_eq(&kernel, &load("one")), "it is loaded once");
    assert!(
        !std::sync::Arc::ptr_eq(&kernel, &load("two")),
        "another text is another kernel"
    );
    stub.calls();
    let entry = kernel.entry("fill").expect("by the name that it was given");
    let stream = std::ptr::without_provenance_mut(0x3abc);
    // SAFETY: no kernel runs, and it takes no parameter.
    unsafe { launch_grid(entry, [7, 2, 1], Order::Serial, stream, &mut []) }.expect("launched");
    let calls = stub.calls().join("\n");
    assert!(
        calls.contains("cuLaunchKernel _Z4fill grid 7,2,1 block 32,3,1 shared 64"),
        "{calls}"
    );
}

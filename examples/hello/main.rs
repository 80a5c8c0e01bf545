//! Compiles the family beside this file, or finds it in the cache, and launches it.

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::tensor::{Dtype, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let templates = Some("examples/hello".into());
    let flags = Flags {
        templates,
        ..Flags::default()
    };
    let jit = Jit::new(Config::load(flags, Environment::capture())?)?;
    let context = Context::new(0)?;
    let family = jit.registry().get("hello")?;
    let spec = KernelSpec::new(family, [("factor", "3.0")], context.device().arch())?;
    let kernel = jit.load(&spec, &context)?;
    let stream = context.cuda().default_stream();
    let (x, y) = (
        stream.clone_htod(&[1.5_f32; 1000])?,
        stream.alloc_zeros::<f32>(1000)?,
    );
    let tensor = |slice| Tensor::all_of::<f32>(&stream, slice, Dtype::F32);
    let bound = kernel
        .bind()
        .size("n", 1000)
        .arg("x", tensor(&x))
        .arg("y", tensor(&y))
        .finish()?;
    // SAFETY: the memory lives to the end of the stream's work, which the copy waits for.
    unsafe { bound.launch(&[1000], stream.cu_stream()) }?;
    assert_eq!(stream.clone_dtoh(&y)?, [4.5; 1000]);
    Ok(())
}

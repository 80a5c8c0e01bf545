//! Launches without waiting for a compile: a general variant runs at once, and the one that
//! was asked for takes over between two launches when it is there, with the same bits.
//!
//!     jitc warm axpy
//!     JITC_MISS=behind cargo run --release --example behind

use std::error::Error;
use std::sync::Arc;

use cudarc::driver::sys::CUstream;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Jit, Standing};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::tensor::{Dtype, Tensor};

const LENGTH: u32 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let jit = Arc::new(Jit::new(Config::load(Flags::default(), Environment::capture())?)?);
    let context = Context::new(0)?;
    let stream = context.cuda().default_stream();
    let zeros = || stream.alloc_zeros::<f32>(LENGTH as usize);
    let (x, y) = (zeros()?, zeros()?);
    let tensors = [&x, &y].map(|slice| Tensor::all_of::<f32>(&stream, slice, Dtype::F32));
    let launches = until_it_took_over(&jit, &context, tensors, stream.cu_stream(), 1_000_000)?;
    stream.synchronize()?;
    assert!(launches > 0, "it is launched at once");
    Ok(())
}

/// Launches until what was asked for is what is launched; says how many launches that took.
pub(crate) fn until_it_took_over(
    jit: &Arc<Jit>,
    context: &Context,
    [x, y]: [Tensor; 2],
    stream: CUstream,
    most: u32,
) -> Result<u32, Box<dyn Error>> {
    let family = jit.registry().get("axpy")?;
    let asked = KernelSpec::new(family, [("num_threads", "64")], context.device().arch())?;
    let handover = jit.load_behind(&asked, context)?;
    let bind = handover.kernel().bind().size("n", LENGTH);
    let mut bound = bind.arg("a", 2.0_f32).arg("x", x).arg("y", y).finish()?;
    for launches in 1..=most {
        // One atomic load: the general variant, and then the one that was asked for.
        let kernel = handover.kernel();
        if !Arc::ptr_eq(kernel, bound.kernel()) {
            bound = bound.over(kernel)?;
        }
        // SAFETY: the memory lives to the end of the stream's work, which the caller waits for.
        unsafe { bound.launch(&[LENGTH], stream) }?;
        match handover.standing() {
            Standing::Failed(why) => return Err(why.into()),
            Standing::Asked if Arc::ptr_eq(kernel, handover.kernel()) => return Ok(launches),
            _ => {}
        }
    }
    Ok(most)
}

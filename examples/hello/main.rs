//! Compiles the family beside this file, or finds it in the cache, and launches it.

use jitc::{Config, Context, Dtype, Jit, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let jit = Jit::new(Config::builder().templates("examples/hello").load()?)?;
    let context = Context::new(0)?;
    let kernel = jit.kernel("hello").set("factor", 3.0).load(&context)?;
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

//! The Rust of README, which a test compares: a kernel from the cache, or compiled once, and
//! launched.
//!
//!     cargo run --example readme

#[rustfmt::skip]
fn main() -> Result<(), Box<dyn std::error::Error>> {
let jit = jitc::Jit::new(jitc::Config::builder().load()?)?;
let context = jitc::Context::new(0)?;
let kernel = jit.kernel("axpy").set("unroll", 4).load(&context)?;   // a hit, or compiled once
let stream = context.cuda().default_stream();
let (x, y) = (stream.clone_htod(&[1.0_f32; 1000])?, stream.clone_htod(&[2.0_f32; 1000])?);
let f32s = |slice| jitc::Tensor::all_of::<f32>(&stream, slice, jitc::Dtype::F32);
let bound = kernel.bind().size("n", 1000).arg("a", 3.0_f32).arg("x", f32s(&x)).arg("y", f32s(&y)).finish()?;
// SAFETY: the memory lives to the end of the stream's work, which the copy waits for.
unsafe { bound.launch(&[1000], stream.cu_stream()) }?;              // names, types, lengths were checked
assert_eq!(stream.clone_dtoh(&y)?, [5.0; 1000]);
Ok(())
}

//! How long from a request to a function that can be launched: without a cache,
//! from its folder, and again in the same process. benches/peers/launchable.py runs
//! it beside `CuPy` and Triton.
//!
//!     launchable FAMILY CACHE_FOLDER [NAME=VALUE..] [--driver]
//!
//! With `--driver` the driver alone is timed, in a process of its own: its loading of the very
//! machine code, and the functions looked up. That is the floor.
//! The context exists before the clock starts, as it does in a serving process.

use std::error::Error;
use std::ffi::CString;
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use cudarc::driver::{DriverError, sys};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;

const REPEATS: u32 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [family, folder, set @ ..] = words.as_slice() else {
        return Err("launchable FAMILY CACHE_FOLDER [NAME=VALUE..]".into());
    };
    let driver_alone = set.iter().any(|word| word == "--driver");
    let set: Vec<_> = set.iter().filter_map(|pair| pair.split_once('=')).collect();
    let context = Context::new(0)?;
    context.bind()?;
    let device = context.device();
    let arch = device.arch();
    let flags = Flags {
        cache_dir: Some(folder.into()),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture())?;

    let opening = Instant::now();
    let jit = Jit::new(config)?;
    let new_us = micros(opening);
    let asking = Instant::now();
    let spec = KernelSpec::new(jit.registry().get(family)?, set.iter().copied(), arch)?;
    if driver_alone {
        let artifact = jit.prepare(&spec)?.fetched.artifact;
        let names: Vec<CString> = (artifact.resources.iter())
            .map(|r| CString::new(r.entry.as_str()))
            .collect::<Result<_, _>>()?;
        let loading = Instant::now();
        load_raw(&artifact.cubin, &names)?;
        let line = serde_json::json!({"device": device.name, "family": family, "driver_us": micros(loading)});
        writeln!(std::io::stdout(), "{line}")?;
        return Ok(());
    }
    let kernel = jit.load(&spec, &context)?;
    black_box(kernel.entries()[0].function());
    let first_us = micros(asking);

    let again = Instant::now();
    for _ in 0..REPEATS {
        black_box(jit.load(&spec, &context)?.entries()[0].function());
    }
    let repeat_ns = again.elapsed().as_secs_f64() * 1e9 / f64::from(REPEATS);
    let anew = Instant::now();
    for _ in 0..1000 {
        let spec = KernelSpec::new(jit.registry().get(family)?, set.iter().copied(), arch)?;
        black_box(jit.load(&spec, &context)?.entries()[0].function());
    }
    let repeat_from_texts_ns = anew.elapsed().as_secs_f64() * 1e6;

    let compile_us = jit.prepare(&spec)?.fetched.artifact.compile_us;
    let counters = jit.cache().counters();
    let line = serde_json::json!({"device": device.name, "family": family, "built": counters.built,
        "hits": counters.hits, "new_us": new_us, "first_us": first_us, "compile_us": compile_us,
        "repeat_ns": repeat_ns, "repeat_from_texts_ns": repeat_from_texts_ns});
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// What the driver does, and nothing else. The module stays until the process ends.
fn load_raw(cubin: &[u8], names: &[CString]) -> Result<(), DriverError> {
    let mut module = std::ptr::null_mut();
    // SAFETY: a context is current, and the image is a whole cubin.
    unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) }.result()?;
    for name in names {
        let mut function = std::ptr::null_mut();
        // SAFETY: the module was loaded just now, and the name ends in zero.
        unsafe { sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr()) }.result()?;
        black_box(function);
    }
    Ok(())
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

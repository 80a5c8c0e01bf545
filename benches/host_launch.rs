//! What a launch of the decode layer costs the host beside the driver's own call
//! with the same kernel, grid and parameter, in turn. Aim: at most 10 % more.
//!
//! No criterion here: the GPU must keep up, so launches come in batches that its
//! queue holds, and it is waited for between them.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{CudaStream, sys};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::launch::{Order, launch_grid};
use jitc::engine::run::packet::Passed;
use jitc::families::decode_layer::reference::{Kv, LayerInputs, LayerShape, Lengths};
use jitc::families::decode_layer::{BoundLayer, FAMILY, Launch, Layer, LayerProblem, LayerWeights, Room};

const BATCHES: usize = 401;
const BATCH: u32 = 64;

const SHAPE: LayerShape = LayerShape {
    hidden: 256,
    intermediate: 320,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 64,
    page_size: 16,
};

fn main() {
    let context = match Context::new(0) {
        Ok(context) => context,
        Err(reason) => {
            println!("skipped, no GPU: {reason}");
            return;
        }
    };
    println!("{}: nanoseconds of the host a call", context.device().name);
    let config = Config::load(Flags::default(), Environment::capture()).expect("settings");
    let jit = Jit::new(config).expect("families");
    for launch in Launch::ALL {
        one(&jit, &context, launch.name());
    }
}

fn one(jit: &Jit, context: &Context, launch: &str) {
    let set = [
        ("launch", launch),
        ("hidden", "256"),
        ("intermediate", "320"),
        ("num_q_heads", "4"),
        ("num_kv_heads", "2"),
        ("head_dim", "64"),
        ("page_size", "16"),
        ("num_ctas", "6"),
    ];
    let arch = context.device().arch();
    let spec = KernelSpec::new(jit.registry().get(FAMILY).expect("family"), set, arch).expect("legal");
    let layer = Layer::new(&spec, jit.load(&spec, context).expect("loaded")).expect("a layer");
    let stream = context.cuda().new_stream().expect("stream");
    let inputs = LayerInputs::random(&SHAPE, &Lengths(vec![17]), Kv::Random, 1);
    let weights = Arc::new(LayerWeights::new(&stream, &inputs).expect("weights"));
    let room = Room::of(layer.dims(), &inputs);
    let mut problem = LayerProblem::new(&stream, layer.dims(), room, &weights, false).expect("memory");
    problem.put(&inputs).expect("put");
    let bound = problem.bind(&layer).expect("bound");
    stream.synchronize().expect("ready");

    let parameter = bound.parameter(1).expect("room");
    let ways: [(&str, &dyn Fn()); 4] = [
        ("driver, cuLaunchKernel", &|| {
            raw(&bound, &parameter, &stream, Driver::Plain);
        }),
        ("driver, cuLaunchKernelEx", &|| {
            raw(&bound, &parameter, &stream, Driver::Extended);
        }),
        ("jitc, launch_grid", &|| grid(&bound, &stream)),
        ("jitc, BoundLayer::launch", &|| {
            // SAFETY: bound to this problem, whose context was made current.
            unsafe { problem.launch(black_box(&bound), 1) }.expect("launched");
        }),
    ];
    let mut samples = vec![Vec::new(); ways.len()];
    for batch in 0..BATCHES {
        for at in 0..ways.len() {
            // Whoever comes first after a wait pays for it: take turns.
            let at = (at + batch) % ways.len();
            let started = Instant::now();
            for _ in 0..BATCH {
                ways[at].1();
            }
            samples[at].push(started.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
            stream.synchronize().expect("done");
        }
    }
    let quantiles: Vec<[f64; 3]> = samples
        .iter_mut()
        .map(|all| {
            all.sort_by(f64::total_cmp);
            [all.len() / 4, all.len() / 2, all.len() * 3 / 4].map(|at| all[at])
        })
        .collect();
    let driver = quantiles[0][1].min(quantiles[1][1]);
    for ((name, _), [low, median, high]) in ways.iter().zip(&quantiles) {
        println!(
            "{launch:<11} {name:<26} median {median:7.0}  quartiles {low:7.0} {high:7.0}  {:+6.1} %",
            (*median / driver - 1.0) * 100.0
        );
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Plain,
    Extended,
}

/// The driver's calls and nothing else: handles, grids and parameters as they are.
fn raw(bound: &BoundLayer, parameter: &Passed<'_>, stream: &CudaStream, which: Driver) {
    // The driver only reads it.
    let value: *mut c_void = parameter.words().as_ptr().cast_mut().cast();
    let mut pointers = [value];
    for entry in bound.kernel().entries() {
        let [x, y, z] = entry.grid(&[1]);
        let result = if which == Driver::Plain && entry.cooperative {
            // SAFETY: the function takes this one parameter, and its grid is resident.
            unsafe {
                sys::cuLaunchCooperativeKernel(
                    entry.function(),
                    x,
                    y,
                    z,
                    entry.block_threads,
                    1,
                    1,
                    entry.shared_mem_bytes,
                    stream.cu_stream(),
                    pointers.as_mut_ptr(),
                )
            }
        } else if which == Driver::Plain {
            // SAFETY: as above.
            unsafe {
                sys::cuLaunchKernel(
                    entry.function(),
                    x,
                    y,
                    z,
                    entry.block_threads,
                    1,
                    1,
                    entry.shared_mem_bytes,
                    stream.cu_stream(),
                    pointers.as_mut_ptr(),
                    null_mut(),
                )
            }
        } else {
            // SAFETY: plain data, for which zeros are a value.
            let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
            attribute.id = sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
            attribute.value.cooperative = i32::from(entry.cooperative);
            let config = sys::CUlaunchConfig {
                gridDimX: x,
                gridDimY: y,
                gridDimZ: z,
                blockDimX: entry.block_threads,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: entry.shared_mem_bytes,
                hStream: stream.cu_stream(),
                attrs: &raw mut attribute,
                numAttrs: u32::from(entry.cooperative),
            };
            // SAFETY: as above, and all outlives the call.
            unsafe {
                sys::cuLaunchKernelEx(
                    &raw const config,
                    entry.function(),
                    pointers.as_mut_ptr(),
                    null_mut(),
                )
            }
        };
        result.result().expect("launched");
    }
}

fn grid(bound: &BoundLayer, stream: &CudaStream) {
    for entry in bound.kernel().entries() {
        let mut parameter = bound.parameter(1).expect("room");
        let launched = parameter.pointers(|pointers| {
            // SAFETY: as in `raw`.
            unsafe {
                launch_grid(
                    entry,
                    entry.grid(&[1]),
                    Order::Serial,
                    stream.cu_stream(),
                    pointers,
                )
            }
        });
        launched.expect("launched");
    }
}

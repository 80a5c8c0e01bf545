//! `jitc verify`: runs the `W_O` kernels on a GPU and holds them to the reference,
//! bit for bit.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgMatches};
use cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use serde_json::json;

use super::output;
use crate::artifact::Artifact;
use crate::device;
use crate::jit::{Error, Jit};
use crate::reference::{Comparison, WoInputs, WoOutput, WoShape, compare, split_order};
use crate::spec::KernelSpec;
use crate::target::Arch;
use crate::template::Registry;

/// hidden, query heads, head dim: the model's shape, and small odd ones that
/// neither tiles nor scale groups divide.
const SHAPES: [(usize, usize, usize); 3] = [(5120, 24, 256), (72, 8, 24), (130, 16, 40)];
const GLOBAL_SCALES: [f32; 3] = [1.0, 0.0123, -3.7e-4];

pub(super) fn command(_: &Registry) -> clap::Command {
    clap::Command::new("verify")
        .about("Run the W_O kernels on a GPU and hold them to the reference, bit for bit")
        .arg(
            Arg::new("family")
                .value_parser(["wo_gemv"])
                .default_value("wo_gemv"),
        )
}

pub(super) fn run(jit: &Jit, _: &ArgMatches, json: bool) -> Result<ExitCode, Error> {
    let devices = match device::list() {
        Ok(devices) if !devices.is_empty() => devices,
        Ok(_) => return Ok(no_gpu("the driver shows none")),
        Err(error) => return Ok(no_gpu(&error.to_string())),
    };
    let stream = match CudaContext::new(0) {
        Ok(context) => context.default_stream(),
        Err(error) => return Ok(no_gpu(&format!("{error:?}"))),
    };
    let arch = Arch::of_device(devices[0].major, devices[0].minor);
    let family = jit.registry().get("wo_gemv")?;
    let (mut cases, mut wrong, mut seed) = (0, 0, 4242);
    for (hidden, q_heads, head_dim) in SHAPES {
        for kv_heads in [1, 2, 4, 8] {
            for wo_split in [1, 2, 4, 8] {
                let shape = WoShape {
                    hidden,
                    k: q_heads * head_dim,
                    num_kv_heads: kv_heads,
                    wo_split,
                };
                for (i, global_scale) in GLOBAL_SCALES.into_iter().enumerate() {
                    seed += 1;
                    let nat = 1 + (i + wo_split + kv_heads) % 4;
                    let inputs = WoInputs::random(&shape, nat, global_scale, seed);
                    for mode in ["fma", "mul_add"] {
                        let expected = split_order(&shape, &inputs, mode == "fma");
                        for geometry in ["tiled", "original"] {
                            let numbers =
                                [hidden, q_heads, head_dim, kv_heads, wo_split].map(|n| n.to_string());
                            let set = [
                                ("hidden", numbers[0].as_str()),
                                ("num_q_heads", &numbers[1]),
                                ("head_dim", &numbers[2]),
                                ("num_kv_heads", &numbers[3]),
                                ("wo_split", &numbers[4]),
                                ("accumulate", mode),
                                ("geometry", geometry),
                            ];
                            let spec = KernelSpec::new(family, set, arch)?;
                            let artifact = jit.prepare(&spec)?.fetched.artifact;
                            let actual = match launch(&stream, &spec, &artifact, &shape, &inputs) {
                                Ok(actual) => actual,
                                Err(error) => {
                                    output::note(format!("{}: {error:?}", spec.variant()));
                                    return Ok(ExitCode::from(2));
                                }
                            };
                            let partials = compare(&expected.partials, &actual.partials);
                            let sums = compare(&expected.output, &actual.output);
                            cases += 1;
                            wrong += u32::from(!partials.is_exact() || !sums.is_exact());
                            report(
                                &spec,
                                nat,
                                global_scale,
                                &[("partials", partials), ("output", sums)],
                                json,
                            );
                        }
                    }
                }
            }
        }
    }
    if json {
        output::json(&json!({"event": "summary", "cases": cases, "wrong": wrong, "device": devices[0].name}));
    } else {
        output::line(format!(
            "{}: {cases} cases, {wrong} with a differing bit",
            devices[0].name
        ));
    }
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

fn no_gpu(reason: &str) -> ExitCode {
    output::note(format!(
        "error: verifying takes a GPU, and there is none here: {reason}"
    ));
    ExitCode::from(2)
}

fn report(spec: &KernelSpec, nat: usize, global_scale: f32, parts: &[(&str, Comparison)], json: bool) {
    for (what, comparison) in parts {
        if json {
            output::json(&json!({"event": "case", "variant": spec.variant(), "nat": nat,
                "global_scale": global_scale, "what": what, "max_abs": comparison.max_abs,
                "mismatches": comparison.mismatches, "elements": comparison.elements}));
        }
        if let Some(first) = comparison.first_mismatch {
            output::note(format!(
                "{} nat={nat} global_scale={global_scale:?}: {what}[{}] is {:#010x}, expected {:#010x}; {} of {} differ",
                spec.variant(),
                first.index,
                first.actual_bits,
                first.expected_bits,
                comparison.mismatches,
                comparison.elements
            ));
        }
    }
}

/// One launch, with outputs poisoned by NaN before it.
fn launch(
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    artifact: &Artifact,
    shape: &WoShape,
    inputs: &WoInputs,
) -> Result<WoOutput, DriverError> {
    let entry = &spec.family.entries[0];
    let module = stream
        .context()
        .load_module(Ptx::from_binary(artifact.cubin.clone()))?;
    let function = module.load_function(&entry.name)?;
    let nat = u32::try_from(inputs.nat).unwrap_or(u32::MAX);
    let size = |size| spec.size(size).unwrap_or(nat);
    let shared_mem_bytes = size(&entry.shared_mem_bytes);
    function.set_attribute(
        Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        i32::try_from(shared_mem_bytes).unwrap_or(i32::MAX),
    )?;
    let attn_bits: Vec<u16> = inputs.attn.iter().map(|x| x.to_bits()).collect();
    let attn = stream.clone_htod(&attn_bits)?;
    let weight = stream.clone_htod(&inputs.weight)?;
    let scales = stream.clone_htod(&inputs.scales)?;
    let global_scale = stream.clone_htod(&[inputs.global_scale])?;
    let mut partials = stream.clone_htod(&vec![f32::NAN; inputs.nat * shape.num_slots() * shape.hidden])?;
    let mut sums = stream.clone_htod(&vec![f32::NAN; inputs.nat * shape.hidden])?;
    let mut counters = stream.alloc_zeros::<u32>(64 * inputs.nat)?;
    let region_timing = 0_u64;
    let config = LaunchConfig {
        grid_dim: (size(&entry.grid[0]), size(&entry.grid[1]), size(&entry.grid[2])),
        block_dim: (size(&entry.block), 1, 1),
        shared_mem_bytes,
    };
    let mut launch = stream.launch_builder(&function);
    launch.arg(&attn).arg(&weight).arg(&scales).arg(&global_scale);
    launch
        .arg(&mut partials)
        .arg(&mut sums)
        .arg(&mut counters)
        .arg(&region_timing)
        .arg(&nat);
    if size(&entry.cooperative) == 1 {
        // SAFETY: the arguments are those of the family's entry point, in order.
        unsafe { launch.launch_cooperative(config) }?;
    } else {
        // SAFETY: as above.
        unsafe { launch.launch(config) }?;
    }
    Ok(WoOutput {
        partials: stream.clone_dtoh(&partials)?,
        output: stream.clone_dtoh(&sums)?,
    })
}

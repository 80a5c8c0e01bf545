//! Regions of any family on a GPU: memory by its declared parameters.
//!
//! Invariant: nothing is known of what the kernel computes. Memory that it reads is zero,
//! and what it writes with regions is compared with what it writes without, bit for bit,
//! before either is timed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use super::live::{Pair, Run, buffer, measure, requested_pairs};
use super::{Geometry, TickSource, Ticks};
use crate::engine::jit::Jit;
use crate::engine::request::dtype::Dtype;
use crate::engine::request::signature::{Resolved, Signature};
use crate::engine::request::template::{Access, Parameter};
use crate::engine::run::arguments::{Argument, Arguments};
use crate::engine::run::bind::BoundKernel;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::Tensor;
use crate::measure::MeasureError;

/// A launch size that is not given, and a number that no launch size gives.
const SIZE: u32 = 4096;
const NUMBER: &str = "1";

/// Written before each launch, so that nothing of the last one is in L2.
const FLUSH_BYTES: usize = 256 << 20;

/// Launch sizes and numbers by the names of the declared parameters, as texts.
pub type Given = BTreeMap<String, String>;

/// A variant's parameters: what to allocate, and what to pass.
struct Needs {
    signature: Signature,
    sizes: Vec<u32>,
    numbers: BTreeMap<String, u64>,
    given: Given,
}

/// Times launches of every variant that the settings ask for. What is not declared, or not
/// legal, is refused without a GPU; kernels of architectures that the settings name are
/// made without one, too.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU, [`MeasureError::Request`] for a family that does
/// not declare its parameters and for numbers that it does not take,
/// [`MeasureError::Refused`] where regions change a result; those of making and launching
/// kernels.
pub fn live(jit: &Jit, family: &str, given: &Given) -> Result<Vec<Run>, MeasureError> {
    let pairs = requested_pairs(jit, family, None)?;
    for pair in &pairs {
        Needs::of(pair, given)?.check(pair)?;
    }
    if jit.config().arch().is_some() {
        make(jit, &pairs)?;
    }
    let context = Context::new(0)?;
    let device = context.device();
    let here = device.arch();
    let pairs = requested_pairs(jit, family, Some(here))?;
    make(jit, &pairs)?;
    let each = pairs.iter().map(|pair| run(jit, &context, pair, given));
    each.collect()
}

fn make(jit: &Jit, pairs: &[Pair]) -> Result<(), MeasureError> {
    Ok(jit.prepare_each(pairs.iter().flat_map(|pair| [&pair.on, &pair.off]))?)
}

/// Runs a variant and reads what its blocks wrote.
fn run(jit: &Jit, context: &Context, pair: &Pair, given: &Given) -> Result<Run, MeasureError> {
    let needs = Needs::of(pair, given)?;
    let stream = context.cuda().default_stream();
    let (on, off) = (jit.load(&pair.on, context)?, jit.load(&pair.off, context)?);
    let grid = grid(&on, &needs)?;
    let geometry = Geometry::of_launch(&pair.on, &pair.table, grid);
    geometry.check(&pair.table)?;
    let (words, timing) = buffer(&stream, pair, &geometry)?;
    let mut memory = needs.allocate(&stream, pair)?;
    let ticks = Tensor::flat(timing, Dtype::U64, words.len());
    let on = needs.bind(&on, &memory, pair, Argument::Tensor(ticks))?;
    let off = needs.bind(&off, &memory, pair, Argument::Null)?;

    let launch = |bound: &BoundKernel| {
        // SAFETY: the memory lives to the end of this function, which waits for the
        // stream; it is as large as the family declares, and all zeros.
        unsafe { bound.launch(&needs.sizes, stream.cu_stream()) }
    };
    let mut written = |bound: &BoundKernel| {
        for (_, _, slice) in &mut memory {
            stream.memset_zeros(slice)?;
        }
        launch(bound)?;
        let out = memory
            .iter()
            .filter(|(_, access, _)| matches!(access, Access::Out | Access::InOut));
        let read: Result<Vec<Vec<u8>>, _> = out.map(|(_, _, slice)| stream.clone_dtoh(slice)).collect();
        stream.synchronize()?;
        Ok::<_, MeasureError>(read?)
    };
    if written(&off)? != written(&on)? {
        let reason = "what a launch with regions writes differs from what one without writes";
        return Err(MeasureError::Refused(format!(
            "{} {}: {reason}: nothing was timed",
            pair.on.family().name,
            pair.on.variant()
        )));
    }
    let mut scratch = stream.alloc_zeros::<u8>(FLUSH_BYTES)?;
    let account = |words: &[u64]| {
        let (table, source) = (pair.table.clone(), TickSource::of_spec(&pair.on));
        Ticks::from_words(table, geometry.clone(), source, words)
    };
    measure(
        context,
        &mut || Ok(stream.memset_zeros(&mut scratch)?),
        &words,
        &pair.off,
        "equal to the kernel without regions in every bit",
        &account,
        &mut |regions| Ok(launch(if regions { &on } else { &off })?),
    )
}

/// The grid that all entry points have: they write to the same rows.
fn grid(kernel: &LoadedKernel, needs: &Needs) -> Result<[u32; 3], MeasureError> {
    let mut grids = kernel.entries().iter().map(|entry| entry.grid(&needs.sizes));
    let first = grids.next().unwrap_or_default();
    if grids.any(|other| other != first) {
        return Err(MeasureError::Request(format!(
            "{}: its entry points have different grids, and write to the rows of one",
            needs.signature.family()
        )));
    }
    Ok(first)
}

/// Memory of one parameter.
type Memory = Vec<(String, Access, CudaSlice<u8>)>;

impl Needs {
    fn of(pair: &Pair, given: &Given) -> Result<Self, MeasureError> {
        let family = pair.on.family();
        let entry = pair.on.entries().next();
        let signature = entry.and_then(|entry| pair.on.signature(entry)).ok_or_else(|| {
            MeasureError::Request(format!(
                "{}: its regions can be timed where its entry points declare their parameters",
                family.name
            ))
        })?;
        let mut sizes = Vec::new();
        for name in signature.sizes() {
            let size = given.get(name).map_or(Ok(SIZE), |text| number(name, text))?;
            sizes.push(size);
        }
        let named = signature.sizes().iter().cloned();
        let mut numbers: BTreeMap<String, u64> =
            named.zip(sizes.iter().map(|size| u64::from(*size))).collect();
        for parameter in signature.parameters() {
            if let Some(dtype) = free(&signature, parameter)?
                && !matches!(dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
            {
                // A negative one is of no shape.
                let text = given.get(&parameter.name).map_or(NUMBER, String::as_str);
                numbers.extend(text.parse().ok().map(|number| (parameter.name.clone(), number)));
            }
        }
        Ok(Self {
            signature,
            sizes,
            numbers,
            given: given.clone(),
        })
    }

    /// Refuses names that are no launch size and no number, and a buffer that is none.
    fn check(&self, pair: &Pair) -> Result<(), MeasureError> {
        let mut free_names: Vec<&str> = self.signature.sizes().iter().map(String::as_str).collect();
        for parameter in self.signature.parameters() {
            if free(&self.signature, parameter)?.is_some() {
                free_names.push(&parameter.name);
            }
        }
        let refused = |reason: String| {
            let family = self.signature.family();
            Err(MeasureError::Request(format!("{family}: {reason}")))
        };
        if let Some(other) = self
            .given
            .keys()
            .find(|name| !free_names.contains(&name.as_str()))
        {
            return refused(format!(
                "--with {other}: is not a launch size or a number that it takes: expected one of {}",
                free_names.join(", ")
            ));
        }
        let Some(buffer) = buffer_of(pair) else {
            return Ok(());
        };
        if !self.signature.parameters().iter().any(|p| p.name == *buffer) {
            return refused(format!(
                "there is no parameter `{buffer}` for its ticks to be written to"
            ));
        }
        self.sized(pair).map(|_| ())
    }

    /// The bytes of each parameter that needs memory.
    fn sized(&self, pair: &Pair) -> Result<Vec<(&Parameter, Access, Dtype, usize)>, MeasureError> {
        let mut sized = Vec::new();
        for parameter in self.signature.parameters() {
            let wrong = |reason: String| {
                let (family, name) = (self.signature.family(), &parameter.name);
                MeasureError::Request(format!("{family}: parameter `{name}`: {reason}"))
            };
            let Resolved::Pointer {
                access,
                dtype,
                optional,
                ..
            } = self.signature.resolve(parameter).map_err(|e| wrong(e.into()))?
            else {
                continue;
            };
            if buffer_of(pair) == Some(&parameter.name) {
                continue;
            }
            let bytes = self
                .signature
                .bytes(parameter, &self.numbers)
                .map_err(|e| wrong(e.into()))?;
            match bytes.map(usize::try_from) {
                Some(Ok(bytes)) => sized.push((parameter, access, dtype, bytes)),
                None if optional => {}
                _ => return Err(wrong("its length is not declared".to_owned())),
            }
        }
        Ok(sized)
    }

    fn allocate(&self, stream: &Arc<CudaStream>, pair: &Pair) -> Result<Memory, MeasureError> {
        let mut memory = Memory::new();
        for (parameter, access, _, bytes) in self.sized(pair)? {
            let slice = stream.alloc_zeros::<u8>(bytes.max(1))?;
            memory.push((parameter.name.clone(), access, slice));
        }
        Ok(memory)
    }

    fn bind(
        &self,
        kernel: &Arc<LoadedKernel>,
        memory: &Memory,
        pair: &Pair,
        ticks: Argument,
    ) -> Result<BoundKernel, MeasureError> {
        let stream = kernel.context().cuda().default_stream();
        let mut arguments = Arguments::new();
        for (name, size) in self.signature.sizes().iter().zip(&self.sizes) {
            arguments = arguments.size(name, *size);
        }
        for (parameter, _, dtype, _) in self.sized(pair)? {
            if let Some((name, _, slice)) = memory.iter().find(|(name, ..)| *name == parameter.name) {
                arguments = arguments.arg(name, Tensor::all_of(&stream, slice, dtype));
            }
        }
        for parameter in self.signature.parameters() {
            if let Some(dtype) = free(&self.signature, parameter)? {
                let text = self.given.get(&parameter.name).map_or(NUMBER, String::as_str);
                arguments = arguments.arg(&parameter.name, scalar(&parameter.name, dtype, text)?);
            }
        }
        if let Some(name) = buffer_of(pair) {
            arguments = arguments.arg(name, ticks);
        }
        Ok(kernel.bind().arguments(arguments).finish()?)
    }
}

/// The parameter that ticks are written to.
fn buffer_of(pair: &Pair) -> Option<&String> {
    pair.on.family().regions.as_ref().map(|regions| &regions.buffer)
}

/// The type of a number that no launch size gives; `None` for everything else.
fn free(signature: &Signature, parameter: &Parameter) -> Result<Option<Dtype>, MeasureError> {
    let resolved = signature.resolve(parameter);
    let resolved = resolved.map_err(|refused| MeasureError::Request(refused.into()))?;
    Ok(match resolved {
        Resolved::Scalar { dtype, value: None } => Some(dtype),
        _ => None,
    })
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, MeasureError> {
    let wrong = |_| MeasureError::Request(format!("--with {name}={text}: is not a number of its type"));
    text.parse().map_err(wrong)
}

fn scalar(name: &str, dtype: Dtype, text: &str) -> Result<Argument, MeasureError> {
    Ok(match dtype {
        Dtype::U8 => number::<u8>(name, text)?.into(),
        Dtype::I8 => number::<i8>(name, text)?.into(),
        Dtype::U16 => number::<u16>(name, text)?.into(),
        Dtype::I16 => number::<i16>(name, text)?.into(),
        Dtype::U32 => number::<u32>(name, text)?.into(),
        Dtype::I32 => number::<i32>(name, text)?.into(),
        Dtype::U64 => number::<u64>(name, text)?.into(),
        Dtype::I64 => number::<i64>(name, text)?.into(),
        Dtype::F32 => number::<f32>(name, text)?.into(),
        Dtype::F64 => number::<f64>(name, text)?.into(),
        Dtype::Bf16 => half::bf16::from_f32(number(name, text)?).into(),
        Dtype::F16 => half::f16::from_f32(number(name, text)?).into(),
        other => {
            return Err(MeasureError::Request(format!(
                "{name}: a number of type {other} cannot be given"
            )));
        }
    })
}

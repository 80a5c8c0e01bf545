//! Loading and launching.
//!
//! Invariant: the context that is current on the calling thread stays so. A launch with
//! words passes as many words as the kernel reads, which its machine code says.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, PoisonError};

use arrayvec::ArrayVec;
use cudarc::driver::result::ctx;
use jitc::engine::build::artifact::Artifact;
use jitc::engine::build::parameter_info;
use jitc::engine::request::signature::{Resolved, Signature};
use jitc::engine::run::arguments::{self, Arguments};
use jitc::engine::run::device::{self, Context, DeviceError};
use jitc::engine::run::launch::{Order, launch_grid};
use jitc::engine::run::load::{EntryPoint, LoadedKernel};
use jitc::engine::run::tensor::Dtype;
use jitc::engine::run::tvm_ffi;

use crate::engine::Shared;
use crate::error::{Failure, Status, guard};
use crate::input;
use crate::kernel::Kernel;
use crate::tensor::{self, Tensor};

/// The most parameters of a kernel that is launched with words.
const MAX_PARAMETERS: usize = 128;

/// What a `jitc_argument` is.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tensor on the GPU: `pointer` is a `DLTensor` or a `jitc_tensor`.
    Tensor = 0,
    /// A null pointer, for a parameter that is optional.
    Null = 1,
    /// A number: `value` has its bits, in the parameter's own type, from the lowest byte.
    Value = 2,
    /// A launch size: `value`, from 1 to 4294967295.
    Size = 3,
    /// A struct that is passed by value: `pointer` is to its `value` bytes.
    Bytes = 4,
}

/// A value for a parameter, or for a launch size, by its name. This struct never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// The parameter's name, or the launch size's, as the family declares it.
    pub name: *const c_char,
    /// By `kind`; read during the call.
    pub pointer: *const c_void,
    /// By `kind`.
    pub value: u64,
    /// A `jitc_kind`.
    pub kind: i32,
    /// 0.
    pub reserved: i32,
}

/// A kernel on a GPU.
pub(crate) struct Loaded {
    kernel: Arc<LoadedKernel>,
    /// By entry point: what it takes, or why that is not known.
    takes: Vec<Result<Words, String>>,
}

/// Where each parameter begins among the words of a launch.
struct Words {
    starts: ArrayVec<usize, MAX_PARAMETERS>,
    count: usize,
}

impl Words {
    fn of(artifact: &Artifact, entry: &EntryPoint) -> Result<Self, String> {
        let places = parameter_info::parameters(&artifact.cubin, artifact.symbol(entry.name()))?;
        let (mut starts, mut count) = (ArrayVec::new(), 0);
        for place in &places {
            if starts.try_push(count).is_err() {
                return Err(format!(
                    "it has {} parameters, at most {MAX_PARAMETERS} are passed",
                    places.len()
                ));
            }
            count += place.size.div_ceil(8) as usize;
        }
        Ok(Self { starts, count })
    }
}

impl Shared {
    /// The primary context of a GPU.
    fn context(&self, ordinal: u32) -> Result<Context, DeviceError> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = contexts.get(&ordinal)
            && !context.is_of_parent()
        {
            return Ok(context.clone());
        }
        // Starts the driver, which says of no thread before what is current there.
        device::get(ordinal)?;
        let before = ctx::get_current().ok().flatten();
        let context = Context::new(ordinal);
        // SAFETY: it was current on this thread a moment ago; null is none.
        let _ = unsafe { ctx::set_current(before.unwrap_or(std::ptr::null_mut())) };
        let context = context?;
        contexts.insert(ordinal, context.clone());
        Ok(context)
    }
}

impl Kernel {
    fn load(&self, ordinal: u32) -> Result<(), Failure> {
        if let Some(loaded) = self.loaded.get() {
            return loaded.is_on(ordinal);
        }
        let context = self.shared.context(ordinal)?;
        let artifact = Arc::clone(&self.prepared()?.fetched.artifact);
        let kernel = self.shared.jit.load(&self.spec, &context)?;
        let takes = kernel.entries().iter().map(|entry| Words::of(&artifact, entry));
        let takes = takes.collect();
        self.loaded
            .get_or_init(|| Loaded { kernel, takes })
            .is_on(ordinal)
    }

    fn loaded(&self) -> Result<&Loaded, Failure> {
        self.loaded
            .get()
            .ok_or_else(|| Failure::argument("the kernel is not loaded: call jitc_load"))
    }
}

impl Loaded {
    /// Whether it is there, where it is asked for once more.
    fn is_on(&self, ordinal: u32) -> Result<(), Failure> {
        let context = self.kernel.context();
        if context.is_of_parent() {
            return Err(DeviceError::Forked.into());
        }
        let here = context.device().ordinal;
        if here == ordinal {
            return Ok(());
        }
        Err(Failure::argument(format!(
            "the kernel is loaded on GPU {here}: expected another kernel for GPU {ordinal}"
        )))
    }

    /// # Safety
    ///
    /// As [`jitc_launch`] demands.
    unsafe fn launch(
        &self,
        at: usize,
        grid: [u32; 3],
        stream: *mut c_void,
        words: &[u64],
    ) -> Result<(), Failure> {
        let (Some(entry), Some(takes)) = (self.kernel.entries().get(at), self.takes.get(at)) else {
            return Err(Failure::argument(format!(
                "entry {at}: expected one of 0 to {}",
                self.kernel.entries().len() - 1
            )));
        };
        let takes = takes.as_ref().map_err(|why| {
            Failure::argument(format!("`{}` cannot be launched with words: {why}", entry.name()))
        })?;
        if words.len() != takes.count {
            return Err(Failure::argument(format!(
                "`{}` takes {} words for its {} parameters, got {}",
                entry.name(),
                takes.count,
                takes.starts.len(),
                words.len()
            )));
        }
        // The driver reads parameters, and writes none.
        let pointer = |start: &usize| std::ptr::from_ref(&words[*start]).cast_mut().cast::<c_void>();
        let mut pointers: ArrayVec<*mut c_void, MAX_PARAMETERS> = takes.starts.iter().map(pointer).collect();
        let _entered = self.kernel.context().enter()?;
        // SAFETY: there are as many words as the parameters have bytes, and the context is
        // current; the rest is the caller's promise.
        unsafe { launch_grid(entry, grid, Order::Serial, stream.cast(), &mut pointers) }?;
        Ok(())
    }

    /// # Safety
    ///
    /// As [`jitc_call`] demands.
    unsafe fn call(
        &self,
        entry: Option<&str>,
        given: &[Argument],
        stream: *mut c_void,
    ) -> Result<(), Failure> {
        let first = entry.or_else(|| self.kernel.entries().first().map(EntryPoint::name));
        let signature = first.and_then(|name| self.kernel.signature(name));
        let mut values = Arguments::new();
        for one in given {
            // SAFETY: the caller's promise, here and below.
            let name = unsafe { input::text(one.name, "the name of an argument")? };
            let wrong = |why| Failure::argument(format!("parameter `{name}`: {why}"));
            if one.kind == Kind::Size as i32 {
                let size = u32::try_from(one.value).map_err(|_| {
                    wrong(format!(
                        "expected a launch size of at most {}, got {}",
                        u32::MAX,
                        one.value
                    ))
                })?;
                values = values.size(name, size);
                continue;
            }
            // SAFETY: as above.
            let value = unsafe { value_of(one, name, signature.as_ref()) };
            values = values.arg(name, value.map_err(wrong)?);
        }
        let bind = entry.map_or_else(|| self.kernel.bind(), |name| self.kernel.bind_entry(name));
        let bound = bind.arguments(values).finish()?;
        let _entered = self.kernel.context().enter()?;
        // SAFETY: the context is current; the rest is the caller's promise.
        unsafe { bound.launch(bound.most(), stream.cast()) }?;
        Ok(())
    }
}

/// A value of any kind but a launch size; the text says what is wrong.
///
/// # Safety
///
/// As [`jitc_call`] demands.
unsafe fn value_of(
    one: &Argument,
    name: &str,
    signature: Option<&Signature>,
) -> Result<arguments::Argument, String> {
    const TENSOR: i32 = Kind::Tensor as i32;
    const NULL: i32 = Kind::Null as i32;
    const VALUE: i32 = Kind::Value as i32;
    const BYTES: i32 = Kind::Bytes as i32;
    match one.kind {
        // SAFETY: the caller's promise.
        TENSOR => Ok(unsafe { tensor::read(one.pointer.cast::<Tensor>()) }?.into()),
        NULL => Ok(arguments::Argument::Null),
        VALUE => {
            let declared = signature.and_then(|signature| {
                let parameter = signature.parameters().iter().find(|p| p.name == name)?;
                match signature.resolve(parameter) {
                    Ok(Resolved::Scalar { dtype, .. }) => Some(dtype),
                    _ => None,
                }
            });
            // Of what is no number, or not there, the engine says so.
            let dtype = declared.unwrap_or(Dtype::U64);
            let bits = u32::try_from(dtype.bytes() * 8).unwrap_or(64);
            if one.value.checked_shr(bits).unwrap_or(0) != 0 {
                return Err(format!("{:#x} has more bits than a {dtype}", one.value));
            }
            Ok(arguments::Argument::Scalar(dtype, one.value))
        }
        BYTES => {
            let count = usize::try_from(one.value).map_err(|_| "too many bytes".to_owned())?;
            // SAFETY: the caller's promise.
            let bytes = unsafe { input::row(one.pointer.cast::<u8>(), count, "pointer") };
            Ok(bytes.map_err(|_| "its bytes are NULL".to_owned())?.into())
        }
        other => Err(format!("{other} is no jitc_kind")),
    }
}

/// Loads a kernel on a GPU, found or compiled if need be. Once it is loaded, doing so
/// again does nothing. Must not happen while a stream captures:
/// `JITC_STATUS_CAPTURING`. The context is the GPU's primary one, as CUDA's runtime has it.
///
/// `device`: which GPU, in the driver's order, from 0. A kernel is loaded on one.
///
/// # Safety
///
/// `kernel` is NULL or a kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_load(kernel: *const Kernel, device: u32) -> Status {
    guard(|| {
        // SAFETY: the caller's promise.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        kernel.load(device)
    })
}

/// Launches a loaded kernel with words. Their number is checked; what they mean is not.
///
/// `entry`: which of its entry points, in declared order, from 0.
/// `grid_x`, `grid_y`, `grid_z`: blocks; threads and shared memory are as declared.
/// `stream`: a `CUstream` or `cudaStream_t` of the kernel's GPU; NULL: the default one.
/// `words`: the parameters in order, each from the lowest byte of a word of its own;
/// one of more than 8 bytes in as many words as it takes. Read during the call.
/// `count`: how many words there are.
///
/// # Safety
///
/// Pointers are NULL or as said here. Memory that the words point at is as large as the
/// kernel takes it for, and lives until the stream is done with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_launch(
    kernel: *const Kernel,
    entry: u32,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    stream: *mut c_void,
    words: *const u64,
    count: usize,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        // SAFETY: as above.
        let words = unsafe { input::row(words, count, "words")? };
        // SAFETY: as above.
        unsafe {
            kernel
                .loaded()?
                .launch(entry as usize, [grid_x, grid_y, grid_z], stream, words)
        }
    })
}

/// Launches a loaded kernel of a family with values by name, and checks them: type, shape,
/// alignment, whose memory it is, and that none is missing or too many. The grid is as
/// the family declares it.
///
/// `entry`: the entry point's name. NULL: all of them, in declared order, where they take
/// the same parameters.
/// `arguments`: `count` values, in any order: every parameter but optional ones and those
/// that are launch sizes, and every launch size. Read during the call.
/// `stream`: a `CUstream` or `cudaStream_t` of the kernel's GPU; NULL: the default one.
///
/// # Safety
///
/// Pointers are NULL or as said here and in `jitc_argument`. Tensors' memory lives until the
/// stream is done with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_call(
    kernel: *const Kernel,
    entry: *const c_char,
    arguments: *const Argument,
    count: usize,
    stream: *mut c_void,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        // SAFETY: as above.
        let entry = unsafe { input::optional(entry, "entry")? };
        // SAFETY: as above.
        let given = unsafe { input::row(arguments, count, "arguments")? };
        // SAFETY: as above.
        unsafe { kernel.loaded()?.call(entry, given, stream) }
    })
}

/// Makes a loaded kernel of a family a global function of tvm-ffi, which the process has
/// loaded: that is looked for, and nothing is linked. The function takes the parameters by
/// place, in declared order: tensors, numbers, bytes; then launch sizes that no parameter
/// gives; then optional parameters, which may be left out or None. It launches on tvm-ffi's
/// current stream of the kernel's GPU, checks what `jitc_call` checks, and raises a `TypeError`,
/// a `ValueError` or a `RuntimeError`. It holds the kernel's code: `jitc_free` may come before.
///
/// `entry`: the entry point's name. NULL: all of them, as for `jitc_call`.
/// `name`: of the function, `mylib.scale`.
/// `replace`: not 0: also where tvm-ffi has a function of this name.
///
/// # Safety
///
/// Pointers are NULL or as said here. What calls the function sees to it that tensors' memory
/// lives until the stream is done with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_register_tvm_ffi(
    kernel: *const Kernel,
    entry: *const c_char,
    name: *const c_char,
    replace: i32,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        // SAFETY: as above.
        let entry = unsafe { input::optional(entry, "entry")? };
        // SAFETY: as above.
        let name = unsafe { input::text(name, "name")? };
        tvm_ffi::register(&kernel.loaded()?.kernel, entry, name, replace != 0)?;
        Ok(())
    })
}

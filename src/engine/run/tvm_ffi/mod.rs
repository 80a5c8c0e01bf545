//! Kernels as functions of tvm-ffi, for whoever speaks it: C++, Python, other compilers.
//!
//! Nothing of it is in a build: its library is looked for in the process, where whoever
//! speaks it has loaded it.
//!
//! Invariant: nothing unwinds into tvm-ffi. What a function is called with is checked as for
//! every other call, and it holds its kernel until tvm-ffi lets go of it.

mod value;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::CUstream;
use libloading::os::unix::{Library, RTLD_NOW};

use crate::engine::request::dtype::Dtype;
use crate::engine::request::signature::Resolved;
use crate::engine::run::arguments::Arguments;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::load::{EntryPoint, LoadedKernel};
use value::{Bytes, Value};

/// The library of tvm-ffi, by the name that it has itself.
const LIBRARY: &str = "libtvm_ffi.so";
/// `DLPack`'s device type of a GPU.
const GPU: i32 = 2;

/// Why a kernel did not become a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TvmFfiError {
    /// Nobody has loaded tvm-ffi, or one without this function.
    #[error(
        "tvm-ffi is not loaded in this process, or too old: `{0}` is not there (in Python: import tvm_ffi first)"
    )]
    Absent(&'static str),
    /// A function of this name is there.
    #[error("tvm-ffi did not take the name `{0}`: is there a function of this name already?")]
    Taken(String),
    /// It did not make a function.
    #[error("tvm-ffi did not make a function")]
    Refused,
    /// The kernel cannot be called with values.
    #[error("{0}")]
    Kernel(String),
}

type Call = unsafe extern "C" fn(*mut c_void, *const Value, i32, *mut Value) -> c_int;
type Create =
    unsafe extern "C" fn(*mut c_void, Call, unsafe extern "C" fn(*mut c_void), *mut *mut c_void) -> c_int;

/// The functions of tvm-ffi that are called.
#[derive(Clone, Copy)]
struct Api {
    create: Create,
    set_global: unsafe extern "C" fn(*const Bytes, *mut c_void, c_int) -> c_int,
    let_go: unsafe extern "C" fn(*mut c_void) -> c_int,
    raise: unsafe extern "C" fn(*const c_char, *const c_char),
    stream: unsafe extern "C" fn(i32, i32) -> *mut c_void,
}

impl Api {
    /// Where this process has them.
    fn find() -> Result<Self, TvmFfiError> {
        // SAFETY: it is not loaded but found, if somebody has loaded it.
        let loaded = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | libc::RTLD_NOLOAD) };
        // Else it may be a part of the program.
        let library = loaded.unwrap_or_else(|_| Library::this());
        // SAFETY: its type is that of tvm-ffi's header, here and below.
        let create = unsafe { function(&library, "TVMFFIFunctionCreate")? };
        // SAFETY: as above.
        let set_global = unsafe { function(&library, "TVMFFIFunctionSetGlobal")? };
        // SAFETY: as above.
        let let_go = unsafe { function(&library, "TVMFFIObjectDecRef")? };
        // SAFETY: as above.
        let raise = unsafe { function(&library, "TVMFFIErrorSetRaisedFromCStr")? };
        // SAFETY: as above.
        let stream = unsafe { function(&library, "TVMFFIEnvGetStream")? };
        let api = Self {
            create,
            set_global,
            let_go,
            raise,
            stream,
        };
        // It stays where it is: functions may be called for as long as the process lives.
        let _ = library.into_raw();
        Ok(api)
    }
}

/// # Safety
///
/// `T` is the type of the function of this name.
unsafe fn function<T: Copy>(library: &Library, name: &'static str) -> Result<T, TvmFfiError> {
    // SAFETY: the caller's promise.
    let found = unsafe { library.get::<T>(name) };
    found.map(|symbol| *symbol).map_err(|_| TvmFfiError::Absent(name))
}

/// A parameter, or a launch size that none gives, as a call fills it.
enum Slot {
    Size(String),
    /// A parameter that is a launch size.
    Given(String),
    Scalar(String, Dtype),
    Bytes(String),
    Pointer {
        name: String,
        optional: bool,
    },
}

impl Slot {
    fn name(&self) -> &str {
        match self {
            Self::Size(name)
            | Self::Given(name)
            | Self::Scalar(name, _)
            | Self::Bytes(name)
            | Self::Pointer { name, .. } => name,
        }
    }

    fn may_be_missing(&self) -> bool {
        matches!(self, Self::Pointer { optional: true, .. })
    }
}

/// A kernel as tvm-ffi calls it.
struct Callable {
    kernel: Arc<LoadedKernel>,
    entry: Option<String>,
    /// In the order in which values are given: parameters as they are declared, then launch
    /// sizes that no parameter gives, then parameters that may be missing.
    slots: Vec<Slot>,
    api: Api,
}

/// What a call raises.
struct Raised {
    class: &'static CStr,
    message: String,
}

impl Raised {
    fn wrong(message: String) -> Self {
        Self {
            class: c"TypeError",
            message,
        }
    }
}

/// Makes a loaded kernel a global function of tvm-ffi. It takes the parameters by place, in
/// declared order, those that are optional last and perhaps not at all, and launches on
/// tvm-ffi's current stream of the kernel's GPU. `entry`: one of its entry points; `None`:
/// all of them, where they take the same. `replace`: also where the name is taken.
///
/// # Errors
/// tvm-ffi is not there or does not take it, or the kernel declares no parameters.
pub fn register(
    kernel: &Arc<LoadedKernel>,
    entry: Option<&str>,
    name: &str,
    replace: bool,
) -> Result<(), TvmFfiError> {
    let callable = Callable {
        kernel: Arc::clone(kernel),
        entry: entry.map(str::to_owned),
        slots: slots(kernel, entry).map_err(TvmFfiError::Kernel)?,
        api: Api::find()?,
    };
    let api = callable.api;
    let held = Box::into_raw(Box::new(callable)).cast();
    let mut made = ptr::null_mut();
    // SAFETY: what is held is a `Callable`, as both functions take it, and `made` outlives
    // the call.
    if unsafe { (api.create)(held, call, end, &raw mut made) } != 0 {
        // SAFETY: nobody took it.
        unsafe { end(held) };
        return Err(TvmFfiError::Refused);
    }
    let bytes = Bytes {
        data: name.as_ptr(),
        count: name.len(),
    };
    // SAFETY: a function of tvm-ffi's, and a name that outlives the call.
    let taken = unsafe { (api.set_global)(&raw const bytes, made, c_int::from(replace)) } != 0;
    // SAFETY: the table of names has one of its own.
    unsafe { (api.let_go)(made) };
    if taken {
        return Err(TvmFfiError::Taken(name.to_owned()));
    }
    Ok(())
}

fn slots(kernel: &Arc<LoadedKernel>, entry: Option<&str>) -> Result<Vec<Slot>, String> {
    let bind = entry.map_or_else(|| kernel.bind(), |entry| kernel.bind_entry(entry));
    // Without values, so that something is missing as a rule; this is wrong with the kernel.
    if let Err(
        error @ (BindError::NoEntry { .. } | BindError::Undeclared { .. } | BindError::DifferentLists { .. }),
    ) = bind.finish()
    {
        return Err(error.to_string());
    }
    let first = entry.or_else(|| kernel.entries().first().map(EntryPoint::name));
    let Some(signature) = first.and_then(|name| kernel.signature(name)) else {
        return Err("it declares no parameters".to_owned());
    };
    let mut sizes: Vec<Option<&String>> = signature.sizes().iter().map(Some).collect();
    let (mut always, mut perhaps) = (Vec::new(), Vec::new());
    for parameter in signature.parameters() {
        let name = parameter.name.clone();
        match signature.resolve(parameter)? {
            Resolved::Scalar { value: Some(at), .. } => {
                always.push(Slot::Given(signature.sizes()[at].clone()));
                sizes[at] = None;
            }
            Resolved::Scalar { dtype, .. } => always.push(Slot::Scalar(name, dtype)),
            Resolved::Bytes { .. } => always.push(Slot::Bytes(name)),
            Resolved::Pointer { optional, .. } => {
                let to = if optional { &mut perhaps } else { &mut always };
                to.push(Slot::Pointer { name, optional });
            }
        }
    }
    let rest = sizes.into_iter().flatten().map(|size| Slot::Size(size.clone()));
    always.extend(rest);
    always.extend(perhaps);
    Ok(always)
}

impl Callable {
    /// # Safety
    ///
    /// Values are tvm-ffi's, good during the call; that tensors' memory lives until the stream
    /// is done with it is the caller's promise.
    unsafe fn call(&self, values: &[Value]) -> Result<(), Raised> {
        let least = self.slots.iter().filter(|slot| !slot.may_be_missing()).count();
        if values.len() < least || values.len() > self.slots.len() {
            let names: Vec<&str> = self.slots.iter().map(Slot::name).collect();
            return Err(Raised::wrong(format!(
                "{}: expected {least} to {} arguments ({}), got {}",
                self.kernel.spec().family().name,
                self.slots.len(),
                names.join(", "),
                values.len()
            )));
        }
        let mut arguments = Arguments::new();
        for (slot, value) in self.slots.iter().zip(values) {
            let named = |why: String| Raised::wrong(format!("parameter `{}`: {why}", slot.name()));
            arguments = match slot {
                Slot::Size(name) | Slot::Given(name) => {
                    // SAFETY: the caller's promise, here and below.
                    let size = unsafe { value.whole() }.and_then(|size| u32::try_from(size).ok());
                    let size = size.ok_or_else(|| {
                        named(format!(
                            "expected a launch size, a whole number from 1 to {}",
                            u32::MAX
                        ))
                    })?;
                    arguments.size(name, size)
                }
                Slot::Scalar(name, dtype) => {
                    // SAFETY: as above.
                    arguments.arg(name, unsafe { value.scalar(*dtype) }.map_err(named)?)
                }
                Slot::Bytes(name) => {
                    // SAFETY: as above.
                    arguments.arg(name, unsafe { value.bytes() }.map_err(named)?)
                }
                Slot::Pointer { name, .. } => {
                    // SAFETY: as above.
                    arguments.arg(name, unsafe { value.tensor() }.map_err(named)?)
                }
            };
        }
        let raised = |class, message: String| Raised { class, message };
        let entry = self.entry.as_deref();
        let bind = entry.map_or_else(|| self.kernel.bind(), |entry| self.kernel.bind_entry(entry));
        let bound = bind.arguments(arguments).finish();
        let bound = bound.map_err(|error| raised(c"ValueError", error.to_string()))?;
        let context = self.kernel.context();
        let device = i32::try_from(context.device().ordinal).unwrap_or_default();
        // SAFETY: it takes two numbers.
        let stream = unsafe { (self.api.stream)(GPU, device) };
        let _entered = context
            .enter()
            .map_err(|error| raised(c"RuntimeError", error.to_string()))?;
        let stream: CUstream = stream.cast();
        // SAFETY: the context is current, and the stream is of its GPU; the rest is the
        // caller's promise.
        let launched = unsafe { bound.launch(bound.most(), stream) };
        launched.map_err(|error| raised(c"RuntimeError", error.to_string()))
    }
}

/// What tvm-ffi calls: 0, or -1 where an error was raised.
///
/// # Safety
///
/// `held` is a `Callable`, and there are `count` values.
unsafe extern "C" fn call(held: *mut c_void, values: *const Value, count: i32, _: *mut Value) -> c_int {
    // SAFETY: the caller's promise; it lives until `end`.
    let callable = unsafe { &*held.cast::<Callable>() };
    let count = usize::try_from(count).unwrap_or_default();
    let values = if count == 0 || values.is_null() {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(values, count) }
    };
    // SAFETY: values are tvm-ffi's.
    let done = catch_unwind(AssertUnwindSafe(|| unsafe { callable.call(values) }));
    let panicked = |_| {
        Err(Raised {
            class: c"RuntimeError",
            message: "a mistake of jitc itself: the call panicked".to_owned(),
        })
    };
    let Err(raised) = done.unwrap_or_else(panicked) else {
        return 0;
    };
    let message = CString::new(raised.message.replace('\0', "\u{fffd}")).unwrap_or_default();
    // SAFETY: texts that outlive the call.
    unsafe { (callable.api.raise)(raised.class.as_ptr(), message.as_ptr()) };
    -1
}

/// What tvm-ffi calls when nobody holds the function any more.
///
/// # Safety
///
/// `held` is a `Callable` that nobody uses.
unsafe extern "C" fn end(held: *mut c_void) {
    // SAFETY: the caller's promise. A panic of a destructor does not leave this function.
    let _ = catch_unwind(|| drop(unsafe { Box::from_raw(held.cast::<Callable>()) }));
}

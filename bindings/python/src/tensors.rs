//! What a framework's tensor is, without a copy: the C exchange API of `DLPack`, `__dlpack__`,
//! `__cuda_array_interface__`, in this order.
//!
//! Invariant: a [`View`] owns nothing but what it needs to stay readable; the memory is
//! the tensor's, whose owner keeps it alive until the stream is done with it.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use arrayvec::ArrayVec;
use jitc::engine::run::tensor::{Dtype, is_contiguous};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyFloat, PyInt, PyTuple, PyType};

/// The most dimensions that a kernel's parameters have.
pub(crate) const MAX_RANK: usize = 5;

/// Device types of `DLPack`, of memory that kernels read: CUDA's, and what CUDA manages.
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;

#[repr(C)]
#[derive(Clone, Copy)]
struct DlDevice {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DlDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DlDataType,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

#[repr(C)]
struct DlVersion {
    major: u32,
    minor: u32,
}

/// `DLManagedTensorVersioned`, as far as it is read here.
#[repr(C)]
struct DlManagedVersioned {
    version: DlVersion,
    manager: *mut c_void,
    deleter: *const c_void,
    flags: u64,
    tensor: DlTensor,
}

/// `DLPackExchangeAPI`, version 1.3.
#[repr(C)]
pub(crate) struct ExchangeApi {
    version: DlVersion,
    prev: *const ExchangeApi,
    allocate: *const c_void,
    managed_from_object: *const c_void,
    managed_to_object: *const c_void,
    tensor_from_object: Option<unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int>,
    current_stream: Option<unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> c_int>,
}

// SAFETY: a table of functions that no one changes, which any thread may call that holds
// the GIL, or is attached where there is none.
unsafe impl Sync for ExchangeApi {}
// SAFETY: as above.
unsafe impl Send for ExchangeApi {}

/// Whose stream is the current one.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// A framework that says so by its exchange API.
    Api(&'static ExchangeApi),
    /// That of the tensor's own type.
    Type,
    /// The stream that the tensor's own interface names.
    Named(u64),
}

/// A tensor, as far as a launch wants to know it.
pub(crate) struct View {
    pub(crate) address: u64,
    pub(crate) facts: Facts,
    pub(crate) origin: Origin,
    /// Whether the device was said, and not assumed.
    pub(crate) device_known: bool,
}

/// All of a tensor but where it lies.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) dtype: Dtype,
    /// The GPU; `None` of pinned and managed memory, and where nobody says it.
    pub(crate) device: Option<u32>,
    pub(crate) shape: ArrayVec<usize, MAX_RANK>,
}

impl ExchangeApi {
    /// What a tensor of the framework is; its shape and strides are good as long as it.
    #[inline]
    fn read(&self, object: &Bound<'_, PyAny>) -> PyResult<DlTensor> {
        let read = self
            .tensor_from_object
            .ok_or_else(|| refused("its exchange API reads no tensors"))?;
        let mut tensor = MaybeUninit::<DlTensor>::uninit();
        // SAFETY: the framework's own function, for an object of its own type, with room
        // for its answer.
        if unsafe { read(object.as_ptr().cast(), tensor.as_mut_ptr()) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: filled by the call.
        Ok(unsafe { tensor.assume_init() })
    }

    /// The framework's current stream on a GPU.
    pub(crate) fn stream(&self, py: Python<'_>, device: u32) -> PyResult<u64> {
        let Some(current) = self.current_stream else {
            return Ok(0);
        };
        let mut stream = std::ptr::null_mut();
        // SAFETY: the framework's own function, with room for its answer.
        let failed = unsafe { current(CUDA, device.cast_signed(), &raw mut stream) } != 0;
        if failed {
            return Err(PyErr::fetch(py));
        }
        Ok(stream.addr() as u64)
    }
}

/// Reads a tensor. The texts of errors do not name the parameter: the caller does.
pub(crate) fn view(object: &Bound<'_, PyAny>) -> PyResult<View> {
    if let Some(api) = api_of(object) {
        // SAFETY: filled by the call; shape and strides are good as long as the object.
        return unsafe { of_dlpack(&api.read(object)?, Origin::Api(api)) };
    }
    if let Some(method) = object.getattr_opt(intern!(object.py(), "__dlpack__"))? {
        return by_capsule(&method);
    }
    if let Some(interface) = object.getattr_opt(intern!(object.py(), "__cuda_array_interface__"))? {
        return by_interface(interface.cast::<PyDict>()?);
    }
    Err(refused(
        "expected a tensor with __dlpack__ or __cuda_array_interface__, as torch's, CuPy's and JAX's have",
    ))
}

/// The address of a tensor that is known to be of these facts but for where it lies; `None`
/// where it is not, where that is not known, and where it cannot be read.
#[inline]
pub(crate) fn address_if(object: &Bound<'_, PyAny>, facts: &Facts) -> Option<u64> {
    let Some(api) = api_of(object) else {
        let View {
            address,
            facts: own,
            device_known: true,
            ..
        } = view(object).ok()?
        else {
            return None;
        };
        return (own == *facts).then_some(address);
    };
    let Ok(tensor) = api.read(object) else {
        return None;
    };
    let (device, dtype) = (device_of(tensor.device).ok()?, dtype_of(tensor.dtype)?);
    let rank = usize::try_from(tensor.ndim).ok()?;
    if device != facts.device || dtype != facts.dtype || rank != facts.shape.len() {
        return None;
    }
    if rank > 0 {
        // SAFETY: of `ndim` elements, good as long as the object.
        let shape = unsafe { std::slice::from_raw_parts(tensor.shape, rank) };
        let is_same = |(own, expected): (&i64, &usize)| usize::try_from(*own) == Ok(*expected);
        if !shape.iter().zip(&facts.shape).all(is_same) {
            return None;
        }
        if !tensor.strides.is_null() {
            // SAFETY: as above.
            let strides = unsafe { std::slice::from_raw_parts(tensor.strides, rank) };
            if !is_contiguous(&facts.shape, strides, 1) {
                return None;
            }
        }
    }
    Some(tensor.data.addr() as u64 + tensor.byte_offset)
}

/// The types that were seen with an exchange API, on this thread, and theirs.
type Known = ArrayVec<(usize, &'static ExchangeApi), 8>;

/// The exchange API of an object's type, looked up once a type and thread.
#[inline]
fn api_of(object: &Bound<'_, PyAny>) -> Option<&'static ExchangeApi> {
    thread_local! {
        static KNOWN: RefCell<Known> = const { RefCell::new(ArrayVec::new_const()) };
    }
    let id = object.get_type_ptr().addr();
    KNOWN.with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        if let Some((_, api)) = known.iter().find(|(of, _)| *of == id) {
            return Some(*api);
        }
        let class = object.get_type();
        let api = look_up(&class)?;
        if known.try_push((id, api)).is_ok() {
            // A type that is looked up by its address must never go.
            std::mem::forget(class);
        }
        Some(api)
    })
}

#[cold]
fn look_up(class: &Bound<'_, PyType>) -> Option<&'static ExchangeApi> {
    let capsule = class
        .getattr_opt(intern!(class.py(), "__dlpack_c_exchange_api__"))
        .ok()??;
    let capsule = capsule.cast::<PyCapsule>().ok()?;
    let pointer = capsule.pointer_checked(Some(c"dlpack_exchange_api")).ok()?;
    // SAFETY: by DLPack's protocol the capsule of this name points at such a table, which
    // is good for as long as the process lives.
    let api: &'static ExchangeApi = unsafe { pointer.cast::<ExchangeApi>().as_ref() };
    (api.version.major == 1 && api.tensor_from_object.is_some()).then_some(api)
}

/// By `__dlpack__`: its newest form, else the old one. The producer is asked not to wait:
/// the launch is on the producer's current stream, or where the caller says.
fn by_capsule(method: &Bound<'_, PyAny>) -> PyResult<View> {
    let py = method.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "stream"), -1)?;
    options.set_item(intern!(py, "max_version"), (1, 0))?;
    let capsule = match method.call((), Some(&options)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            options.del_item(intern!(py, "max_version"))?;
            method.call((), Some(&options))?
        }
        other => other?,
    };
    let capsule = capsule.cast::<PyCapsule>()?;
    if capsule.is_valid_checked(Some(c"dltensor_versioned")) {
        let pointer = capsule.pointer_checked(Some(c"dltensor_versioned"))?;
        // SAFETY: by DLPack's protocol the capsule of this name holds such a tensor, and
        // lives to the end of this block.
        let managed: &DlManagedVersioned = unsafe { pointer.cast().as_ref() };
        if managed.version.major != 1 {
            return Err(refused("its DLPack is of another major version than 1"));
        }
        // SAFETY: as above.
        return unsafe { of_dlpack(&managed.tensor, Origin::Type) };
    }
    let pointer = capsule.pointer_checked(Some(c"dltensor"))?;
    // SAFETY: as above; the old form begins with the tensor.
    let tensor: &DlTensor = unsafe { pointer.cast().as_ref() };
    // SAFETY: as above.
    unsafe { of_dlpack(tensor, Origin::Type) }
}

/// # Safety
///
/// Shape and strides are of `ndim` elements, or null.
unsafe fn of_dlpack(tensor: &DlTensor, origin: Origin) -> PyResult<View> {
    let device = device_of(tensor.device)?;
    let dtype = dtype_of(tensor.dtype).ok_or_else(|| {
        let DlDataType { code, bits, lanes } = tensor.dtype;
        refused(&format!(
            "DLPack's type {code} of {bits} bits and {lanes} lanes is no type of a parameter"
        ))
    })?;
    let rank = usize::try_from(tensor.ndim).unwrap_or(0);
    let list = |pointer: *const i64| {
        // SAFETY: the caller's promise.
        (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer, rank) })
    };
    let shape = if rank == 0 {
        Some(&[][..])
    } else {
        list(tensor.shape)
    };
    let strides = if rank == 0 { None } else { list(tensor.strides) };
    let shape = to_shape(shape.unwrap_or(&[]).iter().copied())?;
    check_strides(&shape, strides, 1)?;
    Ok(View {
        address: tensor.data.addr() as u64 + tensor.byte_offset,
        facts: Facts { dtype, device, shape },
        origin,
        device_known: true,
    })
}

/// By `__cuda_array_interface__`, version 2 or 3.
fn by_interface(interface: &Bound<'_, PyDict>) -> PyResult<View> {
    let item = |name: &str| {
        let found = interface.get_item(name)?;
        found.ok_or_else(|| refused(&format!("its __cuda_array_interface__ has no `{name}`")))
    };
    let typestr: String = item("typestr")?.extract()?;
    let dtype =
        of_typestr(&typestr).ok_or_else(|| refused(&format!("`{typestr}` is no type of a parameter")))?;
    let (address, _read_only): (u64, bool) = item("data")?.extract()?;
    let shape = item("shape")?;
    let shape = shape
        .cast::<PyTuple>()?
        .iter()
        .map(|n| n.extract::<i64>())
        .collect::<PyResult<Vec<_>>>()?;
    let shape = to_shape(shape.into_iter())?;
    let optional = |name: &str| Ok::<_, PyErr>(interface.get_item(name)?.filter(|value| !value.is_none()));
    if let Some(strides) = optional("strides")? {
        let strides = strides.extract::<Vec<i64>>()?;
        let bytes = i64::try_from(dtype.bytes()).unwrap_or(1);
        check_strides(&shape, Some(&strides), bytes)?;
    }
    let stream: Option<u64> = optional("stream")?.map(|s| s.extract()).transpose()?;
    Ok(View {
        address,
        facts: Facts {
            dtype,
            device: None,
            shape,
        },
        origin: stream.map_or(Origin::Type, Origin::Named),
        device_known: false,
    })
}

fn to_shape(dims: impl Iterator<Item = i64>) -> PyResult<ArrayVec<usize, MAX_RANK>> {
    let mut shape = ArrayVec::new();
    for dim in dims {
        let dim = usize::try_from(dim).map_err(|_| refused("a dimension is negative"))?;
        shape
            .try_push(dim)
            .map_err(|_| refused(&format!("expected at most {MAX_RANK} dimensions")))?;
    }
    Ok(shape)
}

/// Refuses anything but row-major and contiguous. `unit`: the stride of neighbors.
fn check_strides(shape: &[usize], strides: Option<&[i64]>, unit: i64) -> PyResult<()> {
    match strides {
        Some(strides) if !is_contiguous(shape, strides, unit) => Err(refused(&format!(
            "expected contiguous memory, got strides {strides:?} of shape {shape:?}: call .contiguous()"
        ))),
        _ => Ok(()),
    }
}

/// The GPU whose memory it is; `None` of what CUDA manages for all of them.
fn device_of(device: DlDevice) -> PyResult<Option<u32>> {
    match device.kind {
        CUDA => Ok(Some(device.id.unsigned_abs())),
        CUDA_HOST | CUDA_MANAGED => Ok(None),
        1 => Err(refused("expected memory of a GPU, got memory of the CPU")),
        other => Err(refused(&format!(
            "expected memory of a GPU, got DLPack's device type {other}"
        ))),
    }
}

/// The type of a code of `DLPack`. A bool is a byte here.
fn dtype_of(DlDataType { code, bits, lanes }: DlDataType) -> Option<Dtype> {
    match Dtype::of_dlpack(code, bits, lanes)? {
        Dtype::Bool => Some(Dtype::U8),
        other => Some(other),
    }
}

/// The type of numpy's code, little-endian as is every machine that has CUDA.
fn of_typestr(text: &str) -> Option<Dtype> {
    let text = text.strip_prefix(['<', '|', '='])?;
    Some(match text {
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" | "b1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => return None,
    })
}

fn refused(why: &str) -> PyErr {
    PyTypeError::new_err(why.to_owned())
}

/// Whether an object may be a tensor at all, for choosing between tensor and number.
pub(crate) fn is_number(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyInt>() || object.is_instance_of::<PyFloat>()
}

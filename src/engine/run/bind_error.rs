//! Why values cannot be bound to a kernel, by parameter.

use cudarc::driver::{result, sys};

use crate::engine::request::dtype::Dtype;
use crate::engine::run::device::DeviceError;

/// Why values cannot be bound to a kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no such entry point.
    #[error("{family} has no entry point `{entry}`{hint}")]
    NoEntry {
        /// The family.
        family: String,
        /// What was asked for.
        entry: String,
        /// A suggestion, or nothing.
        hint: String,
    },
    /// The family does not say what the entry point takes.
    #[error("{family}: `{entry}` declares no parameters: add [[entries.parameters]] to its TOML")]
    Undeclared {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
    },
    /// Entry points that take different lists are bound together.
    #[error("{family}: `{entry}` and `{other}` take different parameters: bind them one by one")]
    DifferentLists {
        /// The family.
        family: String,
        /// The first entry point.
        entry: String,
        /// One that differs.
        other: String,
    },
    /// Nobody declares this parameter.
    #[error("{family}: `{entry}` has no parameter `{parameter}`{hint}: it takes {known}")]
    Unknown {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// The parameter that was set.
        parameter: String,
        /// A suggestion, or nothing.
        hint: String,
        /// Every parameter.
        known: String,
    },
    /// A launch size.
    #[error("{family}: `{entry}`: launch size `{size}`: {reason}")]
    Size {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// Name of the launch size.
        size: String,
        /// What is wrong.
        reason: String,
    },
    /// A parameter's value.
    #[error("{family}: `{entry}`: parameter `{parameter}`: {mismatch}")]
    Parameter {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// The parameter.
        parameter: String,
        /// What is wrong.
        mismatch: Box<Mismatch>,
    },
    /// The values of one kernel are to be another's, of which something that a launch is
    /// given may be different.
    #[error(
        "{of}: its values are no values of {other}: expected a variant of the same family and context that \
             differs by constants with `general` values alone"
    )]
    OtherKernel {
        /// The kernel that was bound: its family and constants.
        of: String,
        /// The other one.
        other: String,
    },
    /// The kernel's context could not be made current.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What is wrong with a parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// No value.
    #[error("expected {expected}, got nothing")]
    Missing {
        /// As declared.
        expected: String,
    },
    /// Two values.
    #[error("it is given twice")]
    Twice,
    /// It is not for the caller to give.
    #[error("it is launch size `{0}`, which every launch gives")]
    LaunchSize(String),
    /// A scalar for a pointer.
    #[error("expected {expected}, got a scalar")]
    NotPointer {
        /// As declared.
        expected: String,
    },
    /// Something else than bytes, or another number of them.
    #[error("expected {expected}, got {found}")]
    Bytes {
        /// As declared.
        expected: String,
        /// What was given, for people: `24 bytes`.
        found: String,
    },
    /// A pointer for a scalar.
    #[error("expected a scalar of type {0}, got a tensor")]
    NotScalar(Dtype),
    /// Another type.
    #[error("expected {expected}, got {found}")]
    Dtype {
        /// As declared.
        expected: Dtype,
        /// As given.
        found: Dtype,
    },
    /// The null pointer where memory is needed.
    #[error("expected {expected}, got null")]
    Null {
        /// As declared.
        expected: String,
    },
    /// Another shape.
    #[error("expected {expected}, got {found}")]
    Shape {
        /// Type and dimensions for the bound launch sizes.
        expected: String,
        /// The tensor.
        found: String,
    },
    /// Too few elements.
    #[error("expected {expected}, {needed} elements, got {}", elements(*found))]
    Length {
        /// Type and dimensions for the bound launch sizes.
        expected: String,
        /// Elements that are needed.
        needed: u64,
        /// Elements that there are, where that is known.
        found: Option<usize>,
    },
    /// It starts in the middle of what is read at once.
    #[error("expected an address aligned to {needed} bytes, got {address:#x}")]
    Alignment {
        /// Bytes.
        needed: u32,
        /// Where it starts.
        address: sys::CUdeviceptr,
    },
    /// Memory of another GPU.
    #[error("expected memory of GPU {expected}, got memory of GPU {found}")]
    OtherDevice {
        /// The kernel's.
        expected: u32,
        /// The memory's.
        found: u32,
    },
    /// Memory of another context.
    #[error("it was allocated in another context than the kernel's")]
    OtherContext,
    /// Not memory that the driver knows.
    #[error("{address:#x} is not memory that a GPU can reach ({reason:?})")]
    NoMemory {
        /// The address.
        address: sys::CUdeviceptr,
        /// The driver's word.
        reason: result::DriverError,
    },
    /// The declaration itself does not come out.
    #[error("its declaration: {0}")]
    Declaration(String),
}

fn elements(found: Option<usize>) -> String {
    found.map_or_else(|| "memory of unknown length".into(), |count| count.to_string())
}

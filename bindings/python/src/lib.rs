//! jitc for Python: the module `jitc._jitc`.
//!
//! Invariant: importing it defines classes, and does nothing else: no file, no driver, no
//! thread. Unsafe is what reads others' structs and what launches.

mod call;
mod decode;
mod errors;
mod events;
mod fleet;
mod foreign;
mod jit;
mod kernel;
mod reports;
mod scalars;
mod settings;
mod source;
mod stream;
mod tensors;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _jitc {
    /// Whether the compiler optimized it: a wheel of the dev profile is ten times slower.
    #[pymodule_export]
    const OPTIMIZED: bool = !cfg!(debug_assertions);

    /// Whether it knows stores that a fleet shares.
    #[pymodule_export]
    const REMOTE: bool = cfg!(feature = "remote");

    #[pymodule_export]
    use crate::decode::{choose, layer_facts, pack_weight, run_sample, sample};
    #[pymodule_export]
    use crate::events::Event;
    #[pymodule_export]
    use crate::fleet::{Pulled, Pushed};
    #[pymodule_export]
    use crate::foreign::ForeignCache;
    #[pymodule_export]
    use crate::jit::PyJit;
    #[pymodule_export]
    use crate::kernel::{Kernel, Prebound};
    #[pymodule_export]
    use crate::reports::{Report, Variant, Why};
    #[pymodule_export]
    use crate::source::Source;
}

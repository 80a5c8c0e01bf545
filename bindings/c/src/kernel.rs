//! Kernels, of a family or of a text: requests that are found or compiled.
//!
//! Invariant: what a kernel gives out stays where it is until the kernel is freed.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use jitc::engine::cache::Provenance;
use jitc::engine::jit::{Error, Prepared};
use jitc::engine::request::spec::{KernelSpec, parse_archs};
use jitc::engine::request::target::Arch;

use crate::engine::{Engine, Shared, usual};
use crate::error::{Failure, Status, guard, text};
use crate::input::{self, HasSize};
use crate::run::Loaded;

/// A kernel that is a text. All pointers are read during `jitc_source` alone.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// `sizeof(jitc_source_text)`.
    pub size: usize,
    /// CUDA C++, as NVRTC compiles it.
    pub text: *const c_char,
    /// What messages and the cache call it: letters, digits, `_` and `-`. NULL: `source`.
    pub name: *const c_char,
    /// Names of its kernels that are wanted, at least one: `extern "C"` ones, or those
    /// that are given to `expressions`.
    pub entries: *const *const c_char,
    /// For each entry its name in C++, `ns::scale<float, 8>`, or NULL for an `extern "C"`
    /// one. NULL where all are `extern "C"`.
    pub expressions: *const *const c_char,
    /// How many entries there are.
    pub entry_count: usize,
    /// Macros, each `NAME=VALUE`, or `NAME` for 1.
    pub defines: *const *const c_char,
    /// How many macros there are.
    pub define_count: usize,
    /// Headers, by the names under which they are included.
    pub header_names: *const *const c_char,
    /// Their texts, in the same order.
    pub header_texts: *const *const c_char,
    /// How many headers there are.
    pub header_count: usize,
    /// Header sets of jitc's own: `cuda`, `curand`, `std`.
    pub header_sets: *const *const c_char,
    /// How many header sets there are.
    pub header_set_count: usize,
    /// Compiler options, of those that a family may have.
    pub options: *const *const c_char,
    /// How many options there are.
    pub option_count: usize,
    /// What to compile for, `sm_90a`. NULL: the settings', else what the first GPU is, else
    /// the first of the usual ones.
    pub arch: *const c_char,
    /// Threads of a block in x, y and z; all 0: 256, 1, 1.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes a block.
    pub shared_mem_bytes: u32,
    /// Not 0: launches are cooperative.
    pub cooperative: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: plain, its size first, and null and 0 are values of every member.
unsafe impl HasSize for Source {
    const NAME: &str = "jitc_source_text";
}

/// A kernel: what to compile, for one arch; its code once that is there; and where it is
/// loaded, if it is.
pub struct Kernel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) spec: KernelSpec,
    key: OnceLock<CString>,
    prepared: OnceLock<Prepared>,
    pub(crate) loaded: OnceLock<Loaded>,
}

impl Kernel {
    fn new(shared: &Arc<Shared>, spec: KernelSpec) -> Box<Self> {
        Box::new(Self {
            shared: Arc::clone(shared),
            spec,
            key: OnceLock::new(),
            prepared: OnceLock::new(),
            loaded: OnceLock::new(),
        })
    }

    /// Its code, found or compiled once.
    pub(crate) fn prepared(&self) -> Result<&Prepared, Failure> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared);
        }
        let prepared = self.shared.jit.prepare(&self.spec)?;
        Ok(self.prepared.get_or_init(|| prepared))
    }

    fn key(&self) -> Result<&CString, Failure> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let (request, _) = self.shared.jit.describe(&self.spec)?;
        Ok(self.key.get_or_init(|| text(&request.key().to_string())))
    }
}

impl Shared {
    /// The one variant of a family that these constants mean.
    fn family(&self, family: &str, constants: &[&str], arch: Option<&str>) -> Result<KernelSpec, Failure> {
        let config = self.config(constants, arch)?;
        let registry = self.jit.registry();
        let selection = registry
            .select(&[family.to_owned()], &config)
            .map_err(Error::from)?;
        let first = usual(&config)?.first().copied().into_iter().collect();
        let mut specs = selection.specs(&config, || first).map_err(Error::from)?;
        match specs.len() {
            1 => Ok(specs.swap_remove(0)),
            several => Err(Failure::request(format!(
                "{family}: these constants are those of {several} variants: give one value for each, and one arch"
            ))),
        }
    }

    /// The one arch of a source.
    fn arch(&self, arch: Option<&str>) -> Result<Arch, Failure> {
        let config = self.config(&[], arch)?;
        let Some(named) = config.arch() else {
            let usual = usual(&config)?;
            return usual.first().copied().ok_or_else(|| Failure::request("no arch"));
        };
        match parse_archs(&named).map_err(Error::from)?[..] {
            [arch] => Ok(arch),
            _ => Err(Failure::request(format!(
                "`{}`: a source is compiled for one arch",
                named.value
            ))),
        }
    }

    /// # Safety
    ///
    /// As [`jitc_source`] demands of its source.
    unsafe fn source(&self, source: &Source) -> Result<KernelSpec, Failure> {
        // SAFETY: the caller's promise, here and below.
        let list = |row, count, what| unsafe { input::texts(row, count, what) };
        // SAFETY: as above.
        let word = |pointer, what| unsafe { input::optional(pointer, what) };
        // SAFETY: as above.
        let code = unsafe { input::text(source.text, "text")? };
        let mut kernel = self.jit.source(code);
        if let Some(name) = word(source.name, "name")? {
            kernel = kernel.name(name);
        }
        let entries = list(source.entries, source.entry_count, "entries")?;
        let expressions = if source.expressions.is_null() {
            vec![None; entries.len()]
        } else {
            // SAFETY: as above.
            let row = unsafe { input::row(source.expressions, entries.len(), "expressions")? };
            let all = row.iter().map(|one| word(*one, "an expression"));
            all.collect::<Result<_, _>>()?
        };
        for (name, expression) in entries.into_iter().zip(expressions) {
            kernel = match expression {
                Some(expression) => kernel.expression(name, expression),
                None => kernel.entry(name),
            };
        }
        for define in list(source.defines, source.define_count, "defines")? {
            let (name, value) = define.split_once('=').unwrap_or((define, "1"));
            kernel = kernel.define(name, value);
        }
        let names = list(source.header_names, source.header_count, "header_names")?;
        let texts = list(source.header_texts, source.header_count, "header_texts")?;
        for (name, text) in names.into_iter().zip(texts) {
            kernel = kernel.header(name, text);
        }
        for set in list(source.header_sets, source.header_set_count, "header_sets")? {
            kernel = kernel.use_set(set);
        }
        for option in list(source.options, source.option_count, "options")? {
            kernel = kernel.option(option);
        }
        if source.block != [0; 3] {
            kernel = kernel.block_of(source.block);
        }
        if source.cooperative != 0 {
            kernel = kernel.cooperative();
        }
        let arch = self.arch(word(source.arch, "arch")?)?;
        Ok(kernel.shared_mem_bytes(source.shared_mem_bytes).spec(arch)?)
    }
}

/// A kernel of a family: one variant for one arch. Compiles nothing yet.
///
/// `family`: its name.
/// `constants`: `count` texts `name=value`; the others have their defaults. NULL where
/// `count` is 0.
/// `arch`: what to compile for, `sm_90a`. NULL: the settings', else what the first GPU is, else
/// the first of the usual ones.
/// `kernel`: where it goes; the caller's, to be given to `jitc_free`.
///
/// # Safety
///
/// Pointers are NULL or as said here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_family(
    engine: *const Engine,
    family: *const c_char,
    constants: *const *const c_char,
    count: usize,
    arch: *const c_char,
    kernel: *mut *mut Kernel,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let room = unsafe { input::room(kernel, "kernel")? }.write(ptr::null_mut());
        // SAFETY: as above.
        let shared = &unsafe { input::given(engine, "engine")? }.shared;
        // SAFETY: as above.
        let family = unsafe { input::text(family, "family")? };
        // SAFETY: as above.
        let constants = unsafe { input::texts(constants, count, "constants")? };
        // SAFETY: as above.
        let arch = unsafe { input::optional(arch, "arch")? };
        let spec = shared.family(family, &constants, arch)?;
        *room = Box::into_raw(Kernel::new(shared, spec));
        Ok(())
    })
}

/// A kernel of a text. Compiles nothing yet.
///
/// `source`: the text and what goes with it.
/// `kernel`: where it goes; the caller's, to be given to `jitc_free`.
///
/// # Safety
///
/// Pointers are NULL or as said here and in `jitc_source_text`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_source(
    engine: *const Engine,
    source: *const Source,
    kernel: *mut *mut Kernel,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let room = unsafe { input::room(kernel, "kernel")? }.write(ptr::null_mut());
        // SAFETY: as above.
        let shared = &unsafe { input::given(engine, "engine")? }.shared;
        // SAFETY: as above.
        let source = unsafe { input::sized(source)? };
        // SAFETY: as above.
        let spec = unsafe { shared.source(&source)? };
        *room = Box::into_raw(Kernel::new(shared, spec));
        Ok(())
    })
}

/// Frees a kernel, and what it gave out: key and machine code. Where it was launched its
/// code stays on the GPU until the context ends, as a launch may still be running.
///
/// `kernel`: of `jitc_family` or `jitc_source`, and not used from here on; NULL does nothing.
///
/// # Safety
///
/// `kernel` is NULL, or a kernel that is freed for the first time and that no other thread
/// uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_free(kernel: *mut Kernel) {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { input::end(kernel) };
        Ok(())
    });
}

/// The key: SHA-256 of all that the compiler sees, 64 hex digits. Compiles nothing.
///
/// `key`: where it goes; the kernel's, good until that is freed.
///
/// # Safety
///
/// Pointers are NULL, a kernel, and room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_key(kernel: *const Kernel, key: *mut *const c_char) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let room = unsafe { input::room(key, "key")? }.write(ptr::null());
        // SAFETY: as above.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        *room = kernel.key()?.as_ptr();
        Ok(())
    })
}

/// Finds the kernel's code in the cache, or compiles and keeps it. Needs no GPU. A kernel
/// that has its code is left as it is.
///
/// `outcome`: where it is said how it came, a text that stays: `hit`, `compatible`, `built`, or
/// `built_uncached` where the cache could not keep it. NULL where that is of no interest.
///
/// # Safety
///
/// Pointers are NULL, a kernel, and room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_prepare(kernel: *const Kernel, outcome: *mut *const c_char) -> Status {
    guard(|| {
        if !outcome.is_null() {
            // SAFETY: the caller's promise, here and below.
            unsafe { outcome.write(ptr::null()) };
        }
        // SAFETY: as above.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        let said = match kernel.prepared()?.fetched.provenance {
            Provenance::Hit(_) => c"hit",
            Provenance::Compatible { .. } => c"compatible",
            Provenance::Built => c"built",
            Provenance::BuiltUncached(_) => c"built_uncached",
        };
        if !outcome.is_null() {
            // SAFETY: as above.
            unsafe { outcome.write(said.as_ptr()) };
        }
        Ok(())
    })
}

/// The machine code, an ELF image for one arch, found or compiled if need be.
///
/// `bytes`: where its address goes; the kernel's, good until that is freed.
/// `count`: where the number of bytes goes.
///
/// # Safety
///
/// Pointers are NULL, a kernel, and room for an answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_cubin(
    kernel: *const Kernel,
    bytes: *mut *const c_void,
    count: *mut usize,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let bytes = unsafe { input::room(bytes, "bytes")? }.write(ptr::null());
        // SAFETY: as above.
        let count = unsafe { input::room(count, "count")? }.write(0);
        // SAFETY: as above.
        let kernel = unsafe { input::given(kernel, "kernel")? };
        let cubin = &kernel.prepared()?.fetched.artifact.cubin;
        *bytes = cubin.as_ptr().cast();
        *count = cubin.len();
        Ok(())
    })
}

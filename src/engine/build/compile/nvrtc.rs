//! NVRTC, bound by hand from the very files whose identity is in the key. All
//! of its unsafe code is here.
//!
//! cudarc would look the library up by name and might open another file than the
//! one that was identified; its types are used, its loader is not.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::time::Instant;

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use super::diagnostics::first_error;
use super::{CompileError, clock};
use crate::engine::build::artifact::{Artifact, Resources, name_entries, parse_ptxas_report};
use crate::engine::build::image;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::Toolchain;
use crate::engine::request::header_set::SetUse;

type Create = unsafe extern "C" fn(
    *mut nvrtcProgram,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> nvrtcResult;
type Compile = unsafe extern "C" fn(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult;
type Destroy = unsafe extern "C" fn(*mut nvrtcProgram) -> nvrtcResult;
type Size = unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult;
type Bytes = unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult;
type AddName = unsafe extern "C" fn(nvrtcProgram, *const c_char) -> nvrtcResult;
type LoweredName = unsafe extern "C" fn(nvrtcProgram, *const c_char, *mut *const c_char) -> nvrtcResult;
type Ints = unsafe extern "C" fn(*mut c_int) -> nvrtcResult;
type ErrorText = unsafe extern "C" fn(nvrtcResult) -> *const c_char;

/// An opened NVRTC. Compiles from several threads at once.
#[derive(Debug)]
pub struct Nvrtc {
    create: Symbol<Create>,
    compile: Symbol<Compile>,
    destroy: Symbol<Destroy>,
    cubin_size: Symbol<Size>,
    cubin: Symbol<Bytes>,
    ptx_size: Symbol<Size>,
    ptx: Symbol<Bytes>,
    log_size: Symbol<Size>,
    log: Symbol<Bytes>,
    error_text: Symbol<ErrorText>,
    add_name: Symbol<AddName>,
    lowered_name: Symbol<LoweredName>,
    arch_count: Symbol<Ints>,
    archs: Symbol<Ints>,
    // Last, so that symbols are dropped first. libnvrtc finds its builtins by
    // soname: they are opened before it and stay open.
    _libraries: [Library; 2],
}

impl Nvrtc {
    /// Opens the toolchain's libraries.
    pub fn open(toolchain: &Toolchain) -> Result<Self, CompileError> {
        alone(&toolchain.builtins)?;
        let builtins = open(&toolchain.builtins)?;
        let (nvrtc, stopped) = clock::stop(open(&toolchain.nvrtc)?);
        if !stopped {
            return Err(CompileError::Library(format!(
                "{}: its clock cannot be stopped, so that the time of a compile could get into the code",
                toolchain.nvrtc.display()
            )));
        }
        Ok(Self {
            create: symbol(&nvrtc, c"nvrtcCreateProgram")?,
            compile: symbol(&nvrtc, c"nvrtcCompileProgram")?,
            destroy: symbol(&nvrtc, c"nvrtcDestroyProgram")?,
            cubin_size: symbol(&nvrtc, c"nvrtcGetCUBINSize")?,
            cubin: symbol(&nvrtc, c"nvrtcGetCUBIN")?,
            ptx_size: symbol(&nvrtc, c"nvrtcGetPTXSize")?,
            ptx: symbol(&nvrtc, c"nvrtcGetPTX")?,
            log_size: symbol(&nvrtc, c"nvrtcGetProgramLogSize")?,
            log: symbol(&nvrtc, c"nvrtcGetProgramLog")?,
            error_text: symbol(&nvrtc, c"nvrtcGetErrorString")?,
            add_name: symbol(&nvrtc, c"nvrtcAddNameExpression")?,
            lowered_name: symbol(&nvrtc, c"nvrtcGetLoweredName")?,
            arch_count: symbol(&nvrtc, c"nvrtcGetNumSupportedArchs")?,
            archs: symbol(&nvrtc, c"nvrtcGetSupportedArchs")?,
            _libraries: [nvrtc, builtins],
        })
    }

    /// The numbers of the archs that it makes code for, 90 for `sm_90` and `sm_90a`.
    pub fn archs(&self) -> Result<Vec<u32>, CompileError> {
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        self.check(unsafe { (self.arch_count)(&raw mut count) })?;
        let mut archs: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for as many as the library says there are.
        self.check(unsafe { (self.archs)(archs.as_mut_ptr()) })?;
        Ok(archs.into_iter().map(c_int::unsigned_abs).collect())
    }

    fn check(&self, result: nvrtcResult) -> Result<(), CompileError> {
        if result == nvrtcResult::NVRTC_SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any status and returns a static string.
        let text = unsafe { (self.error_text)(result) };
        // SAFETY: NVRTC's error strings are static and NUL-terminated.
        let text = unsafe { CStr::from_ptr(text) };
        Err(CompileError::Library(text.to_string_lossy().into_owned()))
    }

    fn read(
        &self,
        program: &Program<'_>,
        size: &Symbol<Size>,
        bytes: &Symbol<Bytes>,
    ) -> Result<Vec<u8>, CompileError> {
        let mut length = 0;
        // SAFETY: the program is alive and `length` outlives the call.
        self.check(unsafe { size(program.handle, &raw mut length) })?;
        let mut out = vec![0_u8; length];
        // SAFETY: the buffer has exactly the length that NVRTC asked for.
        self.check(unsafe { bytes(program.handle, out.as_mut_ptr().cast()) })?;
        Ok(out)
    }
}

impl Nvrtc {
    /// Compiles; the program that holds the results, and the log.
    fn run(&self, rendered: &RenderedSource) -> Result<(Program<'_>, String), CompileError> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| CompileError::Library(format!("a NUL byte in {}", rendered.name)))
        };
        let list = |texts: &mut dyn Iterator<Item = &str>| texts.map(text).collect::<Result<Vec<_>, _>>();
        let source = text(&rendered.source)?;
        let name = text(&rendered.name)?;
        let names = list(&mut rendered.headers.iter().map(|h| h.0.as_str()))?;
        let headers = list(&mut rendered.headers.iter().map(|h| &*h.1))?;
        let given = given(&rendered.sets, names.iter().zip(&headers))?;
        let options = list(&mut rendered.options.iter().map(String::as_str))?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let count = |n: usize| c_int::try_from(n).map_err(|e| CompileError::Library(e.to_string()));

        let mut program = Program {
            nvrtc: self,
            handle: std::ptr::null_mut(),
        };
        let (name_pointers, header_pointers): (Vec<_>, Vec<_>) = given
            .iter()
            .map(|(name, text)| (name.as_ptr(), text.as_ptr()))
            .unzip();
        // SAFETY: all strings are NUL-terminated and outlive the call, and the two
        // arrays have as many elements as is said.
        self.check(unsafe {
            (self.create)(
                &raw mut program.handle,
                source.as_ptr(),
                name.as_ptr(),
                count(given.len())?,
                header_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        })?;
        for (_, expression) in &rendered.expressions {
            let expression = text(expression)?;
            // SAFETY: the program is alive, and the string NUL-terminated; it is copied.
            self.check(unsafe { (self.add_name)(program.handle, expression.as_ptr()) })?;
        }
        let option_pointers = pointers(&options);
        // SAFETY: the program is alive; the options as above.
        let compiled =
            unsafe { (self.compile)(program.handle, count(options.len())?, option_pointers.as_ptr()) };
        let mut log = self.read(&program, &self.log_size, &self.log)?;
        log.retain(|b| *b != 0);
        let log = String::from_utf8_lossy(&log).into_owned();
        let exhausted =
            compiled != nvrtcResult::NVRTC_SUCCESS && log.contains("catastrophic error: out of memory");
        if exhausted || compiled == nvrtcResult::NVRTC_ERROR_OUT_OF_MEMORY {
            return Err(CompileError::OutOfMemory { limit: None });
        }
        if compiled == nvrtcResult::NVRTC_ERROR_COMPILATION
            || compiled == nvrtcResult::NVRTC_ERROR_INVALID_OPTION
        {
            return Err(CompileError::Refused {
                first: first_error(&log),
                log,
            });
        }
        self.check(compiled)?;
        Ok((program, log))
    }
}

/// All headers of a compile: its own, and those of its sets. Of several by the same name
/// the first is given, as the first folder of a search path has it.
fn given<'a>(
    sets: &'a [SetUse],
    own: impl Iterator<Item = (&'a CString, &'a CString)>,
) -> Result<Vec<(&'a CStr, &'a CStr)>, CompileError> {
    let mut all: Vec<(&CStr, &CStr)> = own
        .map(|(name, text)| (name.as_c_str(), text.as_c_str()))
        .collect();
    let mut names: HashSet<&CStr> = all.iter().map(|(name, _)| *name).collect();
    for used in sets {
        let missing = || CompileError::Library(format!("header set `{}` was not read", used.name));
        let set = used.set.as_ref().ok_or_else(missing)?;
        all.extend(set.files().filter(|(name, _)| names.insert(name)));
    }
    Ok(all)
}

impl Nvrtc {
    /// What the entry points that C++ names are called in the cubin, by declared name.
    fn lowered(
        &self,
        program: &Program<'_>,
        rendered: &RenderedSource,
    ) -> Result<Vec<(String, String)>, CompileError> {
        let lowered = rendered.expressions.iter().map(|(entry, expression)| {
            let expression = CString::new(expression.as_str())
                .map_err(|_| CompileError::Library(format!("a NUL byte in the expression of {entry}")))?;
            let mut name: *const c_char = std::ptr::null();
            // SAFETY: the program is alive and compiled; `name` outlives the call.
            self.check(unsafe { (self.lowered_name)(program.handle, expression.as_ptr(), &raw mut name) })?;
            if name.is_null() {
                return Err(CompileError::Library(format!("it names no kernel for {entry}")));
            }
            // SAFETY: a NUL-terminated string of the program's, which lives.
            let name = unsafe { CStr::from_ptr(name) };
            Ok((entry.clone(), name.to_string_lossy().into_owned()))
        });
        lowered.collect()
    }

    /// Compiles one source on this thread.
    pub(super) fn compile(&self, rendered: &RenderedSource) -> Result<Artifact, CompileError> {
        let started = Instant::now();
        let (program, log) = self.run(rendered)?;
        if rendered.options.iter().any(|option| option.starts_with(VIRTUAL)) {
            let mut ptx = self.read(&program, &self.ptx_size, &self.ptx)?;
            ptx.retain(|b| *b != 0);
            return of_ptx(ptx, log, started, &self.lowered(&program, rendered)?);
        }
        let cubin = self.read(&program, &self.cubin_size, &self.cubin)?;
        let mut resources = parse_ptxas_report(&log);
        name_entries(&mut resources, &self.lowered(&program, rendered)?);
        // A source without kernels has none to report, and is refused by its name.
        let has_kernels = image::read(&cubin).map_or(true, |image| !image.entries.is_empty());
        if resources.is_empty() && has_kernels {
            return Err(CompileError::Library("the log has no ptxas report".into()));
        }
        Ok(Artifact {
            cubin,
            resources,
            compile_log: log,
            compile_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// The PTX of one source.
    pub(super) fn ptx(&self, rendered: &RenderedSource) -> Result<String, CompileError> {
        let (program, _) = self.run(rendered)?;
        let mut ptx = self.read(&program, &self.ptx_size, &self.ptx)?;
        ptx.retain(|b| *b != 0);
        Ok(String::from_utf8_lossy(&ptx).into_owned())
    }
}

/// What a virtual arch comes to: no register is given out before the driver compiles it.
fn of_ptx(
    ptx: Vec<u8>,
    compile_log: String,
    started: Instant,
    named: &[(String, String)],
) -> Result<Artifact, CompileError> {
    let image = image::read(&ptx).map_err(|refused| CompileError::Library(refused.into()))?;
    let unknown = |entry: String| Resources {
        entry,
        ..Resources::default()
    };
    let mut resources = image.entries.into_iter().map(unknown).collect();
    name_entries(&mut resources, named);
    Ok(Artifact {
        cubin: ptx,
        resources,
        compile_log,
        compile_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
    })
}

/// The option of a virtual arch begins like this.
const VIRTUAL: &str = "--gpu-architecture=compute_";

/// A program handle that is destroyed whatever happens.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: nvrtcProgram,
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle came from nvrtcCreateProgram and is destroyed once.
            let _ = unsafe { (self.nvrtc.destroy)(&raw mut self.handle) };
        }
    }
}

/// libnvrtc takes its builtins by soname: another one that the host has open already
/// would be used under our key.
fn alone(builtins: &Path) -> Result<(), CompileError> {
    let (Some(soname), Ok(ours)) = (builtins.file_name(), fs_err::canonicalize(builtins)) else {
        return Ok(());
    };
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap_or_default();
    let other = maps
        .lines()
        .filter_map(|line| Some(Path::new(line.get(line.find('/')?..)?)))
        .find(|path| {
            path.file_name() == Some(soname) && fs_err::canonicalize(path).ok().as_ref() != Some(&ours)
        });
    match other {
        None => Ok(()),
        Some(other) => Err(CompileError::Library(format!(
            "{} is open in this process, and would be used in the place of {}: let jitc compile in a process of \
             its own (JITC_PROGRAM)",
            other.display(),
            builtins.display()
        ))),
    }
}

fn open(path: &Path) -> Result<Library, CompileError> {
    // SAFETY: NVRTC's libraries have no initializers that rely on the caller.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| {
        // The loader's own words are the error's source; they begin with the path.
        let words = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        CompileError::Library(words)
    })
}

fn symbol<T>(library: &Library, name: &CStr) -> Result<Symbol<T>, CompileError> {
    // SAFETY: the types above are those of nvrtc.h.
    unsafe { library.get(name.to_bytes_with_nul()) }.map_err(|e| CompileError::Library(e.to_string()))
}

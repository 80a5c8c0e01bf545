//! What machine code says of itself: that it is whole, for which arch, with which entry
//! points, and made by which CUDA.
//!
//! Invariant: nothing is published, and nothing is handed to a driver, that is not a whole
//! ELF image for its arch whose entry points are the declared ones.

use crate::engine::refused::Refused;
use object::Endianness;
use object::elf::{FileHeader64, SHT_NOTE, STT_FUNC, STT_OBJECT};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::ptx::{self, is_ptx};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::{Arch, CudaVersion};
use crate::engine::suggest::did_you_mean;

/// Why machine code is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No cubin, or a part of one.
    #[error("{family}: the machine code is not a whole cubin: {reason}")]
    Broken {
        /// The family.
        family: String,
        /// Why it is not one.
        reason: String,
    },
    /// Made for another arch.
    #[error("{family}: the machine code is for sm_{found}, and {arch} was requested")]
    OtherArch {
        /// The family.
        family: String,
        /// What was asked for.
        arch: Arch,
        /// Its number in the cubin.
        found: u32,
    },
    /// A declared entry point that the source does not define.
    #[error("{family}: the source defines no kernel `{entry}`{hint}")]
    NoEntry {
        /// The family.
        family: String,
        /// The declared name.
        entry: String,
        /// What was probably meant, and what there is.
        hint: String,
    },
    /// A kernel of the source that the family does not declare.
    #[error(
        "{family}: the source defines the kernel `{entry}`, which the family does not declare{hint}: \
         give it an [[entries]], make it a __device__ function, or set other_kernels = true"
    )]
    Undeclared {
        /// The family.
        family: String,
        /// Its name in the cubin.
        entry: String,
        /// What was probably meant, or nothing.
        hint: String,
    },
}

/// `e_machine` of code for NVIDIA's GPUs.
const EM_CUDA: u16 = 190;
/// Bit of a symbol's `st_other`: a kernel, as opposed to a function that kernels call.
const STO_CUDA_ENTRY: u8 = 0x10;
/// The note that names the CUDA version: u16 2, u16 arch, u16 ten times the version.
const CUINFO: &[u8] = b".note.nv.cuinfo";

/// What was read of a cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// Names of the kernels, in the order of the symbol table.
    pub entries: Vec<String>,
    /// The number of the arch; `None` where this way of writing it is not known.
    pub arch: Option<u32>,
    /// Whether it is PTX, which the driver compiles.
    pub is_ptx: bool,
}

/// Reads what a compile made: a cubin, or PTX. The text says why it is neither.
pub fn read(code: &[u8]) -> Result<Image, Refused> {
    if !is_ptx(code) {
        return Ok(read_cubin(code)?);
    }
    let ptx = ptx::read(code)?;
    Ok(Image {
        entries: ptx.entries.into_iter().map(|(name, _)| name).collect(),
        arch: Some(ptx.arch),
        is_ptx: true,
    })
}

/// Reads a cubin: all of its sections and segments lie inside it, and it is for a GPU. The
/// text says why it is none.
fn read_cubin(cubin: &[u8]) -> Result<Image, String> {
    let header = FileHeader64::<Endianness>::parse(cubin).map_err(|e| lower(&e.to_string()))?;
    let endian = header.endian().map_err(|e| lower(&e.to_string()))?;
    let machine = header.e_machine(endian).0;
    if machine != EM_CUDA {
        return Err(format!("its machine is {machine}, and a GPU's is {EM_CUDA}"));
    }
    let sections = (header.sections(endian, cubin)).map_err(|e| lower(&e.to_string()))?;
    for section in sections.iter() {
        let name = sections.section_name(endian, section).unwrap_or_default();
        if section.data(endian, cubin).is_err() {
            let name = String::from_utf8_lossy(name);
            return Err(format!("section `{name}` reaches over its end"));
        }
    }
    let segments = (header.program_headers(endian, cubin)).map_err(|e| lower(&e.to_string()))?;
    if let Some(at) = segments.iter().position(|s| s.data(endian, cubin).is_err()) {
        return Err(format!("segment {at} reaches over its end"));
    }
    let symbols = sections
        .symbols(endian, cubin, object::elf::SHT_SYMTAB)
        .map_err(|e| lower(&e.to_string()))?;
    let mut entries = Vec::new();
    for symbol in symbols.iter() {
        let kernel = symbol.st_type() == STT_FUNC && symbol.st_other().0 & STO_CUDA_ENTRY != 0;
        if kernel && !symbol.is_undefined(endian) {
            let name = symbol.name(endian, symbols.strings());
            let name = name.map_err(|e| lower(&e.to_string()))?;
            entries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    let flags = header.e_flags(endian).0;
    let arch = match header.e_ident().abi_version {
        7 => Some(flags & 0xff),
        8 => Some((flags >> 8) & 0xff),
        // A later compiler's: the driver knows.
        _ => None,
    };
    Ok(Image {
        entries,
        arch,
        is_ptx: false,
    })
}

/// Checks the machine code of an artifact before it is published or loaded.
pub fn check_named(spec: &KernelSpec, artifact: &Artifact) -> Result<(), ImageError> {
    check_all(spec, &artifact.cubin, &|entry| artifact.symbol(entry).to_owned())
}

/// Checks machine code whose entry points have the names that are declared.
pub fn check(spec: &KernelSpec, cubin: &[u8]) -> Result<(), ImageError> {
    check_all(spec, cubin, &str::to_owned)
}

fn check_all(spec: &KernelSpec, cubin: &[u8], symbol: &dyn Fn(&str) -> String) -> Result<(), ImageError> {
    let family = || spec.family().name.clone();
    let broken = |reason| ImageError::Broken {
        family: family(),
        reason,
    };
    if is_ptx(cubin) != spec.arch().is_ptx() {
        let is = if is_ptx(cubin) { "PTX" } else { "no PTX" };
        return Err(broken(format!("it is {is}, and {} was requested", spec.arch())));
    }
    let image = read(cubin).map_err(|refused| broken(refused.into()))?;
    if let Some(found) = image.arch
        && found != u32::from(spec.arch().number())
    {
        return Err(ImageError::OtherArch {
            family: family(),
            arch: spec.arch(),
            found,
        });
    }
    let has = |name: &str| image.entries.iter().any(|entry| entry == name);
    if let Some(missing) = spec.entries().find(|entry| !has(&symbol(&entry.name))) {
        return Err(ImageError::NoEntry {
            family: family(),
            entry: missing.name.clone(),
            hint: meant(&missing.name, &image.entries),
        });
    }
    // One that is declared and left out by a constant may be compiled all the same.
    let declared = || spec.family().entries.iter().map(|entry| entry.name.as_str());
    let is_declared = |name: &String| declared().any(|declared| symbol(declared) == *name);
    if spec.family().other_kernels {
        return Ok(());
    }
    if let Some(extra) = image.entries.iter().find(|name| !is_declared(name)) {
        return Err(ImageError::Undeclared {
            family: family(),
            entry: extra.clone(),
            hint: did_you_mean(extra, declared()),
        });
    }
    Ok(())
}

/// What a declared name was probably meant to be, of the names that there are.
fn meant(name: &str, entries: &[String]) -> String {
    let length_and_name = format!("{}{name}", name.len());
    if let Some(mangled) = entries
        .iter()
        .find(|e| is_mangled(e) && e.contains(&length_and_name))
    {
        return format!(", but `{mangled}`: write extern \"C\" before __global__");
    }
    let names = || entries.iter().map(String::as_str);
    let near = did_you_mean(name, names());
    match (near.is_empty(), entries.is_empty()) {
        (false, _) => near,
        (true, true) => ": it defines none; the instance of a template is named by `expression`".to_owned(),
        (true, false) => format!(": it defines {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// Whether a name is a C++ function's, with its types in it.
fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z")
}

/// The variables that a host can name, and their bytes: `__constant__` and `__device__` ones
/// of the cubin's symbol table, which are local ones in code that is compiled whole. Of what
/// is no cubin, none.
#[must_use]
pub fn variables(cubin: &[u8]) -> Vec<(String, u64)> {
    if is_ptx(cubin) {
        return ptx::read(cubin).map_or_else(|_| Vec::new(), |ptx| ptx.variables);
    }
    let all = || {
        let header = FileHeader64::<Endianness>::parse(cubin).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, cubin).ok()?;
        let symbols = sections.symbols(endian, cubin, object::elf::SHT_SYMTAB).ok()?;
        let named = symbols
            .iter()
            .filter(|symbol| symbol.st_type() == STT_OBJECT && !symbol.is_undefined(endian));
        let variable = |symbol: &object::elf::Sym64<Endianness>| {
            let name = symbol.name(endian, symbols.strings()).ok()?;
            Some((String::from_utf8_lossy(name).into_owned(), symbol.st_size(endian)))
        };
        Some(named.filter_map(variable).collect())
    };
    all().unwrap_or_default()
}

/// The name in machine code of a variable in a namespace: of `a::b`, `_ZN1a1bE`.
#[must_use]
pub fn mangled(name: &str) -> String {
    if !name.contains("::") {
        return name.to_owned();
    }
    let parts = name.split("::").filter(|part| !part.is_empty());
    let parts: String = parts.map(|part| part.len().to_string() + part).collect();
    format!("_ZN{parts}E")
}

/// The CUDA whose compiler made this cubin, where it says so.
#[must_use]
pub fn made_by(cubin: &[u8]) -> Option<CudaVersion> {
    let header = FileHeader64::<Endianness>::parse(cubin).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, cubin).ok()?;
    let (_, section) = sections.section_by_name(endian, CUINFO)?;
    if section.sh_type(endian) != SHT_NOTE {
        return None;
    }
    let note = section.notes(endian, cubin).ok()??.next().ok()??;
    let tenfold = u16::from_le_bytes(note.desc().get(4..6)?.try_into().ok()?);
    Some(CudaVersion {
        major: u32::from(tenfold / 10),
        minor: u32::from(tenfold % 10),
    })
}

/// A library's sentence in the middle of ours.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

//! What a cubin itself says of its kernels' parameters, and whether that is what
//! the family declares.
//!
//! Invariant: a kernel whose parameters differ in number, place or size from the
//! declared ones is refused by name, when it is compiled and when it is loaded.

use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, SectionHeader as _};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::ptx::{self, is_ptx};
use crate::engine::refused::Refused;
use crate::engine::request::signature::Signature;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Place;

/// Why a cubin's parameters are not the declared ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// Not a cubin, or one that does not say what its kernels take.
    #[error("{family}: what the kernels of the cubin take cannot be read: {reason}")]
    Unreadable {
        /// The family.
        family: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// Another number of parameters.
    #[error("{family}: `{entry}`: {declared} parameters are declared, the kernel takes {takes}{names}")]
    Count {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// Declared ones, a struct of all of them counting as one.
        declared: usize,
        /// Those of the kernel.
        takes: usize,
        /// `; not taken: NAMES`, or nothing.
        names: String,
    },
    /// A parameter of another size, or at another place.
    #[error(
        "{family}: `{entry}`: parameter {index} `{name}`: declared {} bytes at {}, the kernel takes {} at {}",
        declared.size, declared.offset, takes.size, takes.offset
    )]
    Differs {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// Which, from 0.
        index: usize,
        /// Its declared name, or the struct's.
        name: String,
        /// As declared.
        declared: Place,
        /// As the kernel has it.
        takes: Place,
    },
}

/// Section of an entry point's attributes, before its name.
const SECTION: &str = ".nv.info.";
/// An attribute whose payload stands behind its head, as opposed to in it.
const FORMAT_SIZED: u8 = 0x04;
/// `EIATTR_KPARAM_INFO`: u32 0, u16 ordinal, u16 offset, u32 whose upper 14 bits are the size.
const KPARAM_INFO: u8 = 0x17;
/// `EIATTR_PARAM_CBANK`: u32, u16 address of the parameters in their bank, u16 their size.
const PARAM_CBANK: u8 = 0x0a;
/// `EIATTR_CBANK_PARAM_SIZE`: every entry point has it, with or without parameters.
const PARAM_SIZE: u8 = 0x19;

/// What an entry point takes.
struct Taken {
    /// Where its parameters begin in constant memory: alignments are those of addresses there.
    base: u32,
    places: Vec<Place>,
}

/// The parameters of an entry point, in order; the text says why there are none to read.
pub fn parameters(cubin: &[u8], entry: &str) -> Result<Vec<Place>, Refused> {
    Ok(taken(cubin, entry)?.places)
}

fn taken(cubin: &[u8], entry: &str) -> Result<Taken, String> {
    if is_ptx(cubin) {
        let mut entries = ptx::read(cubin)?.entries.into_iter();
        let found = entries.find(|(name, _)| name == entry);
        // The offsets are those in a space that begins where every type may lie.
        return found
            .map(|(_, places)| Taken { base: 0, places })
            .ok_or_else(|| format!("it has no entry {entry}"));
    }
    let file = FileHeader64::<Endianness>::parse(cubin).map_err(|e| e.to_string())?;
    let endian = file.endian().map_err(|e| e.to_string())?;
    let sections = file.sections(endian, cubin).map_err(|e| e.to_string())?;
    let wanted = format!("{SECTION}{entry}");
    let (_, section) = sections
        .section_by_name(endian, wanted.as_bytes())
        .ok_or_else(|| format!("it has no section {wanted}"))?;
    let data = section.data(endian, cubin).map_err(|e| e.to_string())?;
    attributes(data).ok_or_else(|| format!("section {wanted} is not as expected"))
}

/// Reads the attributes of one entry point.
fn attributes(mut data: &[u8]) -> Option<Taken> {
    let u16_at = |data: &[u8], at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |data: &[u8], at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let mut found: Vec<(u16, Place)> = Vec::new();
    let (mut total, mut base) = (None, 0);
    while !data.is_empty() {
        let (format, attribute) = (*data.first()?, *data.get(1)?);
        let value = u16_at(data, 2)?;
        let length = if format == FORMAT_SIZED {
            usize::from(value)
        } else {
            0
        };
        let payload = data.get(4..4 + length)?;
        match attribute {
            KPARAM_INFO => {
                let place = Place {
                    offset: u32::from(u16_at(payload, 6)?),
                    size: u32_at(payload, 8)? >> 18,
                };
                found.push((u16_at(payload, 4)?, place));
            }
            PARAM_CBANK => base = u32::from(u16_at(payload, 4)?),
            PARAM_SIZE => total = Some(u32::from(value)),
            _ => {}
        }
        data = &data[4 + length..];
    }
    found.sort_by_key(|(ordinal, _)| *ordinal);
    let whole = found
        .iter()
        .enumerate()
        .all(|(at, (ordinal, _))| at == usize::from(*ordinal));
    let end = found.last().map_or(0, |(_, place)| place.offset + place.size);
    // An entry point without parameters has no total, or one of nothing.
    (whole && total.unwrap_or(0) == end).then(|| Taken {
        base,
        places: found.into_iter().map(|(_, place)| place).collect(),
    })
}

/// Checks every entry point of a spec whose parameters are declared.
pub fn check(spec: &KernelSpec, artifact: &Artifact) -> Result<(), ParameterError> {
    for entry in spec.entries() {
        let Some(signature) = spec.signature(entry) else {
            continue;
        };
        let takes = taken(&artifact.cubin, artifact.symbol(&entry.name)).map_err(|reason| {
            ParameterError::Unreadable {
                family: spec.family().name.clone(),
                reason,
            }
        })?;
        compare(&signature, &takes)?;
    }
    Ok(())
}

fn compare(signature: &Signature, Taken { base, places: takes }: &Taken) -> Result<(), ParameterError> {
    let names = signature.parameters().iter().map(|p| p.name.clone());
    let places = signature.places_from(*base);
    let declared: Vec<(String, Place)> = if signature.is_struct() {
        let size = places.last().map_or(0, |last| last.offset + 8);
        vec![(format!("struct of {}", places.len()), Place { offset: 0, size })]
    } else {
        names.zip(places).collect()
    };
    for (index, ((name, declared), takes)) in declared.iter().zip(takes).enumerate() {
        if declared != takes {
            return Err(ParameterError::Differs {
                family: signature.family().to_owned(),
                entry: signature.entry().to_owned(),
                index,
                name: name.clone(),
                declared: *declared,
                takes: *takes,
            });
        }
    }
    if declared.len() != takes.len() {
        let beyond: Vec<&str> = declared
            .iter()
            .skip(takes.len())
            .map(|(name, _)| name.as_str())
            .collect();
        return Err(ParameterError::Count {
            family: signature.family().to_owned(),
            entry: signature.entry().to_owned(),
            declared: declared.len(),
            takes: takes.len(),
            names: if beyond.is_empty() {
                String::new()
            } else {
                format!("; not taken: {}", beyond.join(", "))
            },
        });
    }
    Ok(())
}

//! Cubins that hold no instruction: whole ELF images with the kernels and parameters that a
//! family declares, for tests whose compiler compiles nothing.

use jitc::engine::build::render::RenderedSource;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::{Entry, Place, Registry};

/// A kernel: its name, and the parameters that it takes.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) takes: Vec<Place>,
}

/// What a compiler might make of a source of a built-in family. Different sources give
/// different bytes.
pub(crate) fn of_source(rendered: &RenderedSource) -> Vec<u8> {
    let registry = Registry::load(None).expect("families");
    let name = rendered.name.strip_suffix(".cu.tera").expect("a template");
    let option = |o: &String| o.strip_prefix("--gpu-architecture=").map(str::to_owned);
    let arch: String = rendered.options.iter().find_map(option).expect("an arch");
    let family = registry.get(name).expect("built in");
    let spec = KernelSpec::new(family, [], arch.parse().expect("an arch")).expect("a spec");
    cubin(spec.arch(), 130, &kernels(&spec), rendered.source.as_bytes())
}

/// What a compiler might make of a spec, with CUDA 13.0.
#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) fn of_spec(spec: &KernelSpec) -> Vec<u8> {
    cubin(spec.arch(), 130, &kernels(spec), b"")
}

/// Every kernel that a spec's family declares.
pub(crate) fn kernels(spec: &KernelSpec) -> Vec<Kernel> {
    let kernel = |entry: &Entry| Kernel {
        name: entry.name.clone(),
        takes: takes(spec, entry),
    };
    spec.family().entries.iter().map(kernel).collect()
}

fn takes(spec: &KernelSpec, entry: &Entry) -> Vec<Place> {
    let Some(signature) = spec.signature(entry) else {
        return Vec::new();
    };
    let places = signature.places();
    if signature.is_struct() {
        let size = places.last().map_or(0, |last| last.offset + 8);
        return vec![Place { offset: 0, size }];
    }
    places
}

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const NOTE: u32 = 7;
const HEADER: usize = 64;

struct Section {
    name: String,
    kind: u32,
    link: u32,
    data: Vec<u8>,
}

/// A cubin of these kernels. `cuda`: ten times the version of the CUDA that makes it.
pub(crate) fn cubin(arch: Arch, cuda: u16, kernels: &[Kernel], text: &[u8]) -> Vec<u8> {
    with_variables(arch, cuda, kernels, &[], text)
}

/// A cubin of these kernels, with variables and their bytes. `cuda`: ten times the version of the CUDA that makes it.
pub(crate) fn with_variables(
    arch: Arch,
    cuda: u16,
    kernels: &[Kernel],
    variables: &[(&str, u64)],
    text: &[u8],
) -> Vec<u8> {
    let section = |name: &str, kind, data: Vec<u8>| Section {
        name: name.to_owned(),
        kind,
        link: 0,
        data,
    };
    let mut note = words(&[12, 8, 1000]);
    note.extend_from_slice(b"NVIDIA Corp\0");
    for half in [2, arch.number(), cuda, 0] {
        note.extend_from_slice(&half.to_le_bytes());
    }
    let mut sections = vec![section("", 0, Vec::new()), section(".note.nv.cuinfo", NOTE, note)];
    let (mut names, mut symbols) = (vec![0_u8], vec![0_u8; 24]);
    for kernel in kernels {
        sections.push(section(
            &format!(".nv.info.{}", kernel.name),
            0x7000_0000,
            info(&kernel.takes),
        ));
        symbols.extend_from_slice(&u32::try_from(names.len()).expect("small").to_le_bytes());
        // A global function, which is an entry point, in the section that comes next.
        symbols.extend_from_slice(&[0x12, 0x10]);
        symbols.extend_from_slice(&u16::try_from(sections.len()).expect("few").to_le_bytes());
        symbols.extend_from_slice(&[0; 16]);
        names.extend_from_slice(kernel.name.as_bytes());
        names.push(0);
        sections.push(section(&format!(".text.{}", kernel.name), PROGBITS, vec![0; 16]));
    }
    for (name, bytes) in variables {
        symbols.extend_from_slice(&u32::try_from(names.len()).expect("small").to_le_bytes());
        // A global object, in the first section.
        symbols.extend_from_slice(&[0x11, 0, 1, 0]);
        symbols.extend_from_slice(&[0; 8]);
        symbols.extend_from_slice(&bytes.to_le_bytes());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    sections.push(section(".source", PROGBITS, text.to_vec()));
    let strings = u32::try_from(sections.len()).expect("few");
    sections.push(section(".strtab", STRTAB, names));
    sections.push(Section {
        link: strings,
        ..section(".symtab", SYMTAB, symbols)
    });
    sections.push(section(".shstrtab", STRTAB, Vec::new()));
    image(arch, sections)
}

/// Attributes of a kernel: its parameters, and their size together.
fn info(takes: &[Place]) -> Vec<u8> {
    let mut data = Vec::new();
    for (ordinal, place) in takes.iter().enumerate() {
        data.extend_from_slice(&[0x04, 0x17, 12, 0, 0, 0, 0, 0]);
        data.extend_from_slice(&u16::try_from(ordinal).expect("few").to_le_bytes());
        data.extend_from_slice(&u16::try_from(place.offset).expect("small").to_le_bytes());
        data.extend_from_slice(&(place.size << 18).to_le_bytes());
    }
    let total = takes.last().map_or(0, |last| last.offset + last.size);
    data.extend_from_slice(&[0x03, 0x19]);
    data.extend_from_slice(&u16::try_from(total).expect("small").to_le_bytes());
    data
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The sections behind a header and one segment that spans them, and their table.
fn image(arch: Arch, mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = Vec::new();
    let mut name_at = Vec::new();
    for section in &sections {
        name_at.push(u32::try_from(names.len()).expect("small"));
        names.extend_from_slice(section.name.as_bytes());
        names.push(0);
    }
    sections.last_mut().expect("its names").data = names;
    let mut bytes = vec![0; HEADER + 56];
    let mut table = Vec::new();
    for (section, name) in sections.iter().zip(name_at) {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let (at, size) = (bytes.len() as u64, section.data.len() as u64);
        table.extend_from_slice(&words(&[name, section.kind]));
        for value in [0, 0, at, size] {
            table.extend_from_slice(&value.to_le_bytes());
        }
        table.extend_from_slice(&words(&[section.link, 0]));
        for value in [4_u64, if section.kind == SYMTAB { 24 } else { 0 }] {
            table.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&section.data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let (end, count) = (bytes.len() as u64, u16::try_from(sections.len()).expect("few"));
    bytes.extend_from_slice(&table);

    let mut header = b"\x7fELF\x02\x01\x01\x41\x08\0\0\0\0\0\0\0".to_vec();
    header.extend_from_slice(&[2, 0, 190, 0, 1, 0, 0, 0]);
    for value in [0, HEADER as u64, end] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.extend_from_slice(&(0x0600_0004 | u32::from(arch.number()) << 8).to_le_bytes());
    for half in [64, 56, 1, 64, count, count - 1] {
        header.extend_from_slice(&half.to_le_bytes());
    }
    header.extend_from_slice(&words(&[1, 4]));
    for value in [HEADER as u64 + 56, 0, 0, end - 120, end - 120, 8] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

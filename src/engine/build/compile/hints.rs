//! What to do about mistakes that are understood: headers and names that nvcc has by itself
//! and NVRTC has not, and code of the host.
//!
//! Invariant: a hint is one line and ends with the place of the first mistake of its kind.

use super::diagnostics::place_in;
use crate::engine::request::header_set::{HeaderSet, STANDARD, SetName};

/// Headers of the CUDA toolkit, or the first letters of their names, and the set that has
/// them; of libraries of the host, none.
const CUDA_HEADERS: [(&str, Option<&str>); 14] = [
    ("cublas", None),
    ("cudnn", None),
    ("cufft", None),
    ("cuda", Some("cuda")),
    ("cooperative_groups", Some("cuda")),
    ("mma.h", Some("cuda")),
    ("nv/", Some("cuda")),
    ("cub/", Some("cuda")),
    ("thrust/", Some("cuda")),
    ("curand", Some("curand")),
    ("device_launch_parameters.h", Some("cuda")),
    ("math_constants.h", Some("cuda")),
    ("sm_", Some("cuda")),
    ("vector_", Some("cuda")),
];

/// Headers of C for the host, which the set of small ones leaves out.
const HOST_HEADERS: [&str; 3] = ["ctype.h", "time.h", "errno.h"];

/// Names that those headers declare, the set that has them, and what is written without.
const DECLARED: [(&str, &str, &str, &str); 15] = [
    ("int8_t", "<cstdint>", STANDARD, "signed char"),
    ("uint8_t", "<cstdint>", STANDARD, "unsigned char"),
    ("int16_t", "<cstdint>", STANDARD, "short"),
    ("uint16_t", "<cstdint>", STANDARD, "unsigned short"),
    ("int32_t", "<cstdint>", STANDARD, "int"),
    ("uint32_t", "<cstdint>", STANDARD, "unsigned"),
    ("int64_t", "<cstdint>", STANDARD, "long long"),
    ("uint64_t", "<cstdint>", STANDARD, "unsigned long long"),
    ("uintptr_t", "<cstdint>", STANDARD, "unsigned long long"),
    ("half", "cuda_fp16.h", "cuda", "unsigned short"),
    ("__half", "cuda_fp16.h", "cuda", "unsigned short"),
    ("__nv_bfloat16", "cuda_bf16.h", "cuda", "unsigned short"),
    ("FLT_MAX", "<cfloat>", STANDARD, "3.402823466e38f"),
    (
        "cudaGridDependencySynchronize",
        "cuda_device_runtime_api.h",
        "cuda",
        "asm volatile(\"griddepcontrol.wait;\" ::: \"memory\")",
    ),
    (
        "cudaTriggerProgrammaticLaunchCompletion",
        "cuda_device_runtime_api.h",
        "cuda",
        "asm volatile(\"griddepcontrol.launch_dependents;\")",
    ),
];

/// Members of `std` that kernels use without the header that has them, since on the host
/// some other one includes it.
const MEMBERS: [(&str, &str); 12] = [
    ("min", "<algorithm>"),
    ("max", "<algorithm>"),
    ("numeric_limits", "<limits>"),
    ("enable_if_t", "<type_traits>"),
    ("conditional_t", "<type_traits>"),
    ("is_same", "<type_traits>"),
    ("is_same_v", "<type_traits>"),
    ("integral_constant", "<type_traits>"),
    ("pair", "<utility>"),
    ("array", "<array>"),
    ("tuple", "<tuple>"),
    ("plus", "<functional>"),
];

/// What to do about the mistakes that are understood, a line each. `beside` finds a file
/// of this name in the template's own folder; `place` is as for [`in_files`]; `used` are the
/// header sets that the family uses.
pub(crate) fn hints(
    log: &str,
    used: &[SetName],
    beside: &dyn Fn(&str) -> Option<std::path::PathBuf>,
    place: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for line in log.lines() {
        let Some((file, number, message)) = place_in(line.trim()) else {
            continue;
        };
        let file = place(file).unwrap_or_else(|| file.to_owned());
        let hint = if message.contains("could not open source file")
            || message.contains("cannot open source file")
        {
            quoted(message).map(|header| no_header(header, used, beside))
        } else if message.contains("identifier") && message.contains("is undefined") {
            quoted(message).and_then(|name| no_declaration(name, used))
        } else if message.contains("host functions are not allowed in JIT mode") {
            Some("a function without __device__ is for the host: give the family the option `-default-device`, or leave it out".to_owned())
        } else if message.contains("annotation on lambda requires") {
            Some("NVRTC has no option for annotated lambdas: leave `__device__` off, a lambda in a kernel is for the device".to_owned())
        } else if message.contains("explicitly marked as a __host__ function is not allowed") {
            Some(for_the_host(&file, used))
        } else if message.contains("namespace \"std\" has no member") {
            Some(no_member(message.rsplit('"').nth(1).unwrap_or(".."), used))
        } else {
            None
        };
        let Some(hint) = hint else { continue };
        // Once, at the first place.
        if !hints.iter().any(|known| known.starts_with(&hint)) {
            hints.push(format!("{hint} ({file}:{number})"));
        }
    }
    hints
}

fn quoted(message: &str) -> Option<&str> {
    message.split('"').nth(1)
}

fn no_header(header: &str, used: &[SetName], beside: &dyn Fn(&str) -> Option<std::path::PathBuf>) -> String {
    let base = header.rsplit('/').next().unwrap_or(header);
    let standard = HeaderSet::standard();
    let of_cuda = CUDA_HEADERS.iter().find(|(known, _)| header.starts_with(known));
    if let Some(path) = beside(header) {
        return format!(
            "include `{header}`: not below include/; headers beside a template are not read: move {} to include/",
            path.display()
        );
    }
    if of_cuda.is_none() && standard.has(header) && !uses(used, STANDARD) {
        return format!(
            "include `{header}`: a header of the C++ library, of which NVRTC has none: {}",
            with_set(used, STANDARD)
        );
    }
    match of_cuda {
        Some((_, Some(set))) if !uses(used, set) => format!(
            "include `{header}`: a header of the CUDA toolkit, of which NVRTC has none: {}",
            with_set(used, set)
        ),
        Some((_, Some(set))) => format!("include `{header}`: the header set `{set}` has no such header"),
        Some((_, None)) => format!(
            "include `{header}`: a header of the CUDA toolkit for the host, of which NVRTC has none: leave host code out"
        ),
        None if !base.contains('.') || HOST_HEADERS.contains(&header) => format!(
            "include `{header}`: a header of the C++ library, of which NVRTC has none: leave host code out; what \
             device code includes of it is in the header set `{STANDARD}`"
        ),
        None => format!(
            "include `{header}`: not below include/; headers beside a template are not read: move it to include/, or \
             name the folder of a library under [headers]"
        ),
    }
}

fn uses(used: &[SetName], set: &str) -> bool {
    used.iter().any(|other| other.name == set)
}

/// What a family says that uses this set too.
fn with_set(used: &[SetName], set: &str) -> String {
    let jitcs = used.iter().filter(|other| other.folder.is_none());
    let names = jitcs.map(|other| other.name.as_str()).chain([set]);
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    format!("give the family `[headers]` with `use = [{}]`", names.join(", "))
}

/// A function of the host in this file.
fn for_the_host(file: &str, used: &[SetName]) -> String {
    let of_cub = file.starts_with("cub/") || file.starts_with("thrust/");
    if of_cub && !uses(used, STANDARD) {
        return format!(
            "cub/cub.cuh has algorithms of the host: include the parts, cub/block/block_reduce.cuh say, or {}, whose \
             cub/cub.cuh has what is for kernels",
            with_set(used, STANDARD)
        );
    }
    "a function marked __host__ alone is for the host: leave it out".to_owned()
}

fn no_member(member: &str, used: &[SetName]) -> String {
    let Some((_, header)) = MEMBERS.iter().find(|(known, _)| *known == member) else {
        return format!(
            "`std::{member}` is of the C++ library, of which NVRTC has none: types and functions of the device are \
             built in"
        );
    };
    let with = if uses(used, STANDARD) {
        String::new()
    } else {
        format!(" and {}", with_set(used, STANDARD))
    };
    format!("`std::{member}` is declared in {header}, which nothing includes here: include it{with}")
}

/// Textures, surfaces, and types of the driver and the runtime, which need no header.
fn left_out_by_minimal(name: &str) -> bool {
    let textures = [
        "tex1D",
        "tex2D",
        "tex3D",
        "surf1D",
        "surf2D",
        "surf3D",
        "texCubemap",
        "surfCubemap",
    ];
    let types = [
        "cudaTextureObject_t",
        "cudaSurfaceObject_t",
        "cudaError_t",
        "cudaStream_t",
    ];
    types.contains(&name) || textures.iter().any(|known| name.starts_with(known))
}

fn no_declaration(name: &str, used: &[SetName]) -> Option<String> {
    if name == "__asm__" {
        return Some(
            "`__asm__` is GNU's word for `asm`, which NVRTC lacks: give the family `[defines]` with `__asm__ = \"asm\"` \
             and `__volatile__ = \"volatile\"`"
                .to_owned(),
        );
    }
    if left_out_by_minimal(name) {
        return Some(format!(
            "`{name}` is built in, and left out by the option `--minimal`: take the option off"
        ));
    }
    let (_, header, set, instead) = DECLARED.iter().find(|(known, ..)| *known == name)?;
    let with = if uses(used, set) {
        String::new()
    } else {
        format!(" and {}", with_set(used, set))
    };
    Some(format!(
        "`{name}` is declared in {header}, which NVRTC does not have: include it{with}, or write `{instead}`"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn place(name: &str) -> Option<String> {
        match name {
            "k.cu.tera" => Some("own/k/kernel.cu.tera".to_owned()),
            "a/h.cuh" => Some("own/include/a/h.cuh".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_first_mistakes_have_a_hint_each_with_its_place() {
        let missing_of = |name: &str, used: &[SetName]| {
            let line = format!(
                "k.cu.tera(2): catastrophic error: could not open source file \"{name}\" (no directories in search list)"
            );
            let beside = |header: &str| (header == "v.h").then(|| PathBuf::from("own/k/v.h"));
            let mut hints = hints(&line, used, &beside, &place);
            assert_eq!(hints.len(), 1, "{hints:?}");
            hints.remove(0)
        };
        let missing = |name: &str| missing_of(name, &[]);
        assert_eq!(
            missing("v.h"),
            "include `v.h`: not below include/; headers beside a template are not read: move own/k/v.h to include/ \
             (own/k/kernel.cu.tera:2)"
        );
        assert_eq!(
            missing("w.h"),
            "include `w.h`: not below include/; headers beside a template are not read: move it to include/, or name \
             the folder of a library under [headers] (own/k/kernel.cu.tera:2)"
        );
        for name in [
            "cuda_fp16.h",
            "cooperative_groups.h",
            "cooperative_groups/reduce.h",
            "mma.h",
            "cub/cub.cuh",
        ] {
            assert!(missing(name).contains("of the CUDA toolkit"), "{name}");
        }
        for name in ["vector", "cstdint", "stdint.h", "type_traits", "cuda/std/array"] {
            assert!(missing(name).contains("of which NVRTC has none"), "{name}");
        }
        let set = |name: &str| SetName {
            name: name.to_owned(),
            folder: None,
        };
        assert!(
            missing("mma.h").contains("`use = [\"cuda\"]`"),
            "{}",
            missing("mma.h")
        );
        assert!(missing("curand_kernel.h").contains("`use = [\"curand\"]`"));
        let more = missing_of("stdint.h", &[set("cuda")]);
        assert!(more.contains("`use = [\"cuda\", \"std\"]`"), "{more}");
        let none = missing_of("cuda_nothing.h", &[set("cuda")]);
        assert!(
            none.contains("the header set `cuda` has no such header"),
            "{none}"
        );
        assert!(missing("cublas_v2.h").contains("leave host code out"));
    }

    #[test]
    fn a_name_of_a_header_that_nvrtc_lacks_has_a_hint_once() {
        let log = "k.cu.tera(2): error: identifier \"uint32_t\" is undefined\n\
                   k.cu.tera(3): error: identifier \"uint32_t\" is undefined\n\
                   k.cu.tera(4): error: namespace \"std\" has no member \"vector\"\n\
                   k.cu.tera(5): error: identifier \"my_own\" is undefined\n\
                   k.cu.tera(6): error: A function without execution space annotations is considered a host \
                   function, and host functions are not allowed in JIT mode. Consider\n";
        let hints = hints(log, &[], &|_| None, &place);
        assert_eq!(hints.len(), 3, "{hints:?}");
        assert!(hints[2].contains("`-default-device`"), "{}", hints[2]);
        assert!(
            hints[0].ends_with("write `unsigned` (own/k/kernel.cu.tera:2)"),
            "{}",
            hints[0]
        );
        assert!(
            hints[1].starts_with("`std::vector` is of the C++ library"),
            "{}",
            hints[1]
        );
    }

    #[test]
    fn what_nvcc_has_by_itself_and_nvrtc_has_not_is_answered_with_where_it_is() {
        let of = |message: &str, used: &[&str]| {
            let used: Vec<SetName> = (used.iter())
                .map(|name| SetName {
                    name: (*name).to_owned(),
                    folder: None,
                })
                .collect();
            let hints = hints(&format!("{message}\n"), &used, &|_| None, &place);
            assert_eq!(hints.len(), 1, "{message}: {hints:?}");
            hints[0].clone()
        };
        let max = "k.cu.tera(4): error: namespace \"std\" has no member \"max\"";
        assert!(
            of(max, &["cuda", "std"]).contains("include it (own/k"),
            "{}",
            of(max, &["std"])
        );
        assert!(of(max, &["cuda"]).contains("<algorithm>, which nothing includes here: include it and give"));
        let assembler = "k.cu.tera(4): error: identifier \"__asm__\" is undefined";
        assert!(of(assembler, &[]).contains("`__asm__ = \"asm\"`"));
        let wait = "k.cu.tera(4): error: identifier \"cudaGridDependencySynchronize\" is undefined";
        assert!(of(wait, &["cuda"]).contains("cuda_device_runtime_api.h"));
        let texture = "k.cu.tera(4): error: identifier \"cudaTextureObject_t\" is undefined";
        assert!(of(texture, &[]).contains("left out by the option `--minimal`"));
        let lambda = "k.cu.tera(4): error: __host__ or __device__ annotation on lambda requires --extended-lambda nvcc flag";
        assert!(of(lambda, &[]).contains("leave `__device__` off"));
        let host = "error: A function explicitly marked as a __host__ function is not allowed in JIT mode";
        let of_cub = format!("cub/device/device_for.cuh(4): {host}");
        assert!(of(&of_cub, &["cuda"]).contains("`use = [\"cuda\", \"std\"]`"));
        assert!(of(&format!("a/h.cuh(4): {host}"), &["cuda"]).contains("leave it out"));
    }
}

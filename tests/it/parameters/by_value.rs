//! Structs and tensor maps by value: what may be declared, and what the machine code takes.

use jitc::engine::build::parameter_info;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Access;

use super::family;

fn toml(parameter: &str) -> String {
    format!(
        "summary = 's'\n[[entries]]\nname = 'k'\ngrid = 1\nblock = 32\n[[entries.parameters]]\nname = 'flag'\n\
         type = 'bool'\n[[entries.parameters]]\nname = 'p'\n{parameter}\n"
    )
}

#[test]
fn a_struct_is_declared_by_size_and_alignment_alone() {
    for (parameter, expected) in [
        (
            "type = 'struct'\nbytes = 8",
            "a struct needs `bytes` and `alignment`: sizeof and alignof of its CUDA type",
        ),
        (
            "type = 'struct'\nbytes = 9\nalignment = 8",
            "`bytes` of a struct is a multiple of its alignment, 8, up to 32764, not 9",
        ),
        (
            "type = 'struct'\nbytes = 0\nalignment = 8",
            "`bytes` of a struct is a multiple of its alignment, 8, up to 32764, not 0",
        ),
        (
            "type = 'struct'\nbytes = 9\nalignment = 3",
            "`alignment` is a power of two up to 256, not 3",
        ),
        (
            "type = 'struct'\nbytes = 8\nalignment = 8\nshape = [1]",
            "`shape` says nothing of what is passed by value",
        ),
        (
            "type = 'tensor_map'\nbytes = 128",
            "a tensor_map has 128 bytes, aligned to 64",
        ),
        ("type = 'u32'\nbytes = 4", "`bytes` is of the type struct"),
    ] {
        let error = family(&toml(parameter)).expect_err(parameter);
        assert_eq!(error, format!("f.toml: entry `k`: parameter `p`: {expected}"));
    }
    let error = family(&toml("type = 'struct'\nbytes = 32764\nalignment = 4")).expect_err("too many");
    assert_eq!(
        error,
        "f.toml: entry `k`: 32768 bytes of parameters: a kernel takes at most 32764"
    );
    let shared =
        toml("type = 'struct'\nbytes = 8\nalignment = 8").replace("entries.parameters", "parameters");
    let error = family(&shared.replace("'s'", "'s'\nparameter_struct = 'P'")).expect_err("in a struct");
    assert!(
        error.contains("parameter `p`: parameter_struct `P` has a word a parameter"),
        "{error}"
    );
}

#[test]
fn the_machine_code_says_whether_size_and_alignment_are_right() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("families");
    fs_err::create_dir_all(&folder).expect("folder");
    let source = "struct __align__(16) P { float x; float4* y; };\n\
                  extern \"C\" __global__ void k(bool flag, const __grid_constant__ P p) { if (flag) p.y->x = p.x; }\n";
    fs_err::write(folder.join("k.cu.tera"), source).expect("written");
    let compile = |bytes: u32, alignment: u32| {
        let parameter = format!("type = 'struct'\nbytes = {bytes}\nalignment = {alignment}");
        fs_err::write(folder.join("k.toml"), toml(&parameter)).expect("written");
        let flags = Flags {
            templates: Some(folder.clone()),
            // Of its own: what was compiled before is checked when it is loaded.
            cache_dir: Some(dir.path().join(format!("cache-{bytes}-{alignment}"))),
            ..Flags::default()
        };
        let jit = Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families");
        let family = jit.registry().get("k").expect("family");
        let spec = KernelSpec::new(family, [], "sm_90a".parse().expect("arch")).expect("a spec");
        jit.prepare(&spec)
            .map(|prepared| prepared.fetched.artifact.cubin.clone())
    };
    let cubin = compile(16, 16).expect("as it is");
    let places = parameter_info::parameters(&cubin, "k").expect("readable");
    assert_eq!((places[1].offset, places[1].size), (16, 16));
    for (bytes, alignment, declared) in [(16, 8, "16 bytes at 8"), (32, 16, "32 bytes at 16")] {
        let Err(Error::Parameters(error)) = compile(bytes, alignment) else {
            panic!("{declared}");
        };
        let expected = format!("k: `k`: parameter 1 `p`: declared {declared}, the kernel takes 16 at 16");
        assert_eq!(error.to_string(), expected);
    }
}

/// Alignment is of addresses in constant memory, where parameters begin at 0x160, 0x210 or
/// 0x380, by arch.
#[test]
fn a_tensor_map_is_found_where_each_arch_has_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let flags = Flags {
        cache_dir: Some(dir.path().join("cache")),
        ..Flags::default()
    };
    let jit = Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families");
    let text = "struct alignas(64) Map { char of[128]; };\n\
                extern \"C\" __global__ void k(bool flag, const __grid_constant__ Map map, float* y) {\n\
                if (flag) y[0] = map.of[threadIdx.x]; }\n";
    for arch in ["sm_80", "sm_90a", "sm_100a"] {
        let source = jit.source(text).entry("k").parameter("flag", "bool", Access::In);
        let source = source.parameter("map", "tensor_map", Access::In);
        let source = source.parameter("y", "f32[32], aligned to 4", Access::Out);
        source.prepare(arch.parse().expect("arch")).expect(arch);
    }
}

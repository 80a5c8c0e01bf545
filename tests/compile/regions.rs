//! Timing of regions, compiled into the layer and out of it.

use std::path::Path;

use crate::command::{jitc, succeeded};
use crate::region_code::{code, code_of, without_timing};

#[test]
fn the_layer_without_regions_has_the_instructions_of_one_without_instrumentation() {
    let plain = tempfile::tempdir().expect("tempdir");
    let below = plain.path().join("include/jitc/layer");
    fs_err::create_dir_all(&below).expect("folder");
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/include/jitc/layer");
    for name in ["persistent.cuh", "original.cuh"] {
        let mut source = code_of(&fs_err::read_to_string(headers.join(name)).expect("header"));
        for condition in [
            "if constexpr (!own) ",
            "if constexpr (entered) ",
            "if (!entered || first != 0u) ",
        ] {
            source = source.replace(condition, "");
        }
        let mut stripped = without_timing(&source);
        for argument in [
            ", RegionSum<C>& fc1, RegionSum<C>& quant",
            ", T& timer",
            ", timer, fc1, quant",
            ", timer",
            ", typename T",
        ] {
            stripped = stripped.replace(argument, "");
        }
        assert!(
            !stripped.contains("timer") && !stripped.contains("RegionSum"),
            "{stripped}"
        );
        fs_err::write(below.join(name), stripped).expect("written");
    }
    for geometry in ["spread", "original"] {
        let built = |args: &[&str]| {
            let cache = tempfile::tempdir().expect("tempdir");
            let output = jitc(cache.path())
                .args([
                    "warm",
                    "decode_layer",
                    "--launch",
                    "cooperative",
                    "--arch",
                    "sm_90a",
                ])
                .args(["--geometry", geometry])
                .args(args)
                .output()
                .expect("ran");
            succeeded(&output);
            let mut cubins = Vec::new();
            cubins.extend(
                jitc::engine::cache::Store::new(cache.path())
                    .keys()
                    .expect("keys"),
            );
            let entry = jitc::engine::cache::Store::new(cache.path()).read(&cubins[0]);
            code(entry.expect("an entry").code())
        };
        let plain = plain.path().display().to_string();
        let (off, never) = (built(&[]), built(&["--templates", &plain]));
        // The assembler may put equal instructions in another order; it may not need others.
        assert!(opcodes(&off) == opcodes(&never), "{geometry}");
    }
}

#[test]
fn every_set_of_regions_compiles_in_every_family_and_geometry() {
    let cache = tempfile::tempdir().expect("tempdir");
    for args in [
        &[
            "decode_layer",
            "--num-regions",
            "13",
            "--geometry",
            "spread,original",
        ][..],
        &["decode_layer", "--launch", "separate", "--num-regions", "13"],
        &["wo_gemv", "--num-regions", "4", "--geometry", "original,tiled"],
    ] {
        let output = jitc(cache.path())
            .args(["warm", "--arch", "sm_90a", "--json"])
            .args(args)
            .output()
            .expect("ran");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {words}");
    }
}

/// What the instructions of some code do, 16 bytes each, sorted.
fn opcodes(code: &[u8]) -> Vec<u16> {
    let opcode = |i: &[u8]| u16::from_le_bytes([i[0], i[1]]) & 0xfff;
    let mut all: Vec<u16> = code.chunks_exact(16).map(opcode).collect();
    all.sort_unstable();
    all
}

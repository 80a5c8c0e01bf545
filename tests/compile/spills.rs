//! No variant of a built-in family spills, on any tested arch.

use crate::command::{events, jitc, succeeded};

#[test]
fn the_built_in_families_compile_without_spills_on_every_tested_arch() {
    let dir = tempfile::tempdir().expect("tempdir");
    let archs = "sm_80,sm_86,sm_89,sm_90,sm_90a,sm_100a,sm_103a,sm_120a,sm_121a";
    // Of each kind of code that tensor cores take: scales by bits, by conversion, and with dependent launches.
    let kinds = "sm_80,sm_89,sm_90a";
    for (archs, args) in [
        (
            archs,
            &["wo_gemv", "--wo-split", "1,8", "--accumulate", "fma,mul_add"][..],
        ),
        (archs, &["wo_gemv", "--wo-split", "8", "--geometry", "original"]),
        (kinds, &["wo_gemv", "--wo-split", "8", "--accumulate", "mma"]),
        (
            kinds,
            &["wo_gemv", "--wo-split", "1,8", "--weight-layout", "packed"],
        ),
        (kinds, &["gemv", "--weight-layout", "packed"]),
        (archs, &["stream"]),
        (
            archs,
            &[
                "axpy",
                "--unroll",
                "1,8",
                "--num-threads",
                "32,1024",
                "--num-regions",
                "0,2",
            ],
        ),
    ] {
        let output = jitc(dir.path())
            .args(["warm", "--json", "--arch", archs])
            .args(args)
            .output()
            .expect("ran");
        succeeded(&output);
        for event in events(&output).iter().filter(|e| e["event"] == "variant") {
            assert_eq!(event["spill_bytes"], 0, "{event}");
        }
    }
}

#[test]
fn the_layer_compiles_without_spills() {
    let dir = tempfile::tempdir().expect("tempdir");
    let packed = ["--weight-layout", "packed64", "--arch", "sm_90a"];
    for (variants, args) in [
        (2, &["--arch", "sm_90a,sm_121a"][..]),
        (2, &[&packed[..], &["--accumulate", "fma,mma"]].concat()),
        (
            1,
            &[&packed[..], &["--accumulate", "fma", "--num-regions", "21"]].concat(),
        ),
    ] {
        let output = jitc(dir.path())
            .args([
                "warm",
                "decode_layer",
                "--launch",
                "cooperative",
                "--wo-split",
                "8",
                "--json",
            ])
            .args(args)
            .output()
            .expect("ran");
        succeeded(&output);
        let events = events(&output);
        assert_eq!(events.len(), variants + 1);
        for event in &events[..variants] {
            assert_eq!(event["spill_bytes"], 0, "{event}");
        }
    }
}

/// Warps that ask hand registers on to those that compute, out of what launch bounds of
/// 640 threads give: with fewer they would wait for ever.
#[test]
fn kernels_that_share_registers_out_have_them_whatever_the_layer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let small = "--hidden 256 --intermediate 128 --num-q-heads 4 --num-kv-heads 1 --head-dim 64 --num-ctas 4";
    let output = jitc(dir.path())
        .args([
            "warm",
            "decode_layer",
            "--launch",
            "cooperative,separate",
            "--arch",
            "sm_90a,sm_100a",
            "-q",
        ])
        .args(["--weight-layout", "packed64", "--accumulate", "mma"])
        .args(small.split(' '))
        .output()
        .expect("ran");
    succeeded(&output);
    let rows = jitc(dir.path())
        .args(["cache", "ls", "--json"])
        .output()
        .expect("ran");
    let mut seen = 0;
    for row in events(&rows) {
        for entry in row["resources"].as_array().expect("list") {
            let name = entry["entry"].as_str().expect("name");
            if !["decode_layer_attention", "decode_layer_merge"].contains(&name) {
                assert_eq!(entry["registers"], 96, "{name}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 2 + 6);
}

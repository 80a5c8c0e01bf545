//! Parameters by value: every byte of a struct, a tensor map and a short scalar as the driver
//! reads it.

use std::sync::Arc;

use cudarc::driver::sys;
use half::f16;
use jitc::engine::run::bind::{Bind, BoundKernel};
use jitc::engine::run::bind_error::BindError;
use jitc::engine::run::device::Context;
use jitc::engine::run::load::LoadedKernel;

use crate::stub::{artifact, spec_of, under_stub};

const TOML: &str = r#"
summary = "s"
[[entries]]
name = "k"
sizes = ["n"]
grid = ["n"]
block = 32
[[entries.parameters]]
name = "flag"
type = "bool"
[[entries.parameters]]
name = "map"
type = "tensor_map"
[[entries.parameters]]
name = "alpha"
type = "f16"
[[entries.parameters]]
name = "params"
type = "struct"
bytes = 24
alignment = 8
[[entries.parameters]]
name = "delta"
type = "i64"
[[entries.parameters]]
name = "n"
type = "u32"
value = "n"
"#;

fn bind(kernel: &Arc<LoadedKernel>) -> Bind {
    let map = sys::CUtensorMap {
        opaque: std::array::from_fn(|at| 0x0101_0101_0101_0101 * at as u64),
    };
    let bind = kernel.bind().size("n", 9).arg("flag", true).arg("map", &map);
    bind.arg("alpha", f16::from_f32(1.5)).arg("delta", -2_i64)
}

#[test]
fn the_driver_is_given_every_byte_that_is_passed_by_value_in_its_place() {
    let name = "by_value::the_driver_is_given_every_byte_that_is_passed_by_value_in_its_place";
    let Some(stub) = under_stub(name) else { return };
    stub.say("params.k", "1,128,2,24,8,4");
    let context = Context::new(0).expect("a GPU");
    let spec = spec_of(TOML, &[], "sm_90a");
    let signature = spec.signature(&spec.family().entries[0]).expect("declared");
    let places: Vec<_> = signature
        .places()
        .iter()
        .map(|place| (place.offset, place.size))
        .collect();
    assert_eq!(
        places,
        [(0, 1), (64, 128), (192, 2), (200, 24), (224, 8), (232, 4)]
    );
    let kernel = Arc::new(LoadedKernel::load(&context, &spec, &artifact(&spec)).expect("loaded"));
    let bytes: Vec<u8> = (1..=24).collect();
    let bound = bind(&kernel).arg("params", &bytes[..]).finish().expect("bound");
    drop(bytes);
    let map: String = hex::encode((0..16).flat_map(|word| [word; 8]).collect::<Vec<u8>>());
    let of_struct: String = hex::encode((1..=24).collect::<Vec<u8>>());
    // What is copied stands on memory of its own.
    for bound in [&bound, &bound.clone()] {
        stub.calls();
        // SAFETY: no kernel runs.
        unsafe { bound.launch(&[7], std::ptr::null_mut()) }.expect("launched");
        let call = stub.calls().join("\n");
        let (_, parameters) = call.split_once("params ").expect("parameters");
        assert_eq!(
            parameters,
            format!("01,{map},003e,{of_struct},feffffffffffffff,07000000")
        );
    }
}

#[test]
fn bytes_are_as_many_as_declared_and_nothing_else_goes_for_them() {
    let name = "by_value::bytes_are_as_many_as_declared_and_nothing_else_goes_for_them";
    let Some(_) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let spec = spec_of(TOML, &[], "sm_90a");
    let kernel = Arc::new(LoadedKernel::load(&context, &spec, &artifact(&spec)).expect("loaded"));
    let refused = |bound: Result<BoundKernel, BindError>| bound.map(|_| ()).expect_err("refused").to_string();
    let start = "f: `k`: parameter `params`: expected struct of 24 bytes, aligned to 8, got ";
    for (error, found) in [
        (
            refused(bind(&kernel).arg("params", &[0_u8; 23][..]).finish()),
            "23 bytes",
        ),
        (
            refused(bind(&kernel).arg("params", 5_u64).finish()),
            "a scalar of type u64",
        ),
        (refused(bind(&kernel).finish()), "nothing"),
    ] {
        assert_eq!(error, format!("{start}{found}"));
    }
    let bytes = &[0_u8; 24][..];
    let twice = bind(&kernel).arg("params", bytes).arg("n", bytes);
    assert!(refused(twice.finish()).ends_with("it is launch size `n`, which every launch gives"));
    let other = kernel.bind().size("n", 1).arg("flag", bytes);
    assert_eq!(
        refused(other.finish()),
        "f: `k`: parameter `flag`: expected bool, got 24 bytes"
    );
}

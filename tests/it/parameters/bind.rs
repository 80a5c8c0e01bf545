//! What declared parameters are bound to.

use jitc::engine::run::arguments::Arguments;
use jitc::engine::run::bind_error::{BindError, Mismatch};
use jitc::engine::run::packet::Packet;
use jitc::engine::run::tensor::{Dtype, Tensor};

use super::{TOML, signature, spec_of};
use crate::allocations::allocations;

/// Values that fit, for up to 10 rows and batches of 2.
fn values() -> Arguments {
    Arguments::new()
        .size("num_rows", 10)
        .size("batch", 2)
        .arg("x", Tensor::new(0x100, Dtype::Bf16, &[10, 16]))
        .arg("table", Tensor::new(0x200, Dtype::I32, &[2, 5]))
        .arg("pool", Tensor::new(0x300, Dtype::U8, &[77, 8]))
        .arg("y", Tensor::flat(0x400, Dtype::F32, 80))
        .arg("scale", 0.5_f32)
        .arg("pages", 5_u32)
}

fn packed(arguments: &Arguments) -> Result<Packet, BindError> {
    arguments.pack(&signature(&[]))
}

#[test]
fn values_are_packed_in_declared_order_whatever_order_they_came_in() {
    let packet = packed(&values()).expect("they fit");
    let mut passed = packet.passed(&[7, 1]);
    let half = u64::from(0.5_f32.to_bits());
    assert_eq!(passed.words(), [0x100, 0, 0x200, 0x300, 0x400, half, 5, 7]);
    let words: Vec<u64> = passed.pointers(|pointers| {
        let read = |pointer: &*mut std::ffi::c_void| {
            // SAFETY: each points at a word of `passed`, which is alive.
            unsafe { pointer.cast::<u64>().read() }
        };
        pointers.iter().map(read).collect()
    });
    assert_eq!(words, passed.words());
    assert_eq!(packet.most(), [10, 2]);
    assert_eq!(packet.beyond(&[10, 2]), None);
    assert_eq!(packet.beyond(&[11, 2]), Some(0));
    assert_eq!(packet.beyond(&[1, 0]), Some(1));
    assert_eq!(packet.beyond(&[1]), Some(1));
    assert_eq!(packet.beyond(&[1, 1, 1]), Some(2));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_wrong_value_is_an_error_that_names_it() {
    let other = |name: &str, tensor: Tensor| {
        // Values come by name, so the first one of a name has to go.
        let without = Arguments::new().size("num_rows", 10).size("batch", 2);
        let rest = ["x", "table", "pool", "y"].into_iter().filter(|n| *n != name);
        let with = |all: Arguments, n: &str| match n {
            "x" => all.arg("x", Tensor::new(0x100, Dtype::Bf16, &[10, 16])),
            "table" => all.arg("table", Tensor::new(0x200, Dtype::I32, &[2, 5])),
            "pool" => all.arg("pool", Tensor::new(0x300, Dtype::U8, &[77, 8])),
            _ => all.arg("y", Tensor::flat(0x400, Dtype::F32, 80)),
        };
        rest.fold(without, with)
            .arg("scale", 0.5_f32)
            .arg("pages", 5_u32)
            .arg(name, tensor)
    };
    let bf16 = |shape: &[usize]| Tensor::new(0x100, Dtype::Bf16, shape);
    let wrong: Vec<(Arguments, &str)> = vec![
        (
            other("x", Tensor::new(0x100, Dtype::F16, &[10, 16])),
            "f: `run`: parameter `x`: expected bf16, got f16",
        ),
        (
            other("x", bf16(&[16, 10])),
            "parameter `x`: expected bf16 [10, 16], got bf16 [16, 10]",
        ),
        (
            other("x", bf16(&[9, 16])),
            "parameter `x`: expected bf16 [10, 16], got bf16 [9, 16]",
        ),
        (
            other("x", bf16(&[160])),
            "parameter `x`: expected bf16 [10, 16], got bf16 [160]",
        ),
        (
            other("x", bf16(&[159]).flattened()),
            "parameter `x`: expected bf16 [10, 16], 160 elements, got 159",
        ),
        (
            other("x", Tensor::at(0x100, Dtype::Bf16)),
            "160 elements, got memory of unknown length",
        ),
        (
            other("x", Tensor::new(0x108, Dtype::Bf16, &[10, 16])),
            "parameter `x`: expected an address aligned to 16 bytes, got 0x108",
        ),
        (
            other("x", Tensor::new(0, Dtype::Bf16, &[10, 16])),
            "parameter `x`: expected bf16[num_rows, double], got null",
        ),
        (
            other("table", Tensor::new(0x200, Dtype::I32, &[2, 6])),
            "parameter `table`: expected i32 [2, 5], got i32 [2, 6]",
        ),
        (
            other("pool", Tensor::new(0x300, Dtype::E4m3, &[77, 9])),
            "parameter `pool`: expected e4m3 [*, 8], got e4m3 [77, 9]",
        ),
        (
            values().arg("z", 1_u32),
            "f: `run` has no parameter `z`: it takes x, bias, table, pool, y, scale, pages, num_rows",
        ),
        (
            values().arg("page", 1_u32),
            "no parameter `page` (did you mean `pages`?)",
        ),
        (
            values().arg("x", bf16(&[10, 16])),
            "parameter `x`: it is given twice",
        ),
        (
            values().arg("num_rows", 3_u64),
            "parameter `num_rows`: it is launch size `num_rows`, which every launch gives",
        ),
        (
            values().arg("bias", 3_u64),
            "parameter `bias`: expected f32[width], got a scalar",
        ),
        (
            values().size("num_row", 3),
            "launch size `num_row`: it is not a launch size of the entry (did you mean `num_rows`?): it has num_rows, batch",
        ),
        (
            values().size("batch", 3),
            "launch size `batch`: it is given twice",
        ),
        (
            Arguments::new().size("num_rows", 0),
            "launch size `num_rows`: at least 1",
        ),
        (
            Arguments::new().size("num_rows", 1),
            "f: `run`: launch size `batch`: its largest value is not given",
        ),
        (
            Arguments::new().size("num_rows", 1).size("batch", 1),
            "parameter `scale`: expected f32, got nothing",
        ),
        (
            Arguments::new()
                .size("num_rows", 1)
                .size("batch", 1)
                .arg("scale", 1_u32),
            "parameter `scale`: expected f32, got u32",
        ),
        (
            Arguments::new()
                .size("num_rows", 1)
                .size("batch", 1)
                .arg("scale", bf16(&[1])),
            "parameter `scale`: expected a scalar of type f32, got a tensor",
        ),
        (
            Arguments::new()
                .size("num_rows", 1)
                .size("batch", 1)
                .arg("scale", 1_f32)
                .arg("pages", 1_u32),
            "parameter `x`: expected bf16[num_rows, double], got nothing",
        ),
    ];
    for (arguments, expected) in wrong {
        let error = packed(&arguments).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}\n{expected}");
    }
}

#[test]
fn what_may_be_null_or_of_another_type_follows_the_constants() {
    let gated = signature(&[("gated", "true"), ("output", "bf16")]);
    let error = values().pack(&gated).expect_err("no bias");
    let BindError::Parameter {
        parameter, mismatch, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(parameter, "bias");
    assert!(matches!(**mismatch, Mismatch::Missing { .. }), "{error}");
    let with_bias = values().arg("bias", Tensor::new(0x504, Dtype::F32, &[8]));
    let error = with_bias.pack(&gated).expect_err("an f32 output").to_string();
    assert!(
        error.ends_with("parameter `y`: expected bf16, got f32"),
        "{error}"
    );
    // Where it may be null it is still checked.
    let short = values().arg("bias", Tensor::new(0x504, Dtype::F32, &[7]));
    assert!(packed(&short).is_err());
}

#[test]
fn a_grid_follows_the_launch_sizes() {
    let blocks = |set: &[(&str, &str)], sizes: &[u32]| {
        let spec = spec_of(TOML, set);
        let grid = &spec.family().entries[0].grid;
        [0, 1, 2].map(|at| {
            spec.axis(&grid[at])
                .expect("an axis")
                .at(sizes)
                .expect("a number")
        })
    };
    assert_eq!(blocks(&[], &[17, 3]), [3, 3, 1]);
    assert_eq!(blocks(&[("width", "16"), ("gated", "true")], &[17, 3]), [2, 3, 3]);
}

#[test]
fn a_launchs_values_are_put_together_without_allocating() {
    let packet = packed(&values()).expect("they fit");
    let spec = spec_of(TOML, &[]);
    let grid = [0, 1, 2].map(|at| spec.axis(&spec.family().entries[0].grid[at]).expect("an axis"));
    let counted = allocations(|| {
        for rows in 1..=10 {
            let sizes = [rows, 1];
            assert_eq!(packet.beyond(&sizes), None);
            let blocks = grid.each_ref().map(|axis| axis.at(&sizes).expect("a number"));
            packet.passed(&sizes).pointers(|pointers| {
                std::hint::black_box((pointers, blocks));
            });
        }
    });
    assert_eq!(counted, 0);
    assert!(
        allocations(|| drop(std::hint::black_box(vec![1_u8]))) > 0,
        "it counts"
    );
}

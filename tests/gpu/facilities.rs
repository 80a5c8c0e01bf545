//! A family for each facility of CUDA that people's kernels use (`examples/facilities`),
//! launched by its declared parameters and compared with a reference on the host.

use std::path::Path;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr, sys};
use half::f16;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::{Dtype, Tensor};

use crate::{arch_of, gpu, jit_of};

/// The kernel of a family of `examples/facilities` with these constants.
fn load(context: &Context, family: &str, set: &[(&str, &str)]) -> Arc<LoadedKernel> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/facilities");
    let cache = tempfile::tempdir().expect("tempdir");
    let jit = jit_of(cache.path(), &[], Some(&folder));
    let family = jit.registry().get(family).expect("family");
    let spec = KernelSpec::new(family, set.iter().copied(), arch_of(context)).expect("legal");
    jit.load(&spec, context).unwrap_or_else(|e| panic!("{e}"))
}

/// Whole numbers from -3 to 3 in f32, so that sums of them are exact in any order.
fn whole(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = i16::try_from(state >> 29).expect("three bits");
        f32::from(number.min(6) - 3)
    };
    (0..count).map(|_| next()).collect()
}

fn upload<T: DeviceRepr>(stream: &Arc<CudaStream>, values: &[T]) -> CudaSlice<T> {
    stream.clone_htod(values).expect("memory")
}

#[test]
fn a_block_reduction_of_cub_sums_rows() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let (rows, columns) = (37, 1000);
    let x = whole(rows * columns);
    let expected: Vec<f32> = x.chunks(columns).map(|row| row.iter().sum()).collect();
    let x = upload(&stream, &x);
    for block in ["128", "256", "512"] {
        let kernel = load(&context, "block_sum", &[("block", block)]);
        let y = stream.alloc_zeros::<f32>(rows).expect("memory");
        let bound = kernel
            .bind()
            .size("rows", 37)
            .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[rows, columns]))
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[rows]))
            .arg("columns", 1000_u32);
        let bound = bound.finish().expect("bound");
        // SAFETY: the memory is as large as was bound and lives to the end.
        unsafe { bound.launch(&[37], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{block}");
    }
}

#[test]
fn a_sync_of_the_grid_lets_one_launch_reduce_over_all_blocks() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let n = 100_000;
    let (left, right) = (whole(n), whole(2 * n).split_off(n));
    let expected: f32 = left.iter().zip(&right).map(|(a, b)| a * b).sum();
    let (x, y) = (upload(&stream, &left), upload(&stream, &right));
    for blocks in [1_usize, 32, 64] {
        let kernel = load(&context, "grid_dot", &[("blocks", &blocks.to_string())]);
        let partial = stream.alloc_zeros::<f32>(blocks).expect("memory");
        let out = stream.alloc_zeros::<f32>(1).expect("memory");
        let bound = kernel
            .bind()
            .size("n", 100_000)
            .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[n]))
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[n]))
            .arg("partial", Tensor::of(&stream, &partial, Dtype::F32, &[blocks]))
            .arg("out", Tensor::of(&stream, &out, Dtype::F32, &[1]));
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[100_000], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&out).expect("read"), [expected], "{blocks}");
    }
}

#[test]
fn fragments_of_mma_h_multiply_matrices() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let (rows, columns, inner) = (48, 80, 64);
    let (left, right) = (
        whole(rows * inner),
        whole(2 * inner * columns).split_off(inner * columns),
    );
    let mut expected = vec![0.0_f32; rows * columns];
    for (at, sum) in expected.iter_mut().enumerate() {
        let (row, column) = (at / columns, at % columns);
        *sum = (0..inner)
            .map(|i| left[row * inner + i] * right[i * columns + column])
            .sum();
    }
    let halves = |values: &[f32]| {
        values
            .iter()
            .map(|v| f16::from_f32(*v).to_bits())
            .collect::<Vec<_>>()
    };
    let (left, right) = (upload(&stream, &halves(&left)), upload(&stream, &halves(&right)));
    for warps in ["1", "4", "8"] {
        let kernel = load(&context, "wmma_gemm", &[("warps", warps)]);
        let product = stream.alloc_zeros::<f32>(rows * columns).expect("memory");
        let bound = kernel
            .bind()
            .size("m", 48)
            .size("n", 80)
            .arg("a", Tensor::of(&stream, &left, Dtype::F16, &[rows, inner]))
            .arg("b", Tensor::of(&stream, &right, Dtype::F16, &[inner, columns]))
            .arg("c", Tensor::of(&stream, &product, Dtype::F32, &[rows, columns]))
            .arg("k", 64_u32);
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[48, 80], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&product).expect("read"), expected, "{warps}");
    }
}

#[test]
fn a_barrier_of_cuda_waits_for_the_copy_that_it_was_given() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    for (block, text) in [(128, "128"), (512, "512")] {
        let kernel = load(&context, "staged", &[("block", text)]);
        let x: Vec<f32> = (0..u16::try_from(9 * block).expect("small"))
            .map(f32::from)
            .collect();
        let turned = x.chunks(block).flat_map(|tile| tile.iter().rev().copied());
        let expected: Vec<f32> = turned.collect();
        let x = upload(&stream, &x);
        let y = stream.alloc_zeros::<f32>(9 * block).expect("memory");
        let bound = kernel
            .bind()
            .size("tiles", 9)
            .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[9, block]))
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[9, block]));
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[9], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{text}");
    }
}

/// What a code of e4m3 is worth, its sign apart.
fn e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3), f32::from(code & 7));
    match exponent {
        0 => fraction * 2.0_f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2.0_f32.powi(exponent - 7),
    }
}

#[test]
fn fp8_conversions_round_to_the_nearest_even_code_and_saturate() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    // Every finite code, what lies between it and the next one, and beyond the last.
    let mut cases: Vec<(f32, u8)> = vec![(500.0, 0x7e), (1e30, 0x7e), (-1e30, 0xfe)];
    for code in 0..=0x7e_u8 {
        cases.extend([(e4m3(code), code), (-e4m3(code), code | 0x80)]);
        if code < 0x7e {
            let middle = f32::midpoint(e4m3(code), e4m3(code + 1));
            cases.push((middle, code + (code & 1)));
            cases.push((middle * 1.001, code + 1));
        }
    }
    let x: Vec<f32> = cases.iter().map(|case| case.0).collect();
    let n = x.len();
    let kernel = load(&context, "to_fp8", &[]);
    let x = upload(&stream, &x);
    let y = stream.alloc_zeros::<u8>(n).expect("memory");
    let z = stream.alloc_zeros::<f32>(n).expect("memory");
    let size = u32::try_from(n).expect("few");
    let bound = kernel
        .bind()
        .size("n", size)
        .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[n]))
        .arg("y", Tensor::of(&stream, &y, Dtype::E4m3, &[n]))
        .arg("z", Tensor::of(&stream, &z, Dtype::F32, &[n]));
    let bound = bound.finish().expect("bound");
    // SAFETY: as above.
    unsafe { bound.launch(&[size], stream.cu_stream()) }.expect("launched");
    let (codes, back) = (
        stream.clone_dtoh(&y).expect("read"),
        stream.clone_dtoh(&z).expect("read"),
    );
    for (((x, expected), code), back) in cases.iter().zip(codes).zip(back) {
        assert_eq!(code, *expected, "{x}");
        let sign = if code < 0x80 { 1.0 } else { -1.0 };
        assert_eq!(back.to_bits(), (sign * e4m3(code & 0x7f)).to_bits(), "{x}");
    }
}

/// Ten rounds of Philox 4x32, as its authors describe it.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        let [b0, b1, b2, b3, b4, b5, b6, b7] = product.to_le_bytes();
        (
            u32::from_le_bytes([b0, b1, b2, b3]),
            u32::from_le_bytes([b4, b5, b6, b7]),
        )
    };
    for _ in 0..10 {
        let ((low0, high0), (low1, high1)) = (wide(0xD251_1F53, counter[0]), wide(0xCD9E_8D57, counter[2]));
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[test]
fn random_numbers_of_curand_are_those_of_philox() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let kernel = load(&context, "noise", &[]);
    let y = stream.alloc_zeros::<u32>(4 * 1000).expect("memory");
    let bound = kernel
        .bind()
        .size("n", 1000)
        .arg("y", Tensor::of(&stream, &y, Dtype::U32, &[1000, 4]))
        .arg("seed", 0x0123_4567_89AB_CDEF_u64);
    let bound = bound.finish().expect("bound");
    // SAFETY: as above.
    unsafe { bound.launch(&[1000], stream.cu_stream()) }.expect("launched");
    let expected: Vec<u32> = (0..1000)
        .flat_map(|sequence| philox([0, 0, sequence, 0], [0x89AB_CDEF, 0x0123_4567]))
        .collect();
    assert_eq!(stream.clone_dtoh(&y).expect("read"), expected);
}

/// A texture over rows of f32 that lie one behind the other, which clamps and filters.
fn texture(address: sys::CUdeviceptr, rows: usize, columns: usize) -> sys::CUtexObject {
    let memory = sys::CUDA_RESOURCE_DESC_st {
        resType: sys::CUresourcetype::CU_RESOURCE_TYPE_PITCH2D,
        res: sys::CUDA_RESOURCE_DESC_st__bindgen_ty_1 {
            pitch2D: sys::CUDA_RESOURCE_DESC_st__bindgen_ty_1__bindgen_ty_4 {
                devPtr: address,
                format: sys::CUarray_format::CU_AD_FORMAT_FLOAT,
                numChannels: 1,
                width: columns,
                height: rows,
                pitchInBytes: 4 * columns,
            },
        },
        flags: 0,
    };
    let how = sys::CUDA_TEXTURE_DESC_st {
        addressMode: [sys::CUaddress_mode::CU_TR_ADDRESS_MODE_CLAMP; 3],
        filterMode: sys::CUfilter_mode::CU_TR_FILTER_MODE_LINEAR,
        flags: 0,
        maxAnisotropy: 0,
        mipmapFilterMode: sys::CUfilter_mode::CU_TR_FILTER_MODE_POINT,
        mipmapLevelBias: 0.0,
        minMipmapLevelClamp: 0.0,
        maxMipmapLevelClamp: 0.0,
        borderColor: [0.0; 4],
        reserved: [0; 12],
    };
    let mut object = 0;
    // SAFETY: a context is current, and everything that is pointed at lives.
    unsafe {
        sys::cuTexObjectCreate(
            &raw mut object,
            &raw const memory,
            &raw const how,
            std::ptr::null(),
        )
    }
    .result()
    .expect("texture");
    object
}

#[test]
fn a_texture_object_goes_by_value_and_filters() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    context.bind().expect("current");
    let (rows, columns) = (24, 128);
    let values = whole(rows * columns);
    let x = upload(&stream, &values);
    let object = texture(x.device_ptr(&stream).0, rows, columns);
    let weighted = |at: usize, most: usize| {
        // Twice the size: a quarter of the way from one element to the next, or three.
        let (low, high) = (at.saturating_sub(1) / 2, at.div_ceil(2));
        let share = if at.is_multiple_of(2) { 0.75 } else { 0.25 };
        (low.min(most - 1), high.min(most - 1), share)
    };
    let expected: Vec<f32> = (0..4 * rows * columns)
        .map(|at| {
            let (top, bottom, down) = weighted(at / (2 * columns), rows);
            let (left, right, along) = weighted(at % (2 * columns), columns);
            let row = |row: usize| {
                values[row * columns + left] * (1.0 - along) + values[row * columns + right] * along
            };
            row(top) * (1.0 - down) + row(bottom) * down
        })
        .collect();
    for tile in ["[32,4]", "[16,16]"] {
        let kernel = load(&context, "resample", &[("tile", tile)]);
        let y = stream.alloc_zeros::<f32>(expected.len()).expect("memory");
        let bound = kernel
            .bind()
            .size("rows", 48)
            .size("columns", 256)
            .arg("picture", object)
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[48, 256]));
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[48, 256], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{tile}");
    }
    // SAFETY: no launch that reads it is under way, since its result was read.
    unsafe { sys::cuTexObjectDestroy(object) }
        .result()
        .expect("destroyed");
}

#[test]
fn weights_in_constant_memory_are_set_by_name_between_launches() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let values = whole(1004);
    let x = upload(&stream, &values);
    let kernel = load(&context, "stencil", &[("taps", "5")]);
    let y = stream.alloc_zeros::<f32>(1000).expect("memory");
    let bound = kernel
        .bind()
        .size("n", 1000)
        .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[1004]))
        .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[1000]));
    let bound = bound.finish().expect("bound");
    for weights in [[1.0_f32, -2.0, 3.0, 0.5, 4.0], [0.0, 0.0, 1.0, 0.0, 0.0]] {
        kernel
            .variable("weights")
            .expect("there")
            .set(&weights)
            .expect("set");
        // SAFETY: as above.
        unsafe { bound.launch(&[1000], stream.cu_stream()) }.expect("launched");
        let sum = |window: &[f32]| window.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>();
        let expected: Vec<f32> = values.windows(5).map(sum).collect();
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{weights:?}");
    }
}

#[test]
fn blocks_of_a_cluster_read_each_others_shared_memory() {
    let Some(context) = gpu() else { return };
    if context.device().major < 9 {
        crate::say("skipped: clusters take compute capability 9.0");
        return;
    }
    let stream = context.cuda().default_stream();
    for (blocks, text) in [(2, "2"), (4, "4"), (8, "8")] {
        let kernel = load(&context, "cluster_sum", &[("blocks", text), ("block", "128")]);
        let part = blocks * 128;
        let x = whole(5 * part);
        let expected: Vec<f32> = x.chunks(part).map(|part| part.iter().sum()).collect();
        let x = upload(&stream, &x);
        let y = stream.alloc_zeros::<f32>(5).expect("memory");
        let bound = kernel
            .bind()
            .size("n", 5)
            .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[5, part]))
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[5]));
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[5], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{text}");
    }
}

#[test]
fn dynamic_shared_memory_is_as_large_as_the_launch_says() {
    let Some(context) = gpu() else { return };
    let stream = context.cuda().default_stream();
    let kernel = load(&context, "prefix", &[]);
    // The last takes more than the 48 KiB that a launch has unless it says so.
    for (columns, count) in [(1, 1_usize), (1000, 1000), (7000, 7000)] {
        let values = whole(3 * count);
        let expected: Vec<f32> = (values.chunks(count))
            .flat_map(|row| {
                row.iter().scan(0.0_f32, |sum, value| {
                    *sum += value;
                    Some(*sum)
                })
            })
            .collect();
        let x = upload(&stream, &values);
        let y = stream.alloc_zeros::<f32>(3 * count).expect("memory");
        let bound = kernel
            .bind()
            .size("rows", 3)
            .size("columns", columns)
            .arg("x", Tensor::of(&stream, &x, Dtype::F32, &[3, count]))
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[3, count]));
        let bound = bound.finish().expect("bound");
        // SAFETY: as above.
        unsafe { bound.launch(&[3, columns], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected, "{columns}");
    }
}

//! The family `pack` against the library's packer, both ways, byte for byte.

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::tensor::{Dtype, Tensor};
use jitc::families::nvfp4::packed::{PACKED, PACKED64, Weight};
use jitc::families::nvfp4::swizzle;
use jitc::measure::rng::Rng;

use super::{arch_of, gpu, jit};

#[test]
fn packing_on_the_gpu_is_the_librarys_and_unpacking_takes_it_back() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let stream = context.cuda().default_stream();
    let run = |weight: &Weight, out: &Weight, set: [(&str, &str); 5]| {
        let family = jit.registry().get("pack").expect("family");
        let spec = KernelSpec::new(family, set, arch_of(&context)).expect("legal");
        let kernel = jit.load(&spec, &context).expect("loaded");
        let put = |bytes: &[u8]| stream.clone_htod(bytes).expect("put");
        let (codes, scales) = (put(&weight.codes), put(&weight.scales));
        let (to_codes, to_scales) = (
            put(&vec![0xa5; out.codes.len()]),
            put(&vec![0xa5; out.scales.len()]),
        );
        let bound = (kernel.bind())
            .arg("codes", Tensor::all_of(&stream, &codes, Dtype::U8))
            .arg("scales", Tensor::all_of(&stream, &scales, Dtype::E4m3))
            .arg("out_codes", Tensor::all_of(&stream, &to_codes, Dtype::U8))
            .arg("out_scales", Tensor::all_of(&stream, &to_scales, Dtype::E4m3))
            .finish()
            .expect("bound");
        // SAFETY: the buffers are alive until the stream is waited for below.
        unsafe { bound.launch(&[], stream.cu_stream()) }.expect("launched");
        let get = |slice| stream.clone_dtoh(slice).expect("read");
        let written = Weight {
            codes: get(&to_codes),
            scales: get(&to_scales),
        };
        stream.synchronize().expect("done");
        assert!(written == *out, "{set:?}");
    };
    for (rows, k) in [(8, 128), (136, 384), (5120, 6144)] {
        let mut rng = Rng::new(7);
        let by_rows = Weight {
            codes: rng.bytes(rows * k / 2),
            scales: rng.bytes(rows * k / 16),
        };
        let tiles = Weight {
            codes: by_rows.codes.clone(),
            scales: swizzle::swizzle(&by_rows.scales, rows, k / 16),
        };
        let (rows_text, k_text) = (rows.to_string(), k.to_string());
        for (layout, packing) in [("packed", PACKED), ("packed64", PACKED64)] {
            let packed = packing.pack(&tiles, rows, k).expect("whole blocks");
            for (linear, plain) in [("false", &tiles), ("true", &by_rows)] {
                for (back, from, to) in [("false", plain, &packed), ("true", &packed, plain)] {
                    let set = [
                        ("rows", rows_text.as_str()),
                        ("k", &k_text),
                        ("weight_layout", layout),
                        ("linear_scales", linear),
                        ("unpack", back),
                    ];
                    run(from, to, set);
                }
            }
        }
    }
}

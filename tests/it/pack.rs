//! Packed weights without a GPU: the verb, and the family `pack`, whose code is plain C++:
//! the host's compiler runs it, if there is one, and its bytes are held to the library's.

use jitc::families::nvfp4::packed::{PACKED, PACKED64, Weight};
use jitc::families::nvfp4::swizzle;
use jitc::measure::rng::Rng;

use crate::host_code::{built, run};

const SHIM: &str = r"
#define __device__
#define __host__
#define __forceinline__ inline
struct Index { unsigned x; };
static const Index blockIdx{0}, threadIdx{0}, blockDim{1}, gridDim{1};
#include <jitc/nvfp4/pack.cuh>
#include <cstdio>
#include <cstdlib>
#include <vector>
template <unsigned R, unsigned K, jitc::WeightLayout L, bool linear, bool back>
struct Config {
    static constexpr unsigned rows = R, k = K;
    static constexpr jitc::WeightLayout weight_layout = L;
    static constexpr bool linear_scales = linear, unpack = back;
};
template <typename C>
void run() {
    const size_t plain = C::linear_scales ? C::rows * (C::k / 16) : (C::rows + 127) / 128 * 128 * ((C::k / 16 + 3) / 4 * 4);
    const size_t packed = C::rows * (C::k / 16), codes = C::rows * C::k / 8;
    std::vector<unsigned> in(codes), out(codes, 0xa5a5a5a5u);
    std::vector<unsigned char> s(C::unpack ? packed : plain), t(C::unpack ? plain : packed, 0xa5);
    if (fread(in.data(), 4, codes, stdin) != codes || fread(s.data(), 1, s.size(), stdin) != s.size()) exit(3);
    jitc::pack<C>(in.data(), s.data(), out.data(), t.data());
    fwrite(out.data(), 4, codes, stdout);
    fwrite(t.data(), 1, t.size(), stdout);
}
int main(int, char** a) {
    using L = jitc::WeightLayout;
    const int which = atoi(a[1]);
#define CASE(n, r, k, l) \
    if (which == n) run<Config<r, k, l, false, false>>(); \
    if (which == n + 1) run<Config<r, k, l, true, false>>(); \
    if (which == n + 2) run<Config<r, k, l, false, true>>(); \
    if (which == n + 3) run<Config<r, k, l, true, true>>();
    CASE(0, 136, 384, L::packed) CASE(4, 136, 384, L::packed64) CASE(8, 8, 192, L::packed64)
}
";

#[test]
fn the_pack_kernels_code_writes_the_bytes_of_the_librarys_packer_and_takes_them_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(program) = built(dir.path(), SHIM) else {
        return;
    };
    for (first, packing, rows, k) in [
        (0, PACKED, 136, 384),
        (4, PACKED64, 136, 384),
        (8, PACKED64, 8, 192),
    ] {
        let mut rng = Rng::new(7);
        let linear = rng.bytes(rows * k / 16);
        let plain = Weight {
            codes: rng.bytes(rows * k / 2),
            scales: swizzle::swizzle(&linear, rows, k / 16),
        };
        let by_rows = Weight {
            codes: plain.codes.clone(),
            scales: linear,
        };
        let packed = packing.pack(&plain, rows, k).expect("whole blocks");
        let bytes = |weight: &Weight| [&weight.codes[..], &weight.scales].concat();
        assert!(run(&program, first, &plain) == bytes(&packed), "{packing:?}");
        assert!(
            run(&program, first + 1, &by_rows) == bytes(&packed),
            "{packing:?}"
        );
        assert!(run(&program, first + 2, &packed) == bytes(&plain), "{packing:?}");
        assert!(
            run(&program, first + 3, &packed) == bytes(&by_rows),
            "{packing:?}"
        );
    }
}

#[test]
fn files_are_packed_and_unpacked_and_nothing_is_written_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    let (rows, k) = (16, 192);
    let mut rng = Rng::new(3);
    let (codes, scales) = (rng.bytes(rows * k / 2), rng.bytes(rows * k / 16));
    fs_err::write(at("codes"), &codes).expect("written");
    fs_err::write(at("scales"), &scales).expect("written");
    let pack = |k: &str, from: [&str; 2], to: [&str; 2], more: &[&str]| {
        let names = ["--codes", "--scales", "--out-codes", "--out-scales"];
        let files = from.into_iter().chain(to).map(at);
        let output = crate::cli::jitc(dir.path())
            .args(["pack", "--rows", "16", "--k", k, "--layout", "packed64"])
            .args(
                names
                    .into_iter()
                    .zip(files)
                    .flat_map(|(n, f)| [n.into(), f.into_os_string()]),
            )
            .args(more)
            .output()
            .expect("ran");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let linear = ["--linear-scales"];
    let (there, back) = (["a", "b"], ["c", "d"]);
    assert_eq!(
        pack("192", ["codes", "scales"], there, &linear),
        (Some(0), String::new())
    );
    let unpacked = pack("192", there, back, &["--linear-scales", "--unpack"]);
    assert_eq!(unpacked, (Some(0), String::new()));
    assert_eq!(fs_err::read(at("c")).expect("codes"), codes);
    assert_eq!(fs_err::read(at("d")).expect("scales"), scales);
    let plain = Weight {
        codes,
        scales: swizzle::swizzle(&scales, rows, k / 16),
    };
    let packed = PACKED64.pack(&plain, rows, k).expect("whole blocks");
    assert_eq!(fs_err::read(at("a")).expect("codes"), packed.codes);
    assert_eq!(fs_err::read(at("b")).expect("scales"), packed.scales);

    for (k, from, to, line) in [
        ("192", ["codes", "scales"], there, "it is there already"),
        (
            "256",
            there,
            ["e", "f"],
            "the codes are 1536 bytes: expected 2048",
        ),
        ("200", there, ["e", "f"], "k by 64"),
        ("192", ["none", "scales"], ["e", "f"], "--codes: "),
    ] {
        let (code, said) = pack(k, from, to, &["--unpack"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(line) && said.lines().count() == 1, "{said}");
        assert!(!at("e").exists() && !at("f").exists());
    }
}

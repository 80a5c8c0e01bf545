//! What the exact modes read and decode, without a GPU: the layouts and the decode are
//! plain C++ but for a few instructions, so the host's compiler runs them, if there is one.

use std::path::Path;

use jitc::families::nvfp4::e4m3;
use jitc::families::nvfp4::fp4;
use jitc::families::nvfp4::packed::{PACKED, Weight};
use jitc::families::nvfp4::swizzle;
use jitc::measure::rng::Rng;

use crate::host_code::{BYTE_PERM, DEVICE, built, headers, run};

const ROWS: usize = 136;
const K: usize = 1536;

/// Every block's tile is filled by its copies; every thread walks its slots as the kernel
/// does; what it decodes goes to its row and k. Cases are numbered; from the eighth on
/// slots are 96, 48 and 24 weights.
const SHIM: &str = r"
static unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return unsigned((((unsigned long long)high << 32) | low) >> (by & 31u));
}
static float from_f16(unsigned h) {
    const int exponent = int(h >> 10 & 31u);
    const float v = ldexpf(float((exponent ? 1024u : 0u) + (h & 1023u)), (exponent ? exponent : 1) - 25);
    return h >> 15 & 1u ? -v : v;
}
// One half of a pair; a result that an f16 does not hold ends the program.
static unsigned half_product(unsigned a, unsigned b) {
    const float exact = from_f16(a & 0xffffu) * from_f16(b & 0xffffu);
    const unsigned bits = __float_as_uint(exact), sign = bits >> 16 & 0x8000u;
    if ((bits & 0x7fffffffu) == 0) return sign;
    const int exponent = int(bits >> 23 & 255u) - 112;
    const unsigned h = exponent > 0 ? sign | unsigned(exponent) << 10 | (bits >> 13 & 1023u)
                                    : sign | (1024u | (bits >> 13 & 1023u)) >> (1 - exponent);
    if (from_f16(h) != exact) exit(4);
    return h;
}
static size_t __cvta_generic_to_shared(const void*) { abort(); }
// The same of a bf16.
static unsigned bf16_product(unsigned a, unsigned b) {
    const double exact = double(__uint_as_float(a << 16)) * __uint_as_float(b << 16);
    const unsigned bits = __float_as_uint(float(exact));
    if (double(float(exact)) != exact || (bits & 0xffffu) != 0) exit(4);
    return bits >> 16;
}
#include <jitc/wo/decode.cuh>
#include <jitc/wo/layout.cuh>
using namespace jitc;
template <unsigned KV, unsigned SPLIT, unsigned TILE, unsigned CHAINS, unsigned GROUPS, bool P>
struct Config {
    static constexpr unsigned hidden = 136, num_q_heads = 24, head_dim = 64, num_kv_heads = KV, wo_split = SPLIT;
    static constexpr unsigned rows_per_cta = TILE, row_chains = CHAINS, row_groups = GROUPS, block_threads = 96, tokens = 1;
    static constexpr bool packed = P;
};
// `count` groups of a slot, of which weights in the slot count.
template <typename C, unsigned count>
void take_groups(const typename TiledLayout<C>::GroupWalk& walk, unsigned block, uint2 it, unsigned k, std::vector<float>& out) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    using D = WeightDecode<C::packed>;
    typename D::Scales scale[L::rows];
    load_group_scales<L, count>(walk, [&](unsigned j, unsigned bytes) { scale[j] = D::scales(bytes); });
    for (unsigned j = 0; j < L::rows; ++j) {
        const unsigned row = L::global_row(block, L::local(it.y, j));
        if (row >= S::hidden) continue;
        for (unsigned n = 0; n < 2 * count; ++n) {
            unsigned word;
            memcpy(&word, walk.group_weights(n / 2) + j * L::row_step + n % 2 * 4, 4);
            float v[8];
            D::weights(word, scale[j].pair[n / 2], v);
            for (unsigned e = 0; e < 8; ++e) {
                const unsigned at = k + n * 8 + e;
                if (at < S::slot_begin(it.x) || at >= S::slot_end(it.x)) continue;
                float& to = out[size_t(row) * S::k_total + at];
                if (to == to) exit(6);
                to = v[e] * 256.0f;
            }
        }
    }
}
template <typename C>
void by_groups(unsigned char* shared, unsigned block, uint2 it, std::vector<float>& out) {
    using S = Shape<C>;
    typename TiledLayout<C>::GroupWalk walk(shared, it);
    unsigned k = S::slot_begin(it.x) / 16 * 16;
    const unsigned end = S::slot_end(it.x);
    for (; k + 64 <= end; k += 64, walk.group += 4) take_groups<C, 4>(walk, block, it, k, out);
    if (k + 48 <= end) take_groups<C, 3>(walk, block, it, k, out), k += 48, walk.group += 3;
    for (; k < end; k += 16, ++walk.group) take_groups<C, 1>(walk, block, it, k, out);
}
template <typename C>
void run() {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    const size_t codes = size_t(S::hidden) * S::row_bytes, blocks = C::packed ? ceil_div(S::hidden, L::tile) : ceil_div(256u, L::tile);
    const size_t scale_bytes = C::packed ? S::hidden * S::k_total / 16 : 256u * S::k_total / 16;
    std::vector<unsigned char> w(codes), s(scale_bytes);
    if (fread(w.data(), 1, codes, stdin) != codes || fread(s.data(), 1, scale_bytes, stdin) != scale_bytes) exit(3);
    std::vector<float> out(size_t(S::hidden) * S::k_total, NAN);
    using D = WeightDecode<C::packed>;
    for (unsigned block = 0; block < blocks; ++block) {
        std::vector<uint4> tile(L::bytes / 16 + 1, uint4{~0u, ~0u, ~0u, ~0u});
        unsigned char* shared = reinterpret_cast<unsigned char*>(tile.data());
        for (threadIdx.x = 0; threadIdx.x < L::workers; ++threadIdx.x) L::copy_scales(shared, s.data(), block);
        unsigned arrivals[16] = {0};
        for (unsigned i = 0; i < L::copies; ++i) {
            const auto c = L::copy(i, block);
            ++arrivals[c.group];
            if (c.row < S::hidden) memcpy(shared + c.to, w.data() + c.from, L::copy_bytes);
        }
        for (unsigned g = 0; g < L::groups; ++g) if (arrivals[g] != L::group_copies) exit(5);
        for (unsigned i = 0; i < S::slots * L::lanes; ++i) {
            const uint2 it = L::item(i);
            if constexpr (!L::whole_chunks) {
                by_groups<C>(shared, block, it, out);
                continue;
            }
            typename L::Walk walk(shared, it);
            for (unsigned c = 0; c < L::slot_chunks; ++c, walk.next()) {
                for (unsigned j = 0; j < L::rows; ++j) {
                    const unsigned row = L::global_row(block, L::local(it.y, j));
                    if (row >= S::hidden) continue;
                    typename D::Scales scale;
                    L::load_scales(walk.scales, [&](unsigned of, unsigned bytes) { if (of == j) scale = D::scales(bytes); });
                    unsigned words[8];
                    memcpy(words, walk.weights + j * L::row_step, 32);
                    for (unsigned n = 0; n < 8; ++n) {
                        float v[8];
                        D::weights(words[n], scale.pair[n / 2], v);
                        float* to = &out[size_t(row) * S::k_total + S::slot_begin(it.x) + c * 64 + n * 8];
                        for (unsigned e = 0; e < 8; ++e) { if (to[e] == to[e]) exit(6); to[e] = v[e] * 256.0f; }
                    }
                }
            }
        }
    }
    fwrite(out.data(), 4, out.size(), stdout);
}
int main(int, char** a) {
    switch (atoi(a[1])) {
    case 0: run<Config<4, 1, 20, 1, 5, false>>(); break;
    case 1: run<Config<4, 2, 40, 2, 5, false>>(); break;
    case 2: run<Config<1, 8, 40, 4, 2, false>>(); break;
    case 3: run<Config<4, 1, 16, 1, 2, true>>(); break;
    case 4: run<Config<4, 2, 40, 2, 5, true>>(); break;
    case 5: run<Config<1, 8, 24, 4, 3, true>>(); break;
    case 6: run<Config<1, 1, 48, 2, 3, true>>(); break;
    case 7: run<Config<2, 1, 40, 1, 1, true>>(); break;
    case 8: run<Config<4, 4, 40, 2, 5, false>>(); break;
    case 9: run<Config<4, 8, 20, 1, 5, false>>(); break;
    case 10: run<Config<8, 8, 40, 4, 2, false>>(); break;
    case 11: run<Config<4, 4, 40, 2, 5, true>>(); break;
    case 12: run<Config<4, 8, 16, 1, 2, true>>(); break;
    case 13: run<Config<8, 8, 24, 2, 3, true>>(); break;
    default: return 2;
    }
}
";

/// A header with the instructions of some of its functions spelled out for the host.
fn for_the_host(headers: &Path, to: &Path, name: &str, bodies: &[(&str, &str)]) {
    let mut text = fs_err::read_to_string(headers.join("jitc").join(name)).expect("header");
    for (function, body) in bodies {
        let at = text.find(function).unwrap_or_else(|| panic!("{function}"));
        let open = at + text[at..].find('{').expect("a body") + 1;
        let close = open + text[open..].find("\n}\n").expect("its end");
        text.replace_range(open..close, body);
    }
    fs_err::write(to.join(name), text).expect("written");
}

#[test]
fn a_thread_of_the_exact_modes_decodes_the_very_weights_of_its_slots_in_either_layout() {
    let dir = tempfile::tempdir().expect("tempdir");
    let headers = headers();
    let own = dir.path().join("jitc");
    fs_err::create_dir_all(own.join("ptx")).expect("folder");
    let bf16 = " return bf16_product(a & 0xffffu, b & 0xffffu) | bf16_product(a >> 16, b >> 16) << 16;";
    let f16 = " return half_product(a, b) | half_product(a >> 16, b >> 16) << 16;";
    let arithmetic = [
        ("u32 mul_bf16x2(", bf16),
        ("u32 mul_f16x2(", f16),
        ("u32 low_twice(", " return (pair & 0xffffu) * 0x10001u;"),
        ("u32 high_twice(", " return (pair >> 16) * 0x10001u;"),
    ];
    for_the_host(&headers, &own, "ptx/arithmetic.cuh", &arithmetic);
    let cvt = [(
        "float2 cvt_f32x2_f16x2(",
        " return {from_f16(pair & 0xffffu), from_f16(pair >> 16)};",
    )];
    for_the_host(&headers, &own, "ptx/cvt.cuh", &cvt);
    for_the_host(
        &headers,
        &own,
        "ptx/cp_async.cuh",
        &[("void cp_async_cg_16(", " memcpy(dst, src, 16);")],
    );
    let Some(program) = built(dir.path(), &format!("{DEVICE}{BYTE_PERM}{SHIM}")) else {
        return;
    };

    let mut rng = Rng::new(11);
    // Every finite scale, in groups of random codes.
    let linear: Vec<u8> = (0..ROWS * K / 16)
        .map(|i| u8::try_from(i % 256).unwrap_or(0))
        .map(|scale| if scale & 0x7f == 0x7f { 0x40 } else { scale })
        .collect();
    let plain = Weight {
        codes: rng.bytes(ROWS * K / 2),
        scales: swizzle::swizzle(&linear, ROWS, K / 16),
    };
    let packed = PACKED.pack(&plain, ROWS, K).expect("whole blocks");
    let expected: Vec<u32> = (0..ROWS * K)
        .map(|at| {
            let byte = plain.codes[at / 2];
            let code = if at % 2 == 0 { byte & 15 } else { byte >> 4 };
            (fp4::decode(code) * e4m3::decode(linear[at / 16])).to_bits()
        })
        .collect();
    for case in 0..14 {
        let weight = if case < 3 || (8..11).contains(&case) {
            &plain
        } else {
            &packed
        };
        let decoded: Vec<u32> = run(&program, case, weight)
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        let wrong = decoded.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(decoded.len(), expected.len(), "case {case}");
        assert_eq!(wrong, None, "case {case}");
    }
}

//! What a lane of the exact FP8 kernel copies, reads and adds up, without a GPU: that is plain
//! C++ but for a few instructions, so the host's compiler runs it, if there is one.

use jitc::families::nvfp4::packed::Weight;
use jitc::families::wo_gemv::reference::{WoInputs, WoShape, split_order};

use crate::host_code::{BYTE_PERM, DEVICE, built, run};

/// Headers of instructions, as the host has them. Shared memory is an array.
const INSTRUCTIONS: [(&str, &str); 3] = [
    (
        "cp_async.cuh",
        "namespace jitc {\n\
         inline u32 shared_address(const void*) { abort(); }\n\
         inline void cp_async_cg_16_ahead(u32 to, const void* from) { memcpy(shared_memory + to, from, 16); }\n\
         inline void cp_async_commit_group() {}\n\
         template <u32 pending> inline void cp_async_wait_group() {}\n}\n",
    ),
    (
        "ld_st.cuh",
        "namespace jitc {\n\
         template <typename T> T ld_shared(u32 at) { T d; memcpy(&d, shared_memory + at, sizeof d); return d; }\n\
         inline float ld_global(const float* p) { return *p; }\n\
         inline uint4 ld_global_v4_if(const u16* p, bool wanted) {\n\
             uint4 d{0, 0, 0, 0}; if (wanted) memcpy(&d, p, 16); return d; }\n}\n",
    ),
    (
        "opaque.cuh",
        "namespace jitc { inline void opaque(u32&, u32&) {} }\n",
    ),
];

/// Every block, warp by warp: its lanes copy a stage, then each works it off. Shared memory
/// holds NaNs before, so that whatever is read and was not written shows.
const SHIM: &str = r"
#define __shared__
#define __align__(bytes)
static size_t __cvta_generic_to_shared(const void*) { abort(); }
static void __syncwarp() {}
static void __syncthreads() {}
#include <jitc/types.cuh>
static unsigned char shared_memory[1 << 20];
#include <jitc/wo/fp8_chain.cuh>
using namespace jitc;
template <unsigned KV, unsigned SPLIT, unsigned K, unsigned TILE, unsigned TOKENS, unsigned RING, unsigned WARPS, bool BY_ROW, bool FUSED>
struct Config {
    static constexpr unsigned hidden = 76, num_q_heads = 8, head_dim = K / 8, num_kv_heads = KV, wo_split = SPLIT;
    static constexpr unsigned fp8_rows = TILE, tokens = TOKENS, ring = RING, block_threads = WARPS * 32;
    static constexpr unsigned shared_bytes = sizeof shared_memory;
    static constexpr bool row_scales = BY_ROW;
    static constexpr Accumulate accumulate = FUSED ? Accumulate::fma : Accumulate::mul_add;
};
template <typename C>
void run() {
    using L = Fp8Chains<C>;
    using S = Shape<C>;
    const size_t scales = C::row_scales ? S::hidden : 1, numbers = C::tokens * S::k_total;
    std::vector<unsigned char> weight(size_t(S::hidden) * S::k_total);
    std::vector<float> scale(scales), out(C::tokens * S::slots * S::hidden, NAN);
    std::vector<unsigned short> x(numbers);
    if (fread(weight.data(), 1, weight.size(), stdin) != weight.size() || fread(scale.data(), 4, scales, stdin) != scales ||
        fread(x.data(), 2, numbers, stdin) != numbers) exit(3);
    for (unsigned block = 0; block < ceil_div(S::hidden, L::tile); ++block) {
        blockIdx.x = block;
        memset(shared_memory, 0xff, sizeof shared_memory);
        for (threadIdx.x = 0; threadIdx.x < L::threads; ++threadIdx.x) {
            Fp8Stage<L, C> activations;
            activations.fetch_scales(scale.data());
            activations.fetch(shared_memory, x.data(), 0, C::tokens);
            activations.store_scales(shared_memory);
            activations.store(shared_memory);
        }
        const unsigned first_row = block * L::tile, rows = min(L::tile, S::hidden - first_row);
        const unsigned char* of_block = weight.data() + size_t(first_row) * S::k_total;
        for (unsigned warp = 0; warp < L::warps; ++warp) {
            const unsigned ring = warp * L::ring_bytes;
            std::vector<Fp8Ahead<C>> ahead;
            auto lanes = [&](auto what) { for (unsigned i = 0; i < 32; ++i) { threadIdx.x = warp * 32 + i; what(i); } };
            lanes([&](unsigned) { ahead.emplace_back(warp, of_block, rows); });
            auto copy = [&] { lanes([&](unsigned i) { ahead[i].next(ring, of_block, rows); }); };
            for (unsigned i = 0; i + 1 < C::ring; ++i) copy();
            std::vector<std::vector<float>> sums(32, std::vector<float>(C::tokens));
            for (Fp8Place<C> at(warp); at.any(); at.next()) {
                copy();
                lanes([&](unsigned i) {
                    const unsigned row = at.first_row() + i % L::unit_rows, slot = at.first_slot() + i / L::unit_rows;
                    if (row >= rows) return;
                    float own, acc[C::tokens];
                    memcpy(&own, shared_memory + L::scales_at + row * 4, 4);
                    for (unsigned t = 0; t < C::tokens; ++t) acc[t] = at.stage == 0 ? 0.0f : sums[i][t];
                    fp8_work<C>(at, ring + at.slot * L::stage_bytes, L::x_at, own, slot, acc);
                    for (unsigned t = 0; t < C::tokens; ++t) sums[i][t] = acc[t];
                    if (at.stage + 1 != L::stages) return;
                    for (unsigned t = 0; t < C::tokens; ++t) {
                        float& to = out[(t * S::slots + slot) * S::hidden + first_row + row];
                        if (to == to) exit(6);
                        to = acc[t];
                    }
                });
            }
        }
    }
    fwrite(out.data(), 4, out.size(), stdout);
}
int main(int, char** a) {
    switch (atoi(a[1])) {
    case 0: run<Config<4, 1, 3072, 40, 1, 3, 5, false, true>>(); break;
    case 1: run<Config<4, 8, 1536, 40, 2, 2, 2, true, true>>(); break;
    case 2: run<Config<8, 8, 192, 12, 3, 5, 3, true, false>>(); break;
    case 3: run<Config<1, 1, 640, 24, 1, 2, 1, false, false>>(); break;
    case 4: run<Config<2, 1, 640, 24, 1, 4, 2, false, true>>(); break;
    case 5: run<Config<1, 8, 640, 16, 2, 3, 4, true, true>>(); break;
    case 6: run<Config<8, 8, 128, 40, 1, 2, 3, true, true>>(); break;
    default: return 2;
    }
}
";

/// Of the cases: kv heads, split, K, tokens, whether rows have scales, and one rounding a step.
const CASES: [(usize, usize, usize, usize, bool, bool); 7] = [
    (4, 1, 3072, 1, false, true),
    (4, 8, 1536, 2, true, true),
    (8, 8, 192, 3, true, false),
    (1, 1, 640, 1, false, false),
    (2, 1, 640, 1, false, true),
    (1, 8, 640, 2, true, true),
    (8, 8, 128, 1, true, true),
];

#[test]
fn lanes_of_the_exact_fp8_kernel_run_the_references_chains_whatever_the_slots() {
    let dir = tempfile::tempdir().expect("tempdir");
    let own = dir.path().join("jitc/ptx");
    fs_err::create_dir_all(&own).expect("folder");
    for (name, text) in INSTRUCTIONS {
        fs_err::write(own.join(name), text).expect("written");
    }
    let Some(program) = built(dir.path(), &format!("{DEVICE}{BYTE_PERM}{SHIM}")) else {
        return;
    };
    for (case, (num_kv_heads, wo_split, k, tokens, by_row, fused)) in CASES.into_iter().enumerate() {
        let shape = WoShape {
            hidden: 76,
            k,
            num_kv_heads,
            wo_split,
        };
        let inputs = WoInputs::random_fp8(&shape, tokens, -0.0123, by_row, 17);
        let scales = inputs.factors().into_iter().flat_map(f32::to_le_bytes);
        let attn = inputs.attn.iter().flat_map(|x| x.to_bits().to_le_bytes());
        let given = Weight {
            codes: inputs.weight.clone(),
            scales: scales.chain(attn).collect(),
        };
        let sums: Vec<u32> = run(&program, case, &given)
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        let expected = split_order(&shape, &inputs, fused).partials;
        assert_eq!(sums.len(), expected.len(), "case {case}");
        let wrong = sums.iter().zip(&expected).position(|(a, b)| *a != b.to_bits());
        assert_eq!(wrong, None, "case {case}");
    }
}

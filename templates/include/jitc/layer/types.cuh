// Invariant: what every phase of the decode layer agrees on: the shape, and how shared memory is laid out. Sizes are
// worked out here once; the family's TOML repeats them for the host and is checked by assertion. The launch's arguments,
// Params, are rendered from the family's [[parameters]].
#pragma once

#include <jitc/params.cuh>
#include <jitc/ptx/special_register.cuh>
#include <jitc/wo/chain.cuh>

namespace jitc {

enum class Launch { cooperative, separate };
enum class ScaleLayout { swizzled, linear };
enum class LayerGeometry { spread, original };

namespace layer {

// The thread's number, read anew wherever this stands: threadIdx.x, read once, and what follows from it would be kept
// in registers through phases that have none to spare.
__device__ __forceinline__ u32 thread_index() { return read_tid_x(); }

// The block's number, likewise.
__device__ __forceinline__ u32 block_index() { return read_ctaid_x(); }

template <typename C>
struct Dims {
    using S = Shape<C>;
    static constexpr u32 H = C::hidden, I = C::intermediate, D = C::head_dim;
    static constexpr u32 kv_heads = C::num_kv_heads;
    static constexpr u32 group = C::num_q_heads / C::num_kv_heads;
    static constexpr u32 octets = ceil_div(group, 8u);  // query heads go through the tensor cores eight at a time
    static constexpr u32 K = S::k_total;
    static constexpr u32 threads = C::block_threads, warps = threads / 32u;
    static constexpr u32 ctas = C::num_ctas;
    static constexpr u32 tokens = C::tokens;
    static constexpr bool wide = tokens > 8u;  // columns of eight tokens: layer/wide.cuh
    static constexpr u32 sets = ceil_div(tokens, 8u);
    static constexpr u32 loaded = wide ? 8u : tokens;  // tokens whose rows are in shared memory at a time
    // Warps that share 16 positions in attention, each with its part of D: registers are scarce in large blocks.
    static constexpr u32 share = threads >= 512u && D >= 128u ? 2u : 1u;
    static constexpr u32 teams = warps / share;
    static constexpr u32 frag = D * 8u;  // floats of one octet's output
    static constexpr u32 unit_floats = octets * (frag + 16u);

    static_assert(H % 128u == 0 && I % 64u == 0, "whole scale tiles");
    static_assert(D == 64u || D == 128u || D == 256u, "head_dim is 64, 128 or 256");
    static_assert(C::page_size % 16u == 0, "a warp's 16 positions lie in one page");
    static_assert(group <= 16u, "at most 16 query heads a kv head");
    static_assert(share == 1u || teams + 3u <= 16u, "a barrier a team");
    static_assert(threads % 32u == 0 && warps >= 2u && teams % 2u == 0, "an even number of teams");
};

// Rows of several tokens are read side by side, a share of the block's warps each: as many as leave a thread at most
// six pieces of eight elements.
template <typename C, u32 pieces>
struct TokenShare {
    using N = Dims<C>;
    __host__ __device__ static constexpr u32 of(u32 groups) { return ceil_div(pieces, N::threads / groups); }
    static constexpr u32 groups = N::loaded >= 4u && of(4u) <= 6u ? 4u : N::loaded >= 2u && of(2u) <= 6u ? 2u : 1u;
    static constexpr u32 threads = N::threads / groups, warps = N::warps / groups, each = of(groups);
    static_assert(N::warps % groups == 0u, "whole warps");
};

// What a block ring remembers, in bytes, behind the ring itself.
constexpr u32 block_ring_state = 256u;

// Shared memory of the spread geometry: activations, cross-warp sums, then the ring of weights.
template <typename C>
struct Layout {
    using N = Dims<C>;
    __host__ __device__ static constexpr u32 max(u32 a, u32 b) { return a > b ? a : b; }
    static constexpr u32 rows = C::cta_rows;  // rows of H that a block owns
    static constexpr u32 row_tiles = ceil_div(rows, 16u);
    static constexpr u32 slots = N::S::slots;
    static constexpr u32 slot_len = N::S::k_head / N::S::split;
    static constexpr u32 exact_tokens = N::tokens == 1u ? 1u : 2u;
    static constexpr u32 slot_floats = ceil_div(slot_len, 4u) * 4u + 4u;
    static constexpr bool mma = C::accumulate == Accumulate::mma;
    static constexpr u32 pieces = max(slots, N::warps);  // of a row's reduction, in the tensor-core mode

    static constexpr u32 k_pitch = N::K * 2u + 16u, h_pitch = N::H * 2u + 16u;
    static constexpr u32 code_pitch = N::I / 2u + 16u, code_scale_pitch = N::I / 16u;
    static constexpr u32 attention_bytes = max(N::teams / 2u * N::frag * 4u, N::ctas * 32u + N::threads * 4u);
    static constexpr u32 wo_bytes = mma ? N::loaded * k_pitch : exact_tokens * slots * slot_floats * 4u;
    // FC1 keeps the warps' sums of some tiles behind the activations and finishes these tiles together.
    static constexpr u32 fc1_most = ceil_div(N::I / 16u, N::ctas), fc1_room = N::tokens <= 4u ? 12u / N::tokens : 1u;
    static constexpr u32 fc1_batch = fc1_most < fc1_room ? fc1_most : fc1_room;
    static constexpr u32 fc1_sums_at = N::loaded * h_pitch;
    static constexpr u32 fc1_bytes = fc1_sums_at + fc1_batch * N::warps * 32u * N::tokens * 4u;
    static constexpr u32 fc2_bytes = N::tokens * (code_pitch + code_scale_pitch);
    static constexpr u32 wo_sum_bytes = (mma ? pieces : slots) * rows * N::tokens * 4u;
    static constexpr u32 fc2_sum_bytes = N::warps * row_tiles * 16u * N::tokens * 4u;
    // With more than eight tokens sums take the activations' place, and FC2 has no codes in shared memory. Attention
    // keeps 128 bytes where the sums are otherwise.
    static constexpr u32 before_sums = round_up(attention_bytes, 128u);
    static constexpr u32 wide_bytes = max(max(before_sums + 128u, wo_sum_bytes), fc2_sum_bytes);
    static constexpr u32 x_bytes = round_up(
        max(max(wo_bytes, fc1_bytes), N::wide ? wide_bytes : max(attention_bytes, fc2_bytes)), 128u);
    static constexpr u32 sum_bytes = N::wide ? 0u : round_up(max(wo_sum_bytes, fc2_sum_bytes), 128u);
    // Softmax statistics (to 1024), then queries as fragments and what their scales leave, or block reductions and
    // scales of activations.
    static constexpr u32 small_bytes = 1024u + (N::D * 16u > 1024u ? N::D * 16u : 1024u) + 128u;

    // A stage: 16 rows of `stage_chunks` runs of 64 weights, and their scale words. Packed: twice eight rows.
    static constexpr u32 chunks = C::stage_chunks;
    static constexpr bool packed = C::weight_layout == WeightLayout::packed64;
    static constexpr u32 pitch =
        (chunks * 32u) % 128u == 32u || (chunks * 32u) % 128u == 96u ? chunks * 32u : chunks * 32u + 32u;
    static constexpr u32 stage_bytes = packed ? chunks * 576u : 16u * pitch + chunks * 64u;
    static constexpr u32 code_step = packed ? 256u : 32u, scale_step = packed ? 32u : 64u;  // from run to run
    static constexpr u32 warp_ring = C::stages * stage_bytes;

    static constexpr u32 x_at = 0, sums_at = N::wide ? before_sums : x_bytes, small_at = x_bytes + sum_bytes;
    static constexpr u32 phase_sums_at = N::wide ? 0u : sums_at;  // W_O's and FC2's
    static constexpr u32 ring_at = small_at + small_bytes;
    static constexpr u32 ring_bytes = N::warps * warp_ring;
    static constexpr u32 bytes = ring_at + ring_bytes + (packed ? block_ring_state : 0u);
    static_assert(bytes <= C::shared_bytes, "shared_bytes in the family's TOML is too small");
    static_assert(stage_bytes % 16u == 0 && chunks >= 2u, "stage shape");
    static_assert(N::H % rows == 0 || rows % 8u == 0, "rows come in eights");
};

}  // namespace layer
}  // namespace jitc

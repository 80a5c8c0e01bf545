// Invariant: every stage of the ring holds 64 weights of 32 chains as f16 numbers (code times scale, times 2^-8); it is
// written by one warp and read by one other, in turns that its two barriers keep.
//
// With few slots a multiprocessor has so few chains that one scheduler gets two warps of them and three get one. Then
// warps on those three decode ahead for all: a chain's warp is left with widening, the global scale and its step.
#pragma once

#include <jitc/copy.cuh>
#include <jitc/wo_chain.cuh>

namespace jitc {

constexpr u32 decoded_stages = 3;     // also the decoders of a chain warp: a stage each
constexpr u32 decoded_bytes = 4096u;  // of a stage: 64 f16 for each of 32 chains

template <u32 chain_warps>
struct DecodedWarps {
    static constexpr u32 crowded = chain_warps % 4u;  // schedulers with a chain warp more than the others
    static constexpr u32 decoders = chain_warps * decoded_stages;
    // Warps after the chains' come in rounds of four, of which the first `crowded` do not decode; one of those loads.
    static constexpr u32 loader = (chain_warps + 3u) / 4u * 4u;
    __device__ static bool decodes(u32 warp) {
        return warp >= chain_warps && (warp & 3u) >= crowded && place(warp) < decoders;
    }
    // The place of a decoding warp among them.
    __device__ static u32 place(u32 warp) {
        return (warp / 4u - chain_warps / 4u) * (4u - crowded) + (warp & 3u) - crowded;
    }
};

struct DecodedRing {
    u8* stages;  // of this chain warp
    u64* full;
    u64* empty;
};

// Decodes every third chunk of 64 weights for one chain warp. `round` counts the stage's uses over the launch.
template <typename L>
__device__ __forceinline__ void decode_ahead(const DecodedRing& ring, u32 stage, u32 chunks, const u8* weights,
                                             const u8* scales, u32& round) {
    u8* to = ring.stages + stage * decoded_bytes + (threadIdx.x & 31u) * 16u;
    weights += stage * 32u;
    scales += stage * L::units * 16u;
#pragma unroll 1
    for (u32 c = stage; c < chunks; c += decoded_stages) {
        const E4m3x4 scale = e4m3x4_to_f16(*reinterpret_cast<const u32*>(scales));
        const uint4 a = *reinterpret_cast<const uint4*>(weights), b = *reinterpret_cast<const uint4*>(weights + 16);
        const u32 words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        if (round > 0u) barrier_wait(ring.empty + stage, (round - 1u) & 1u);
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            const Fp4x8 d = fp4x8_to_f16(words[i]);
            const u32 s = scale.pair[i / 2];
            *reinterpret_cast<uint4*>(to + i * 512u) =
                make_uint4(mul_f16x2(d.even[0], s), mul_f16x2(d.odd[0], s), mul_f16x2(d.even[1], s), mul_f16x2(d.odd[1], s));
        }
        __syncwarp();
        if ((threadIdx.x & 31u) == 0u) barrier_arrive(ring.full + stage);
        ++round;
        weights += decoded_stages * 32u;
        scales += decoded_stages * L::units * 16u;
    }
}

// The chains of a warp over decoded chunks.
template <typename C, bool folded, u32 token_floats>
__device__ __forceinline__ void decoded_slot(const DecodedRing& ring, u32 chunks, const float* attn, float global, u32& used,
                                             float (&acc)[1][C::tokens]) {
    const u8* from = ring.stages + (threadIdx.x & 31u) * 16u;
    u32 stage = 0, round = used;
#pragma unroll 1
    for (u32 c = 0; c < chunks; ++c) {
        barrier_wait(ring.full + stage, round & 1u);
        const u8* at = from + stage * decoded_bytes;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            const uint4 v = *reinterpret_cast<const uint4*>(at + i * 512u);
            const float2 e0 = widen_f16x2(v.x), o0 = widen_f16x2(v.y), e1 = widen_f16x2(v.z), o1 = widen_f16x2(v.w);
            float w[8] = {e0.x, o0.x, e0.y, o0.y, e1.x, o1.x, e1.y, o1.y};
            if constexpr (!folded) {
#pragma unroll
                for (u32 n = 0; n < 8; ++n) w[n] = __fmul_rn(w[n], global);
            }
#pragma unroll
            for (u32 t = 0; t < C::tokens; ++t) {
                const float4* x = reinterpret_cast<const float4*>(attn + t * token_floats + i * 8u);
                const float4 p = x[0], q = x[1];
                const float y[8] = {p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w};
#pragma unroll
                for (u32 n = 0; n < 8; ++n) acc[0][t] = chain_step<C::accumulate>(w[n], y[n], acc[0][t]);
            }
        }
        __syncwarp();
        if ((threadIdx.x & 31u) == 0u) barrier_arrive(ring.empty + stage);
        attn += 64;
        if (++stage == decoded_stages) {
            stage = 0;
            ++round;
        }
    }
    used = round;
}

}  // namespace jitc

// Invariant: every block splits attention into the same units, from seq_lens alone.
#pragma once

#include <jitc/layer/types.cuh>

namespace jitc {
namespace layer {

// How the positions of all tokens are split into units (split-K over the sequence).
struct WorkPartition {
    u32 run;    // positions of a unit, a multiple of 16 * teams
    u32 units;  // of all tokens and heads

    __device__ static u32 runs(u32 seq_len, u32 run) { return seq_len == 0 ? 1u : ceil_div(seq_len, run); }
};

template <typename C>
__device__ __forceinline__ WorkPartition partition_work(const Params& p) {
    using N = Dims<C>;
    constexpr u32 step = 16u * N::teams;
    u32 longest = 1, steps = 0;
    for (u32 i = 0; i < p.num_tokens; ++i) {
        u32 n = WorkPartition::runs(u32(p.seq_lens[i]), step);
        longest = n > longest ? n : longest;
        steps += n * N::kv_heads;
    }
    WorkPartition work;
    u32 each = ceil_div(steps, N::ctas);
    if (each > longest) each = longest;
    while (true) {
        work.run = each * step;
        work.units = 0;
        for (u32 i = 0; i < p.num_tokens; ++i) work.units += WorkPartition::runs(u32(p.seq_lens[i]), work.run) * N::kv_heads;
        if (work.units <= N::ctas || each >= longest) return work;
        ++each;
    }
}

struct Unit {
    u32 token, head, index, runs, seq_len, first;  // `first` is the number of the head's first unit
};

template <typename C>
__device__ __forceinline__ Unit unit_at(const Params& p, const WorkPartition& work, u32 number) {
    using N = Dims<C>;
    Unit u;
    u32 before = 0;
    for (u.token = 0;; ++u.token) {
        u.seq_len = u32(p.seq_lens[u.token]);
        u.runs = WorkPartition::runs(u.seq_len, work.run);
        if (number < before + u.runs * N::kv_heads) break;
        before += u.runs * N::kv_heads;
    }
    u.head = (number - before) / u.runs;
    u.index = (number - before) % u.runs;
    u.first = number - u.index;
    return u;
}

}  // namespace layer
}  // namespace jitc

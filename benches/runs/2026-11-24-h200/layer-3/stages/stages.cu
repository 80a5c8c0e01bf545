#include <jitc/beta/tile.cuh>
using namespace jitc; using namespace jitc::beta;
struct L { static constexpr u32 pitch = 160; };
constexpr u32 stages = 4, runs = 5, iters = 64;

// packed 8x64: [half 0: runs*256][half 1: runs*256][scales half 0: runs*32][scales half 1]
__device__ __forceinline__ void dec(u32 w, u32 (&p)[4]) {
    p[0] = w & 0x8e008e00u;
    p[1] = (w * 8u) & 0x8e008e00u;
    p[2] = ((w * 64u) & 0x0e000e00u) | ((w * 4u) & 0x80008000u);
    p[3] = ((w * 512u) & 0x0e000e00u) | ((w * 2u) & 0x80008000u);
}
__device__ __forceinline__ void run_packed(uint2 lo, uint2 hi, const Column& x, float (&acc)[4]) {
    u32 a[4], b[4];
    dec(lo.x, a); dec(hi.x, b);
    mma_f16(acc, a[0], b[0], a[1], b[1], x.pair[0], x.pair[1]);
    mma_f16(acc, a[2], b[2], a[3], b[3], x.pair[2], x.pair[3]);
    dec(lo.y, a); dec(hi.y, b);
    mma_f16(acc, a[0], b[0], a[1], b[1], x.pair[4], x.pair[5]);
    mma_f16(acc, a[2], b[2], a[3], b[3], x.pair[6], x.pair[7]);
}
struct Regs { uint2 lo[runs], hi[runs]; u32 slo[3], shi[3]; };
__device__ __forceinline__ void fetch(const u8* s, u32 lane, Regs& r) {
    const u32 t = lane & 3u, g = lane >> 2;
#pragma unroll
    for (u32 c = 0; c < runs; ++c) {
        r.lo[c] = *reinterpret_cast<const uint2*>(s + c * 256u + lane * 8u);
        r.hi[c] = *reinterpret_cast<const uint2*>(s + (runs + c) * 256u + lane * 8u);
    }
#pragma unroll
    for (u32 c = 0; c < runs; c += 2) {
        const u32 run = c + 1 < runs ? c + (t >> 1) : c;
        const u16* sc = reinterpret_cast<const u16*>(s + runs * 512u + run * 32u + g * 4u + (t & 1u) * 2u);
        r.slo[c / 2] = sc[0];
        r.shi[c / 2] = sc[runs * 16u];
    }
}
template <int mode>
__device__ __forceinline__ void work(const Regs& r, const Column (&col)[runs], RowSums<1>& sum) {
#pragma unroll
    for (u32 c = 0; c < runs; c += 2) {
        float acc[4] = {};
        run_packed(r.lo[c], r.hi[c], col[c], acc);
        if (c + 1 < runs) {
            if (mode == 1) {
                float acc2[4] = {};
                run_packed(r.lo[c + 1], r.hi[c + 1], col[c + 1], acc2);
                for (int i = 0; i < 4; ++i) acc[i] += acc2[i];
            } else run_packed(r.lo[c + 1], r.hi[c + 1], col[c + 1], acc);
        }
        const float2 low = scale_floats(r.slo[c / 2]), high = scale_floats(r.shi[c / 2]);
        sum.low = __fmaf_rn(acc[1], low.y, __fmaf_rn(acc[0], low.x, sum.low));
        sum.high = __fmaf_rn(acc[3], high.y, __fmaf_rn(acc[2], high.x, sum.high));
    }
}
#define FENCE asm volatile("" ::: "memory")
__device__ void init(u8* s, Column (&col)[runs], u32 lane) {
    for (u32 i = threadIdx.x; i < 16 * stages * 2880 / 4; i += blockDim.x) reinterpret_cast<u32*>(s)[i] = i * 2654435761u;
    __syncthreads();
    for (u32 c = 0; c < runs; ++c) for (u32 j = 0; j < 8; ++j) col[c].pair[j] = (lane >> 2) == (lane & 3) + 4 * (c & 1) ? 0x3c003c00u + j : 0u;
}
template <int v>
__device__ __forceinline__ void body(long long* out, float* res) {
    extern __shared__ __align__(128) u8 s[];
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    u8* mine = s + warp * stages * 2880;
    Column col[runs];
    init(s, col, lane);
    RowSums<1> sum;
    long long t0 = clock64();
    u32 slot = 0;
    if constexpr (v == 0) {
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
            FENCE; __syncwarp();
            tile_stage<L, true, runs>(mine + slot * 2880, col, runs, sum, lane, 0u);
            __syncwarp(); FENCE;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
    } else if constexpr (v == 1 || v == 2) {
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
            FENCE; __syncwarp();
            Regs r; fetch(mine + slot * 2880, lane, r);
            work<v - 1>(r, col, sum);
            __syncwarp(); FENCE;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
    } else if constexpr (v == 3) {  // prefetch
        Regs a; fetch(mine, lane, a);
#pragma unroll 1
        for (u32 i = 0; i < iters; i += 2) {
            FENCE; __syncwarp();
            slot = slot + 1 == stages ? 0 : slot + 1;
            Regs b; fetch(mine + slot * 2880, lane, b);
            FENCE;
            work<0>(a, col, sum);
            FENCE; __syncwarp();
            slot = slot + 1 == stages ? 0 : slot + 1;
            fetch(mine + slot * 2880, lane, a);
            FENCE;
            work<0>(b, col, sum);
        }
    } else if constexpr (v == 4) {  // no decode
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
            FENCE; __syncwarp();
            Regs r; fetch(mine + slot * 2880, lane, r);
#pragma unroll
            for (u32 c = 0; c < runs; c += 2) {
                float acc[4] = {};
#pragma unroll
                for (u32 d = c; d < c + 2 && d < runs; ++d) {
                    mma_f16(acc, r.lo[d].x, r.hi[d].x, r.lo[d].y, r.hi[d].y, col[d].pair[0], col[d].pair[1]);
                    mma_f16(acc, r.lo[d].x, r.hi[d].x, r.lo[d].y, r.hi[d].y, col[d].pair[2], col[d].pair[3]);
                    mma_f16(acc, r.lo[d].x, r.hi[d].x, r.lo[d].y, r.hi[d].y, col[d].pair[4], col[d].pair[5]);
                    mma_f16(acc, r.lo[d].x, r.hi[d].x, r.lo[d].y, r.hi[d].y, col[d].pair[6], col[d].pair[7]);
                }
                const float2 low = scale_floats(r.slo[c / 2]), high = scale_floats(r.shi[c / 2]);
                sum.low = __fmaf_rn(acc[1], low.y, __fmaf_rn(acc[0], low.x, sum.low));
                sum.high = __fmaf_rn(acc[3], high.y, __fmaf_rn(acc[2], high.x, sum.high));
            }
            __syncwarp(); FENCE;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
    } else if constexpr (v == 5) {  // decode, no mma
        u32 x = 0;
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
            FENCE; __syncwarp();
            Regs r; fetch(mine + slot * 2880, lane, r);
#pragma unroll
            for (u32 c = 0; c < runs; ++c) {
                u32 a[4];
                dec(r.lo[c].x, a); x ^= a[0]; asm volatile("" ::"r"(a[1]), "r"(a[2]), "r"(a[3]));
                dec(r.lo[c].y, a); x ^= a[0]; asm volatile("" ::"r"(a[1]), "r"(a[2]), "r"(a[3]));
                dec(r.hi[c].x, a); x ^= a[0]; asm volatile("" ::"r"(a[1]), "r"(a[2]), "r"(a[3]));
                dec(r.hi[c].y, a); x ^= a[0]; asm volatile("" ::"r"(a[1]), "r"(a[2]), "r"(a[3]));
            }
#pragma unroll
            for (u32 c = 0; c < 3; ++c) { x += r.slo[c] + r.shi[c]; }
            __syncwarp(); FENCE;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
        sum.low = x;
    } else if constexpr (v == 6) {  // LDS only
        u32 x = 0;
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
            FENCE; __syncwarp();
            Regs r; fetch(mine + slot * 2880, lane, r);
#pragma unroll
            for (u32 c = 0; c < runs; ++c) x ^= r.lo[c].x ^ r.lo[c].y ^ r.hi[c].x ^ r.hi[c].y;
#pragma unroll
            for (u32 c = 0; c < 3; ++c) { x += r.slo[c] + r.shi[c]; }
            __syncwarp(); FENCE;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
        sum.low = x;
    } else if constexpr (v == 7) {  // mma only, registers
#pragma unroll 1
        for (u32 i = 0; i < iters; ++i) {
#pragma unroll
            for (u32 c = 0; c < runs; c += 2) {
                float acc[4] = {};
#pragma unroll
                for (u32 d = c; d < c + 2 && d < runs; ++d)
#pragma unroll
                    for (u32 j = 0; j < 8; j += 2) mma_f16(acc, lane, slot, i, lane + 1, col[d].pair[j], col[d].pair[j + 1]);
                sum.low += acc[0] + acc[1]; sum.high += acc[2] + acc[3];
            }
        }
    }
    long long t1 = clock64();
    if (lane == 0) { out[blockIdx.x * 32 + warp * 2] = t0; out[blockIdx.x * 32 + warp * 2 + 1] = t1; }
    res[blockIdx.x * 512 + threadIdx.x] = sum.low + sum.high;
}

// From memory: `copies` bulk copies a stage.
template <int copies, int stages_, bool arith, bool pre>
__device__ __forceinline__ void stream(const u8* w, const u8* sc, float* res, u32 units) {
    extern __shared__ __align__(128) u8 s[];
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    u8* mine = s + 1024 + warp * stages_ * 2880;
    u64* bars = reinterpret_cast<u64*>(s) + warp * 8;
    if (lane == 0) { for (u32 i = 0; i < stages_; ++i) barrier_init(bars + i, 1); }
    barrier_init_fence(); __syncwarp();
    Column col[runs];
    for (u32 c = 0; c < runs; ++c) for (u32 j = 0; j < 8; ++j) col[c].pair[j] = (lane >> 2) == (lane & 3) + 4 * (c & 1) ? 0x3c003c00u + j : 0u;
    RowSums<1> sum;
    auto ask = [&](u32 unit, u32 slot) {
        if (lane == 0) {
            u8* to = mine + slot * 2880;
            const u64 at = u64(blockIdx.x + unit * 132u) * 16u + warp;
            barrier_expect(bars + slot, 2880);
            if (copies == 1) copy_bulk(to, w + at * 2880, 2880, bars + slot);
            if (copies == 2) { copy_bulk(to, w + at * 1440, 1440, bars + slot); copy_bulk(to + 1440, w + 60000000 + at * 1440, 1440, bars + slot); }
            if (copies == 4) { copy_bulk(to, w + at * 1280, 1280, bars + slot); copy_bulk(to + 1280, w + 52000000 + at * 1280, 1280, bars + slot);
                copy_bulk(to + 2560, sc + at * 160, 160, bars + slot); copy_bulk(to + 2720, sc + 6000000 + at * 160, 160, bars + slot); }
        }
    };
    for (u32 i = 0; i < stages_; ++i) ask(i, i);
    u32 slot = 0, phase = 0;
    u32 x = 0;
#pragma unroll 1
    for (u32 i = 0; i < units; ++i) {
        barrier_wait(bars + slot, phase);
        if (arith) {
            Regs r; fetch(mine + slot * 2880, lane, r);
            FENCE;
            if (pre) {
                __syncwarp();
                if (i + stages_ < units) ask(i + stages_, slot);
            }
            work<0>(r, col, sum);
        } else {
            x += *reinterpret_cast<u32*>(mine + slot * 2880 + lane * 4);
        }
        if (!arith || !pre) {
            __syncwarp(); FENCE;
            if (i + stages_ < units) ask(i + stages_, slot);
        }
        slot = slot + 1 == stages_ ? 0 : slot + 1;
        phase ^= slot == 0;
    }
    res[blockIdx.x * 512 + threadIdx.x] = sum.low + sum.high + float(x);
}

__device__ __forceinline__ u32 cnt_sh(u32* counter) {
    u32 before;
    asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;" : "=r"(before) : "r"(shared_address(counter)) : "memory");
    return before;
}
// Block-level ring. split: pieces of each of the two 20 KB code runs.
template <int split, int st, bool arith, int lag>
__device__ __forceinline__ void bstream(const u8* w, const u8* sc, float* res, u32 units) {
    extern __shared__ __align__(128) u8 s[];
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    u64* full = reinterpret_cast<u64*>(s);
    u32* done = reinterpret_cast<u32*>(s + 128);
    u8* ring = s + 1024;
    if (threadIdx.x == 0) for (u32 i = 0; i < st; ++i) { barrier_init(full + i, 1); done[i] = 0; }
    barrier_init_fence(); __syncthreads();
    Column col[runs];
    for (u32 c = 0; c < runs; ++c) for (u32 j = 0; j < 8; ++j) col[c].pair[j] = (lane >> 2) == (lane & 3) + 4 * (c & 1) ? 0x3c003c00u + j : 0u;
    RowSums<1> sum;
    auto ask = [&](u32 unit, u32 slot) {
        u8* to = ring + slot * 46080u;
        const u64 at = u64(blockIdx.x + unit * 132u);
        barrier_expect(full + slot, 46080);
        constexpr u32 n = 20480 / split;
#pragma unroll 1
        for (u32 i = 0; i < split; ++i) {
            copy_bulk(to + i * n, w + at * 20480 + i * n, n, full + slot);
            copy_bulk(to + 20480 + i * n, w + 52000000 + at * 20480 + i * n, n, full + slot);
        }
        copy_bulk(to + 40960, sc + at * 2560, 2560, full + slot); copy_bulk(to + 43520, sc + 6000000 + at * 2560, 2560, full + slot);
    };
    if (threadIdx.x == 0) for (u32 i = 0; i < st; ++i) ask(i, i);
    u32 slot = 0, phase = 0, x = 0;
#pragma unroll 1
    for (u32 i = 0; i < units; ++i) {
        barrier_wait(full + slot, phase);
        const u8* stage = ring + slot * 46080u;
        if (arith) {
            Regs r;
            const u32 t = lane & 3u, g = lane >> 2;
#pragma unroll
            for (u32 c = 0; c < runs; ++c) {
                r.lo[c] = *reinterpret_cast<const uint2*>(stage + (warp * runs + c) * 256u + lane * 8u);
                r.hi[c] = *reinterpret_cast<const uint2*>(stage + 20480u + (warp * runs + c) * 256u + lane * 8u);
            }
#pragma unroll
            for (u32 c = 0; c < runs; c += 2) {
                const u32 run = c + 1 < runs ? c + (t >> 1) : c;
                const u8* q = stage + 40960u + (warp * runs + run) * 32u + g * 4u + (t & 1u) * 2u;
                r.slo[c / 2] = *reinterpret_cast<const u16*>(q);
                r.shi[c / 2] = *reinterpret_cast<const u16*>(q + 2560);
            }
            if (lag == 1) {  // registers first, then give back
                FENCE; __syncwarp();
                if (lane == 0 && cnt_sh(done + slot) == 15) { done[slot] = 0; if (i + st < units) ask(i + st, slot); }
            }
            work<0>(r, col, sum);
        } else {
            x += *reinterpret_cast<const u32*>(stage + threadIdx.x * 4);
        }
        if (!arith || lag == 0) {
            FENCE; __syncwarp();
            if (lane == 0 && cnt_sh(done + slot) == 15) { done[slot] = 0; if (i + st < units) ask(i + st, slot); }
        }
        __syncwarp();
        slot = slot + 1 == st ? 0 : slot + 1;
        phase ^= slot == 0;
    }
    res[blockIdx.x * 512 + threadIdx.x] = sum.low + sum.high + float(x);
}
#define K(v) extern "C" __global__ __launch_bounds__(512, 1) void k##v(long long* o, float* r) { body<v>(o, r); }
K(0) K(1) K(2) K(3) K(4) K(5) K(6) K(7)
#define S(name, c, st, a, p) extern "C" __global__ __launch_bounds__(512, 1) void name(const u8* w, const u8* s, float* r, u32 u) { stream<c, st, a, p>(w, s, r, u); }
#define B(name, sp, st, a, l) extern "C" __global__ __launch_bounds__(512, 1) void name(const u8* w, const u8* s, float* r, u32 u) { bstream<sp, st, a, l>(w, s, r, u); }
S(s4n, 4, 4, false, false) S(s4a, 4, 4, true, false) S(s4p, 4, 4, true, true) S(s4r, 4, 2, true, true) 
B(b1n3, 1, 3, false, 0) B(b1n4, 1, 4, false, 0) B(b4n4, 4, 4, false, 0) B(b16n4, 16, 4, false, 0) B(b1n2, 1, 2, false, 0)
B(b1a3, 1, 3, true, 0) B(b1a4, 1, 4, true, 0) B(b16a4, 16, 4, true, 0) B(b1p3, 1, 3, true, 1) B(b1p4, 1, 4, true, 1) B(b4p4, 4, 4, true, 1) B(b1p2, 1, 2, true, 1)

//! Where sums of parts end that are not whole halves of a piece, without a GPU: that is
//! plain integer code, which the host's compiler takes, if there is one.

use std::process::Command;

use crate::host_code::{DEVICE, built};

/// Walks every lane's groups as the kernel does, and follows which part each ends up in.
/// Exits with the line that is wrong.
const SHIM: &str = r#"
static unsigned __byte_perm(unsigned, unsigned, unsigned) { abort(); }
static size_t __cvta_generic_to_shared(const void*) { abort(); }
static void __syncwarp() {}
#include <jitc/mma/cut.cuh>
using namespace jitc;
#define MUST(x) do { if (!(x)) { printf("line %d, parts of %u groups, %u tokens\n", __LINE__, P, T); exit(1); } } while (0)
template <unsigned P, unsigned T>
struct Config {
    // Two times the least range of whole parts and whole pieces.
    static constexpr unsigned pieces = 2 * (P % 8 == 0 ? P / 8 : P % 4 == 0 ? P / 4 : P % 2 == 0 ? P / 2 : P);
    static constexpr unsigned rows = 8, k_total = pieces * 128, part_len = P * 16, k_warps = 1, rows_per_cta = 8;
    static constexpr unsigned tokens = T, ring = 1;
    static constexpr bool dependent = false, packed = true;
};
template <unsigned P, unsigned T>
void walk() {
    using C = Config<P, T>;
    using Cut = MmaCut<C>;
    std::vector<unsigned> seen(C::pieces * 8, 0);
    for (unsigned t = 0; t < 4; t += T <= 2 ? 1 : 2) {
        std::vector<unsigned> sum;
        unsigned next_part = 0;
        auto put = [&](unsigned part, bool done) {
            if (!done) return;
            // A part is put down once, and one that is left out had none of the lane's groups.
            MUST(part >= next_part && (part == next_part || Cut::may_miss) && !sum.empty());
            for (unsigned group : sum) { MUST(group / P == part); ++seen[group]; }
            sum.clear();
            next_part = part + 1;
        };
        for (unsigned j = 0; j < C::pieces; ++j) {
            const Cut cut(j, t);
            const bool inside = Cut::any(j);
            if constexpr (T <= 2) {
                sum.push_back(8 * j + 2 * t);
                if (inside) put(cut.part, cut.before == 1);
                else MUST(cut.before == 2);
                sum.push_back(8 * j + 2 * t + 1);
            } else {
                std::vector<unsigned> later;
                for (unsigned i = 0; i < 4; ++i) (i < cut.before ? sum : later).push_back(8 * j + t / 2 * 4 + i);
                MUST(inside || later.empty());
                if (inside) {
                    const bool done = cut.before < 4;
                    put(cut.part, done);
                    if (done) sum = later;
                    else MUST(later.empty());
                }
            }
            put(cut.last, cut.ends);
        }
        MUST(sum.empty());
    }
    for (unsigned count : seen) MUST(count == 1);
}
template <unsigned... P>
void all() { (walk<P, 1>(), ...); (walk<P, 2>(), ...); (walk<P, 4>(), ...); (walk<P, 8>(), ...); }
int main() { all<2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 17, 18, 22>(); puts("all"); }
"#;

#[test]
fn a_group_is_summed_in_its_own_part_wherever_parts_end() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(program) = built(dir.path(), &format!("{DEVICE}{SHIM}")) else {
        return;
    };
    let output = Command::new(program).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.trim() == "all", "{told}");
}

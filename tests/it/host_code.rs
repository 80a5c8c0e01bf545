//! Device code that is plain C++, run by the host's compiler, if there is one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jitc::families::nvfp4::packed::Weight;

/// What a kernel's code takes for granted, as the host's compiler understands it: one block
/// of one thread.
pub(crate) const DEVICE: &str = r"
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
using std::min;
struct Index { unsigned x, y, z; };
static Index blockIdx{0, 0, 0}, threadIdx{0, 0, 0};
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
static uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
static float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
";

/// Bytes of two words picked out, for code that decodes by it.
pub(crate) const BYTE_PERM: &str = r"
static unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    unsigned d = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned n = select >> (4 * i) & 7u;
        d |= ((n < 4 ? a >> (8 * n) : b >> (8 * (n - 4))) & 255u) << (8 * i);
    }
    return d;
}
";

/// The repository's headers.
pub(crate) fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/include")
}

/// A program of this source, made in a folder whose own headers come first; nothing, and
/// that is said, where there is no compiler.
pub(crate) fn built(dir: &Path, source: &str) -> Option<PathBuf> {
    let (file, program) = (dir.join("code.cpp"), dir.join("code"));
    fs_err::write(&file, source).expect("written");
    let output = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-I"])
        .arg(dir)
        .arg("-I")
        .arg(headers())
        .arg(&file)
        .arg("-o")
        .arg(&program)
        .output();
    let Ok(output) = output else {
        let _ = writeln!(std::io::stderr(), "skipped, no c++ here");
        return None;
    };
    crate::cli::succeeded(&output);
    Some(program)
}

/// What one of its cases writes, given a weight's codes, then its scales.
pub(crate) fn run(program: &Path, case: usize, weight: &Weight) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg(case.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("stdin");
    input.write_all(&weight.codes).expect("codes");
    input.write_all(&weight.scales).expect("scales");
    drop(input);
    let output = child.wait_with_output().expect("ran");
    assert!(output.status.success(), "case {case}: {}", output.status);
    output.stdout
}

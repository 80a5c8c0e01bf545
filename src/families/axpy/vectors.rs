//! The vectors of `axpy`, on the host and on the GPU, and what a launch makes of them.
//!
//! Invariant: a set is compared as a whole, so that a write behind `y` is seen too.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, sys};

use crate::engine::run::bind::BoundKernel;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::measure::MeasureError;
use crate::measure::compare::{Comparison, compare};
use crate::measure::rng::Rng;

/// The factor: with many bits, so that rounding twice would show.
const A: f32 = -1.234_567_8;

/// What a launch has to move for an element: `x` and `y` are read, `y` is written.
pub(super) const BYTES_PER_ELEMENT: usize = 12;

/// Elements that `y` and whatever follows it start at a multiple of.
const ALIGNMENT: usize = 64;

/// Sets of `x` and `y`, each one allocation: `x`, `y`, and as much again, so that the
/// streaming kernel finds as many bytes to read as a launch moves.
pub(super) struct Vectors {
    stream: Arc<CudaStream>,
    n: u32,
    /// Where `y` begins, elements; that many are from there to the third part.
    stride: usize,
    before: Vec<f32>,
    after: Vec<f32>,
    sets: Vec<CudaSlice<f32>>,
}

impl Vectors {
    /// Draws vectors of `n` elements, and uploads so many sets of them, all alike.
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        n: u32,
        sets: usize,
        seed: u64,
    ) -> Result<Self, MeasureError> {
        let (elements, stride) = (n as usize, (n as usize + 1).next_multiple_of(ALIGNMENT));
        let before = random(3 * stride, seed);
        let after = reference(&before, elements, stride);
        let sets = (0..sets)
            .map(|_| stream.clone_htod(&before))
            .collect::<Result<_, _>>()?;
        stream.synchronize()?;
        Ok(Self {
            stream: Arc::clone(stream),
            n,
            stride,
            before,
            after,
            sets,
        })
    }

    /// A kernel bound to each set.
    pub(super) fn bind(&self, kernel: &Arc<LoadedKernel>) -> Result<Vec<BoundKernel>, BindError> {
        let n = self.n as usize;
        let one = |set: &CudaSlice<f32>| {
            let all = Tensor::all_of(&self.stream, set, Dtype::F32);
            let y = all.address + (self.stride * size_of::<f32>()) as u64;
            (kernel.bind())
                .size("n", self.n)
                .arg("a", A)
                .arg("region_timing", None::<Tensor>)
                .arg("x", Tensor::new(all.address, Dtype::F32, &[n]))
                .arg("y", Tensor::new(y, Dtype::F32, &[n]))
                .finish()
        };
        self.sets.iter().map(one).collect()
    }

    /// A launch over set `number` modulo their count, of a kernel that was bound to each.
    pub(super) fn launch(
        &self,
        bound: &[BoundKernel],
        number: usize,
        stream: sys::CUstream,
    ) -> Result<(), MeasureError> {
        // SAFETY: the sets live as long as `self`, whose users wait for the stream.
        Ok(unsafe { bound[number % bound.len()].launch(&[self.n], stream) }?)
    }

    /// One launch over the first set as it was drawn, compared with the reference.
    pub(super) fn check(&mut self, bound: &[BoundKernel]) -> Result<Comparison, MeasureError> {
        self.stream.memcpy_htod(&self.before, &mut self.sets[0])?;
        self.launch(bound, 0, self.stream.cu_stream())?;
        let actual = self.stream.clone_dtoh(&self.sets[0])?;
        self.stream.synchronize()?;
        Ok(compare(&self.after, &actual))
    }

    /// The bytes of each set that the streaming kernel reads.
    pub(super) fn streamed(&self) -> Vec<Tensor> {
        let bytes = self.n as usize * BYTES_PER_ELEMENT;
        let address = |set| Tensor::all_of(&self.stream, set, Dtype::F32).address;
        let sets = self.sets.iter().map(address);
        sets.map(|set| Tensor::flat(set, Dtype::U8, bytes)).collect()
    }
}

/// What is in a set after a launch, from what was in it before.
fn reference(before: &[f32], n: usize, stride: usize) -> Vec<f32> {
    let mut after = before.to_vec();
    let (x, y) = after.split_at_mut(stride);
    for (x, y) in x.iter().zip(&mut y[..n]) {
        *y = A.mul_add(*x, *y);
    }
    after
}

/// Numbers of 24 random bits, of either sign, from 1 to 2; one of sixteen is subnormal.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let bytes = Rng::new(seed).bytes(4 * count);
    let number = |(i, word): (usize, &[u8])| {
        let bits = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) & 0x807f_ffff;
        f32::from_bits(if i % 16 == 0 { bits } else { bits | 0x3f80_0000 })
    };
    bytes.chunks_exact(4).enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_rounds_once_and_leaves_everything_but_y_alone() {
        let (n, stride) = (100, 128);
        let before = random(3 * stride, 7);
        let after = reference(&before, n, stride);
        assert_eq!(after[..stride], before[..stride]);
        assert_eq!(after[stride + n..], before[stride + n..]);
        let twice = |i: usize| A * before[i] + before[stride + i];
        assert!(
            (0..n).any(|i| after[stride + i] != twice(i)),
            "inputs tell fma apart"
        );
        let exact = |i: usize| f64::from(A) * f64::from(before[i]) + f64::from(before[stride + i]);
        for i in 0..n {
            // A product of two f32 is exact in f64, and so nearly is the sum.
            let off = (f64::from(after[stride + i]) - exact(i)).abs();
            assert!(
                off <= exact(i).abs() * f64::from(f32::EPSILON) / 2.0 + 1e-45,
                "{i}"
            );
        }
        assert!(before.iter().any(|v| v.is_subnormal()) && before.iter().all(|v| v.is_finite()));
    }
}

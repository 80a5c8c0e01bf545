//! Checked values, and what the driver is given of them.
//!
//! Invariant: putting a launch's values together allocates nothing and cannot fail.

use std::ffi::c_void;

use arrayvec::ArrayVec;

use crate::engine::request::template::MAX_PARAMETERS;

/// Checked values, packed for launches.
#[derive(Debug, Clone)]
pub struct Packet {
    /// A parameter each, in the low bytes: little-endian, as is every machine that has CUDA.
    pub(super) words: Vec<u64>,
    /// Values of more than a word, and which parameters they are.
    pub(super) blobs: Vec<(usize, Blob)>,
    /// The words that are launch sizes, and which.
    pub(super) patches: Vec<(usize, usize)>,
    /// The largest launch sizes that were checked.
    pub(super) most: Vec<u32>,
    pub(super) in_struct: bool,
}

/// A value that is passed whole. It stays where it is while launches are made of it.
#[derive(Debug, Clone)]
pub(super) struct Blob(Box<[Chunk]>);

/// As aligned as any value that is passed by value is.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(256))]
struct Chunk([u8; 256]);

impl Blob {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let chunk = |bytes: &[u8]| {
            let mut chunk = Chunk([0; 256]);
            chunk.0[..bytes.len()].copy_from_slice(bytes);
            chunk
        };
        Self(bytes.chunks(256).map(chunk).collect())
    }
}

/// What the driver is given: built on the stack by each launch.
///
/// Few stores: those of a launch queue up behind the one that rings the GPU for the
/// launch before, and once the processor's store buffer is full it waits for the bus.
pub struct Passed<'p> {
    words: ArrayVec<u64, MAX_PARAMETERS>,
    blobs: &'p [(usize, Blob)],
    in_struct: bool,
}

impl Packet {
    /// The largest launch sizes that it was packed for, in declared order.
    #[must_use]
    pub fn most(&self) -> &[u32] {
        &self.most
    }

    /// The first launch size that is 0 or over what was packed for, by its place;
    /// or that their number is wrong, by the first that is missing or too many.
    #[must_use]
    pub fn beyond(&self, sizes: &[u32]) -> Option<usize> {
        if sizes.len() != self.most.len() {
            return Some(sizes.len().min(self.most.len()));
        }
        let out = |(size, most): (&u32, &u32)| *size == 0 || size > most;
        sizes.iter().zip(&self.most).position(out)
    }

    /// The values for a launch of these sizes, in declared order. Allocates nothing.
    #[must_use]
    #[inline]
    pub fn passed(&self, sizes: &[u32]) -> Passed<'_> {
        let mut words = ArrayVec::new();
        // A list has at most as many parameters: checked when its family was read.
        let fits = words.try_extend_from_slice(&self.words);
        debug_assert!(fits.is_ok());
        for (word, size) in &self.patches {
            words[*word] = u64::from(sizes[*size]);
        }
        Passed {
            words,
            blobs: &self.blobs,
            in_struct: self.in_struct,
        }
    }
}

impl Passed<'_> {
    /// The values, in the low bytes of a word each; 0 for one that is passed by value and larger.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The same, to be replaced: for a launch with values that the caller has checked as those
    /// that were packed are.
    #[must_use]
    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The pointers to the parameters, as the driver reads them: one to each, or
    /// one to the struct. They are good as long as this value is where it is.
    #[inline]
    pub fn pointers<R>(&mut self, with: impl FnOnce(&mut [*mut c_void]) -> R) -> R {
        if self.in_struct {
            // Of the struct, not only of its first word.
            return with(&mut [self.words.as_mut_ptr().cast()]);
        }
        let words = self.words.iter_mut();
        let mut pointers: ArrayVec<_, MAX_PARAMETERS> =
            words.map(|word| std::ptr::from_mut(word).cast()).collect();
        for (at, Blob(chunks)) in self.blobs {
            // The driver only reads.
            pointers[*at] = chunks.as_ptr().cast_mut().cast();
        }
        with(&mut pointers)
    }
}

//! A plan's memory on a GPU, in sets that take turns, and launches over it.
//!
//! Invariant: what lies between and behind a set's parameters is known, so that a write
//! beyond one of them is seen.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys};

use super::plan::{Buffer, Plan};
use crate::engine::request::dtype::Dtype;
use crate::engine::request::template::Access;
use crate::engine::run::bind::BoundKernel;
use crate::engine::run::device::Context;
use crate::engine::run::launch::LaunchError;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::Tensor;
use crate::measure::MeasureError;
use crate::measure::npy::Elements;

/// Between parameters.
const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 256;
/// The most that a parameter may ask for.
const ALIGNMENT: usize = 4096;
/// The most dimensions of a tensor that are checked each by itself.
const MAX_RANK: usize = 5;

/// Sets of memory.
pub(super) struct Memory {
    stream: Arc<CudaStream>,
    /// Where each buffer begins in a set.
    layout: Vec<(Buffer, usize)>,
    image: Vec<u8>,
    /// Each has room for the image at a multiple of [`ALIGNMENT`], and for what a launch moves.
    sets: Vec<(CudaSlice<u8>, usize)>,
    moved: usize,
}

impl Memory {
    /// Fills the memory of a plan, and uploads so many sets of it, all alike.
    pub(super) fn new(context: &Context, plan: &Plan, sets: usize) -> Result<Self, MeasureError> {
        let stream = context.cuda().default_stream();
        let (layout, image) = lay_out(&plan.buffers);
        let moved = plan.moved();
        let room = image.len().max(moved) + ALIGNMENT;
        let mut all: Vec<(CudaSlice<u8>, usize)> = Vec::new();
        for _ in 0..sets {
            let slice = stream.alloc_zeros::<u8>(room)?;
            let address = slice.device_ptr(&stream).0;
            let lead = address.next_multiple_of(ALIGNMENT as u64) - address;
            all.push((slice, usize::try_from(lead).unwrap_or(0)));
        }
        let mut memory = Self {
            stream,
            layout,
            image,
            sets: all,
            moved,
        };
        for set in 0..sets {
            memory.upload(set)?;
        }
        memory.stream.synchronize()?;
        Ok(memory)
    }

    /// Whether a plan's memory is laid out and filled as this.
    pub(super) fn is_of(&self, plan: &Plan) -> bool {
        self.layout.len() == plan.buffers.len()
            && self
                .layout
                .iter()
                .zip(&plan.buffers)
                .all(|((own, _), buffer)| own == buffer)
    }

    fn upload(&mut self, set: usize) -> Result<(), MeasureError> {
        if self.image.is_empty() {
            return Ok(());
        }
        let (slice, lead) = &mut self.sets[set];
        let mut room = slice.slice_mut(*lead..*lead + self.image.len());
        Ok(self.stream.memcpy_htod(&self.image, &mut room)?)
    }

    fn start(&self, set: usize) -> u64 {
        let (slice, lead) = &self.sets[set];
        slice.device_ptr(&self.stream).0 + *lead as u64
    }

    /// A kernel bound to each set.
    pub(super) fn bind(
        &self,
        kernel: &Arc<LoadedKernel>,
        plan: &Plan,
    ) -> Result<Vec<BoundKernel>, MeasureError> {
        let one = |set: usize| {
            let mut bind = match &plan.entry {
                Some(entry) => kernel.bind_entry(entry),
                None => kernel.bind(),
            };
            for (name, size) in &plan.sizes {
                bind = bind.size(name, *size);
            }
            for (name, value) in &plan.values {
                bind = bind.arg(name, value.clone());
            }
            for (buffer, at) in &self.layout {
                let address = self.start(set) + *at as u64;
                let tensor = if buffer.shape.is_empty() || buffer.shape.len() > MAX_RANK {
                    Tensor::flat(address, buffer.dtype, buffer.elements())
                } else {
                    Tensor::new(address, buffer.dtype, &buffer.shape)
                };
                bind = bind.arg(&buffer.name, tensor);
            }
            Ok(bind.finish()?)
        };
        (0..self.sets.len()).map(one).collect()
    }

    /// A launch over set `number` modulo their count, of a kernel that was bound to each.
    pub(super) fn launch(
        &self,
        bound: &[BoundKernel],
        number: usize,
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        let bound = &bound[number % self.sets.len()];
        // SAFETY: the memory lives as long as `self`, whose users wait for their streams; it
        // is as large as the family declares, which is what somebody who measures trusts.
        unsafe { bound.launch(bound.most(), stream) }
    }

    /// What one launch makes of the first set, as it was uploaded: its outputs, by name.
    ///
    /// # Errors
    /// A launch that fails, and one that writes beyond its outputs, in one line.
    pub(super) fn outputs(&mut self, bound: &[BoundKernel]) -> Result<Vec<(String, Elements)>, MeasureError> {
        self.upload(0)?;
        self.launch(bound, 0, self.stream.cu_stream())?;
        let (slice, lead) = &self.sets[0];
        let mut after = vec![0_u8; self.image.len()];
        if !after.is_empty() {
            let view = slice.slice(*lead..*lead + self.image.len());
            self.stream.memcpy_dtoh(&view, &mut after)?;
        }
        self.stream.synchronize()?;
        if let Some(reason) = strayed(&self.layout, &self.image, &after) {
            return Err(MeasureError::Refused(reason));
        }
        let outputs = self.layout.iter().filter(|(buffer, _)| buffer.is_output());
        Ok(outputs
            .map(|(buffer, at)| {
                let elements = Elements {
                    dtype: buffer.dtype,
                    shape: buffer.shape.clone(),
                    bytes: after[*at..*at + buffer.bytes()].to_vec(),
                };
                (buffer.name.clone(), elements)
            })
            .collect())
    }

    /// As many bytes of each set as a launch moves, for the kernel that only reads.
    pub(super) fn streamed(&self) -> Vec<Tensor> {
        let set = |set| Tensor::flat(self.start(set), Dtype::U8, self.moved);
        (0..self.sets.len()).map(set).collect()
    }

    pub(super) fn moved(&self) -> usize {
        self.moved
    }

    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }
}

/// Buffers one after another, with guards between them and behind the last, and what they
/// hold.
fn lay_out(buffers: &[Buffer]) -> (Vec<(Buffer, usize)>, Vec<u8>) {
    let (mut layout, mut image) = (Vec::new(), Vec::new());
    for buffer in buffers {
        let at = (image.len() + GUARD_BYTES).next_multiple_of(buffer.alignment.max(GUARD_BYTES));
        image.resize(at, GUARD);
        image.extend(buffer.image());
        layout.push((buffer.clone(), at));
    }
    if !layout.is_empty() {
        image.resize(image.len() + GUARD_BYTES, GUARD);
    }
    (layout, image)
}

/// What was written that was not to be, in one line.
fn strayed(layout: &[(Buffer, usize)], before: &[u8], after: &[u8]) -> Option<String> {
    let mut from = 0;
    let mut last = None;
    let differs = |from: usize, to: usize| before[from..to] != after[from..to];
    for (buffer, at) in layout {
        if differs(from, *at) {
            break;
        }
        let end = at + buffer.bytes();
        if buffer.access == Access::In && differs(*at, end) {
            let name = &buffer.name;
            return Some(format!(
                "`{name}` is declared to be only read, and was written: expected access = \"out\" or \"inout\""
            ));
        }
        (from, last) = (end, Some(buffer));
    }
    let end = layout
        .iter()
        .map(|(_, at)| *at)
        .find(|at| *at >= from)
        .unwrap_or(before.len());
    let at = (from..end).find(|at| before[*at] != after[*at])?;
    Some(match last {
        Some(buffer) => format!(
            "a launch wrote {} bytes behind the end of `{}`: its declared shape is {:?}",
            at - from,
            buffer.name,
            buffer.shape
        ),
        None => "a launch wrote before the beginning of its first parameter".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(name: &str, access: Access, count: usize) -> Buffer {
        Buffer::plain(name, Dtype::F32, vec![count], access)
    }

    #[test]
    fn a_write_beyond_an_output_or_into_an_input_is_seen() {
        let buffers = [
            buffer("x", Access::In, 3),
            buffer("y", Access::Out, 5),
            buffer("s", Access::Workspace, 1),
        ];
        let (layout, image) = lay_out(&buffers);
        let places: Vec<usize> = layout.iter().map(|(_, at)| *at).collect();
        assert_eq!(places, [256, 768, 1280]);
        let told = |at: usize| {
            let mut after = image.clone();
            after[at] ^= 1;
            strayed(&layout, &image, &after)
        };
        let (x, y, s) = (places[0], places[1], places[2]);
        for fine in [y, y + 19, s, s + 3] {
            assert_eq!(told(fine), None);
        }
        let line = |at| told(at).expect("seen");
        assert!(line(x).starts_with("`x` is declared to be only read"));
        assert_eq!(
            line(y + 20),
            "a launch wrote 0 bytes behind the end of `y`: its declared shape is [5]"
        );
        assert!(line(y + 22).starts_with("a launch wrote 2 bytes behind the end of `y`"));
        assert!(line(image.len() - 1).contains("bytes behind the end of `s`"));
        assert!(line(0).starts_with("a launch wrote before"));
        assert_eq!(strayed(&layout, &image, &image), None);
    }
}

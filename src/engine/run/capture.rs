//! Captures of graphs that loading and unloading must not spoil.
//!
//! Invariant: asking spoils no capture, and a thread's capture mode is what it was once
//! [`Relaxed`] is dropped.

use cudarc::driver::{result, sys};
use sys::CUstreamCaptureMode as Mode;

/// Whether the driver tells that a stream of the current context captures. It tells so of
/// streams that wait for the default stream alone.
pub(super) fn is_known() -> bool {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: null is the default stream, of which asking is allowed during captures, and
    // `status` outlives the call.
    let asked = unsafe { sys::cuStreamIsCapturing(std::ptr::null_mut(), &raw mut status) };
    asked == sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
}

/// Whether the driver refused something because a stream captures.
pub(super) fn is_meant_by(said: result::DriverError) -> bool {
    use sys::CUresult as Code;
    matches!(
        said.0,
        Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
            | Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
            | Code::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
            | Code::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    )
}

/// As long as it lives, calls of this thread that captures forbid are allowed to it, since
/// they put nothing on a stream.
pub(super) struct Relaxed {
    before: Option<Mode>,
}

impl Relaxed {
    pub(super) fn begin() -> Self {
        let mode = exchange(Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
        Self { before: mode }
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            exchange(before);
        }
    }
}

/// The thread's mode before, unless it could not be changed.
fn exchange(mode: Mode) -> Option<Mode> {
    let mut mode = mode;
    // SAFETY: `mode` outlives the call.
    let exchanged = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
    exchanged.result().is_ok().then_some(mode)
}

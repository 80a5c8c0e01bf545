//! Captures, forks and drops: what the driver is never asked, and what stays as it was.

use std::sync::Arc;

use cudarc::driver::{result, sys};
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::device::{Context, DeviceError};
use jitc::engine::run::launch::LaunchError;
use jitc::engine::run::load::{LoadError, LoadedKernel, kept_modules};
use jitc::engine::run::tensor::{Dtype, Tensor};

use crate::stub::{Stub, artifact, spec, under_stub};

fn load(context: &Context) -> Result<LoadedKernel, LoadError> {
    let spec = spec(&[]);
    LoadedKernel::load(context, &spec, &artifact(&spec))
}

fn bound(stub: &Stub, kernel: &Arc<LoadedKernel>) -> BoundKernel {
    stub.say("pointer", 0);
    let bind = kernel.bind().size("rows", 4).size("batch", 1);
    let x = Tensor::flat(0x7000, Dtype::F32, 4);
    bind.arg("x", x).arg("half", 1_u16).finish().expect("bound")
}

fn launch(bound: &BoundKernel) -> Result<(), LaunchError> {
    // SAFETY: no kernel runs, and the stub takes any stream.
    unsafe { bound.launch(&[4, 1], std::ptr::without_provenance_mut(0x3abc)) }
}

fn current() -> usize {
    let current = result::ctx::get_current().expect("asked");
    current.map_or(0, <*mut _>::addr)
}

/// The thread's capture mode, which is left as it is.
fn capture_mode() -> sys::CUstreamCaptureMode {
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    let exchange = |mode: &mut sys::CUstreamCaptureMode| {
        // SAFETY: `mode` outlives the call.
        let exchanged = unsafe { sys::cuThreadExchangeStreamCaptureMode(mode) };
        assert_eq!(exchanged, sys::CUresult::CUDA_SUCCESS);
    };
    exchange(&mut mode);
    let found = mode;
    exchange(&mut mode);
    found
}

#[test]
fn loading_while_a_stream_captures_is_an_error_before_the_driver_is_asked_to_load() {
    let name = "lifetimes::loading_while_a_stream_captures_is_an_error_before_the_driver_is_asked_to_load";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    stub.say("capturing", 1);
    stub.calls();
    let error = load(&context).expect_err("a stream captures");
    assert!(matches!(error, LoadError::Capturing { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "f for sm_90a was not loaded: a stream is capturing a graph"
    );
    assert!(error.hint().expect("a hint").contains("before the capture"));
    assert!(!error.blames_the_image());
    let calls = stub.calls().join("\n");
    assert!(
        !calls.contains("cuModule") && !calls.contains("spoilt"),
        "{calls}"
    );
    stub.forget("capturing");
    load(&context).expect("afterwards");
}

#[test]
fn a_capture_that_the_driver_does_not_tell_of_is_not_spoilt_by_loading_or_dropping() {
    let name = "lifetimes::a_capture_that_the_driver_does_not_tell_of_is_not_spoilt_by_loading_or_dropping";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    stub.say("capturing", 2);
    let before = capture_mode();
    stub.calls();
    drop(load(&context).expect("relaxed"));
    let calls = stub.calls().join("\n");
    assert!(
        calls.contains("cuModuleUnload") && !calls.contains("spoilt"),
        "{calls}"
    );
    assert_eq!(capture_mode(), before, "and the thread's mode is as it was");
    // A driver that refuses nevertheless is understood.
    stub.say("cuModuleLoadData", 900);
    let error = load(&context).expect_err("refused");
    assert!(matches!(error, LoadError::Capturing { .. }), "{error}");
    assert_eq!(capture_mode(), before);
}

#[test]
fn a_kernel_that_is_dropped_while_a_stream_captures_stays_loaded() {
    let name = "lifetimes::a_kernel_that_is_dropped_while_a_stream_captures_stays_loaded";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context).expect("loaded");
    stub.say("capturing", 1);
    stub.calls();
    drop(kernel);
    assert!(stub.calls_of("cuModuleUnload").is_empty());
    assert_eq!(kept_modules(), 1);
}

#[test]
fn what_was_launched_or_given_out_stays_loaded_and_is_counted() {
    let name = "lifetimes::what_was_launched_or_given_out_stays_loaded_and_is_counted";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let launched = Arc::new(load(&context).expect("loaded"));
    launch(&bound(&stub, &launched)).expect("launched");
    stub.calls();
    drop(launched);
    let given_out = load(&context).expect("loaded");
    let _ = given_out.entries()[0].function();
    drop(given_out);
    assert!(stub.calls_of("cuModuleUnload").is_empty(), "a graph may need it");
    assert_eq!(kept_modules(), 2);
    // Binding launches nothing.
    let merely_bound = Arc::new(load(&context).expect("loaded"));
    drop(bound(&stub, &merely_bound));
    drop(merely_bound);
    assert_eq!(stub.calls_of("cuModuleUnload").len(), 1);
    assert_eq!(kept_modules(), 2);
    let over = Arc::new(load(&context).expect("loaded"));
    launch(&bound(&stub, &over)).expect("launched");
    let over = Arc::into_inner(over).expect("the only holder");
    // SAFETY: no kernel runs.
    unsafe { over.unload() };
    assert_eq!(stub.calls_of("cuModuleUnload").len(), 1, "its owner knows better");
    assert_eq!(kept_modules(), 2);
}

#[test]
fn loading_binding_launching_and_dropping_leave_the_current_context_as_it_was() {
    let name = "lifetimes::loading_binding_launching_and_dropping_leave_the_current_context_as_it_was";
    let Some(stub) = under_stub(name) else { return };
    stub.say("count", 2);
    let (own, other) = (Context::new(0).expect("a GPU"), Context::new(1).expect("a GPU"));
    let all = |expected: usize| {
        assert_eq!(current(), expected, "to begin with");
        let kernel = Arc::new(load(&own).expect("loaded"));
        assert_eq!(current(), expected, "after loading");
        let bound = bound(&stub, &kernel);
        assert_eq!(current(), expected, "after binding");
        launch(&bound).expect("launched");
        assert_eq!(current(), expected, "after launching");
        drop((bound, kernel));
        drop(load(&own).expect("loaded"));
        assert_eq!(current(), expected, "after dropping");
        stub.say("cuModuleLoadData", 2);
        load(&own).expect_err("no memory");
        assert_eq!(current(), expected, "after a failure");
        stub.forget("cuModuleLoadData");
    };
    all(other.id());
    std::thread::scope(|scope| {
        scope.spawn(|| all(0));
    });
}

#[test]
fn a_forked_child_gets_a_typed_error_for_its_parents_handles_and_asks_the_driver_nothing() {
    let name =
        "lifetimes::a_forked_child_gets_a_typed_error_for_its_parents_handles_and_asks_the_driver_nothing";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let kernel = Arc::new(load(&context).expect("loaded"));
    let bound = bound(&stub, &kernel);
    let unused = load(&context).expect("loaded");
    stub.calls();
    // SAFETY: the child calls what a child may be asked to, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let error = load(&context).expect_err("the parent's context");
            assert!(matches!(error, LoadError::Device(DeviceError::Forked)), "{error}");
            assert!(error.hint().expect("a hint").contains("fork"));
            let error = launch(&bound).expect_err("the parent's kernel");
            assert!(matches!(error, LaunchError::Forked { .. }), "{error}");
            let error = context.bind().expect_err("the parent's context");
            assert!(matches!(error, DeviceError::Forked), "{error}");
            let error = Context::new(0).expect_err("CUDA does not start twice");
            assert!(matches!(error, DeviceError::Forked), "{error}");
            drop(unused);
            assert_eq!(stub.calls(), [""; 0]);
        }));
        // SAFETY: ends this process, of which nothing else is left.
        unsafe { libc::_exit(i32::from(works.is_err())) };
    }
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "its words are above");
    // The parent goes on as before.
    launch(&bound).expect("launched");
    load(&context).expect("loaded");
}

//! Binding: whose memory the driver says it is, and what else it may say.

use std::sync::Arc;

use cudarc::driver::sys::CUresult as Code;
use jitc::engine::run::bind::{Bind, BoundKernel};
use jitc::engine::run::bind_error::{BindError, Mismatch};
use jitc::engine::run::device::{Context, DeviceError};
use jitc::engine::run::driver_error::DriverError;
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::{Dtype, Tensor};

use crate::stub::{artifact, pair, spec, under_stub};

const AT: u64 = 0x70_0000;

fn load(context: &Context) -> Arc<LoadedKernel> {
    let spec = spec(&[]);
    Arc::new(LoadedKernel::load(context, &spec, &artifact(&spec)).expect("loaded"))
}

fn values(kernel: &Arc<LoadedKernel>) -> Bind {
    let bind = kernel.bind().size("rows", 4).size("batch", 1).arg("half", 1_u16);
    bind.arg("x", Tensor::flat(AT, Dtype::F32, 4))
}

fn mismatch(result: Result<BoundKernel, BindError>) -> Mismatch {
    match result.map(|_| ()) {
        Err(BindError::Parameter {
            family,
            entry,
            parameter,
            mismatch,
        }) => {
            assert_eq!((&*family, &*entry, &*parameter), ("f", "scale", "x"));
            *mismatch
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_asked_about_and_has_to_be_the_kernels_gpus() {
    let Some(stub) = under_stub("bind::memory_is_asked_about_and_has_to_be_the_kernels_gpus") else {
        return;
    };
    stub.say("count", 2);
    let context = Context::new(1).expect("a GPU");
    let kernel = load(&context);
    stub.say("pointer", 1);
    stub.calls();
    values(&kernel).finish().expect("bound");
    assert_eq!(stub.calls(), [format!("cuPointerGetAttribute 9 of {AT:#x}")]);
    stub.say("pointer", 0);
    let other = Mismatch::OtherDevice {
        expected: 1,
        found: 0,
    };
    assert_eq!(mismatch(values(&kernel).finish()), other);
    // Each is asked about by its own address, and the null pointer is not.
    stub.say(&format!("pointer.{AT}"), 1);
    stub.calls();
    let with_bias = |address| {
        values(&kernel)
            .arg("bias", Tensor::flat(address, Dtype::F32, 4))
            .finish()
    };
    with_bias(0).expect("null");
    assert_eq!(stub.calls().len(), 1);
    let error = with_bias(AT + 0x100).expect_err("the first GPU's").to_string();
    assert!(
        error.ends_with("parameter `bias`: expected memory of GPU 1, got memory of GPU 0"),
        "{error}"
    );
}

#[test]
fn memory_that_the_driver_does_not_know_is_taken_where_the_gpu_reads_the_hosts() {
    let name = "bind::memory_that_the_driver_does_not_know_is_taken_where_the_gpu_reads_the_hosts";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context);
    let unknown = mismatch(values(&kernel).finish());
    assert!(
        matches!(unknown, Mismatch::NoMemory { address: AT, .. }),
        "{unknown}"
    );
    stub.say("device.88", 1);
    let pageable = Context::new(0).expect("a GPU");
    assert!(pageable.device().pageable_memory);
    values(&load(&pageable)).finish().expect("the host's");
}

#[test]
fn an_earlier_fault_is_no_fault_of_the_memory() {
    let Some(stub) = under_stub("bind::an_earlier_fault_is_no_fault_of_the_memory") else {
        return;
    };
    for pageable in [0, 1] {
        stub.say("device.88", pageable);
        let context = Context::new(0).expect("a GPU");
        let kernel = load(&context);
        stub.say("cuPointerGetAttribute", 700);
        let error = values(&kernel).finish().map(|_| ()).expect_err("a fault");
        let spoilt = DriverError::Spoilt(Code::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(
            matches!(&error, BindError::Device(DeviceError::Driver(said)) if *said == spoilt),
            "{error}"
        );
        stub.forget("cuPointerGetAttribute");
    }
}

#[test]
fn memory_of_another_context_is_refused_unasked() {
    let Some(stub) = under_stub("bind::memory_of_another_context_is_refused_unasked") else {
        return;
    };
    stub.say("count", 2).say("pointer", 0);
    let (context, other) = (Context::new(0).expect("a GPU"), Context::new(1).expect("a GPU"));
    let kernel = load(&context);
    let bind = |context: &Context| {
        let stream = context.cuda().default_stream();
        let slice = stream.alloc_zeros::<f32>(4).expect("memory");
        let x = Tensor::all_of(&stream, &slice, Dtype::F32);
        let bind = kernel.bind().size("rows", 4).size("batch", 1).arg("half", 1_u16);
        stub.calls();
        bind.arg("x", x).finish()
    };
    bind(&context).expect("its own");
    assert_eq!(mismatch(bind(&other)), Mismatch::OtherContext);
    assert!(stub.calls_of("cuPointerGetAttribute").is_empty());
}

#[test]
fn binding_asks_in_the_kernels_context_and_leaves_it_again() {
    let Some(stub) = under_stub("bind::binding_asks_in_the_kernels_context_and_leaves_it_again") else {
        return;
    };
    stub.say("pointer", 0);
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context);
    stub.calls();
    std::thread::scope(|scope| {
        scope.spawn(|| values(&kernel).finish().map(|_| ()).expect("bound"));
    });
    assert_eq!(
        stub.calls_of("cuCtxSetCurrent"),
        ["cuCtxSetCurrent 0x1000", "cuCtxSetCurrent (nil)"]
    );
    stub.say("cuCtxSetCurrent", 201);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = values(&kernel).finish().map(|_| ()).expect_err("refused");
            assert!(matches!(error, BindError::Device(_)), "{error}");
        });
    });
}

#[test]
fn an_entry_point_is_bound_by_its_name_alone() {
    let Some(_) = under_stub("bind::an_entry_point_is_bound_by_its_name_alone") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let pair = pair();
    let kernel = Arc::new(LoadedKernel::load(&context, &pair, &artifact(&pair)).expect("loaded"));
    let error = kernel
        .bind_entry("secnod")
        .finish()
        .map(|_| ())
        .expect_err("no such");
    assert_eq!(
        error.to_string(),
        "f has no entry point `secnod` (did you mean `second`?)"
    );
    let error = kernel
        .bind_entry("second")
        .finish()
        .map(|_| ())
        .expect_err("nothing is given");
    assert!(
        error.to_string().starts_with("f: `second`: launch size `rows`"),
        "{error}"
    );
}

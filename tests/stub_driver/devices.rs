//! What GPUs there are, and a hold on one.

use cudarc::driver::sys::CUresult as Code;
use jitc::engine::request::target::{Arch, CudaVersion};
use jitc::engine::run::device::{self, Context, Device, DeviceError};
use jitc::engine::run::driver_error::DriverError;

use crate::stub::under_stub;

#[test]
fn every_fact_of_every_gpu_is_the_drivers() {
    let Some(stub) = under_stub("devices::every_fact_of_every_gpu_is_the_drivers") else {
        return;
    };
    stub.say("count", 2);
    let attributes = [
        (75, 8),
        (76, 6),
        (16, 84),
        (81, 102_400),
        (97, 101_376),
        (82, 32_768),
        (39, 1536),
    ];
    for (attribute, value) in attributes {
        stub.say(&format!("device.{attribute}.1"), value);
    }
    stub.say("device.38.1", 6_291_456)
        .say("device.95.1", 0)
        .say("device.88.1", 1);
    let devices = device::list().expect("two");
    let first = Device {
        ordinal: 0,
        name: "Stub 0".into(),
        major: 9,
        minor: 0,
        sm_count: 132,
        shared_mem_per_sm: 233_472,
        shared_mem_per_block: 232_448,
        registers_per_sm: 65_536,
        threads_per_sm: 2048,
        l2_bytes: 62_914_560,
        cooperative: true,
        pageable_memory: false,
    };
    let second = Device {
        ordinal: 1,
        name: "Stub 1".into(),
        major: 8,
        minor: 6,
        sm_count: 84,
        shared_mem_per_sm: 102_400,
        shared_mem_per_block: 101_376,
        registers_per_sm: 32_768,
        threads_per_sm: 1536,
        l2_bytes: 6_291_456,
        cooperative: false,
        pageable_memory: true,
    };
    assert_eq!(devices, [first.clone(), second.clone()]);
    assert_eq!(device::here().expect("two"), devices);
    assert_eq!(device::get(0).expect("the first"), first);
    assert_eq!(device::get(1).expect("the second"), second);
    let error = device::get(2).expect_err("two alone");
    assert_eq!(
        error.to_string(),
        "there is no GPU 2: the driver shows 2, counted from 0"
    );
    assert_eq!(first.label(), "GPU 0, Stub 0 (compute capability 9.0)");
    let archs = ["sm_86", "sm_90a"].map(|text| text.parse::<Arch>().expect("an arch"));
    assert_eq!(device::default_archs(&devices), archs);
    assert_eq!(device::default_archs(&[first.clone(), first]), archs[1..]);
    assert_eq!(device::default_archs(&[]), Arch::DEFAULTS);
}

#[test]
fn the_newest_cuda_of_the_driver_is_read() {
    let Some(stub) = under_stub("devices::the_newest_cuda_of_the_driver_is_read") else {
        return;
    };
    for (number, major, minor) in [(12_040, 12, 4), (13_000, 13, 0), (13_120, 13, 12)] {
        stub.say("version", number);
        assert_eq!(
            device::driver_version().expect("said"),
            CudaVersion { major, minor }
        );
    }
    stub.say("version", 0);
    assert!(device::driver_version().is_err(), "a version of 0 is none");
    stub.say("version", 13_000).say("cuDriverGetVersion", 34);
    let error = device::driver_version().expect_err("not said");
    assert!(
        matches!(error, DeviceError::Driver(DriverError::LinkStub)),
        "{error}"
    );
}

#[test]
fn a_driver_that_shows_no_gpu_is_told_from_one_that_does_not_start() {
    let Some(stub) = under_stub("devices::a_driver_that_shows_no_gpu_is_told_from_one_that_does_not_start")
    else {
        return;
    };
    let driver = Some(CudaVersion { major: 12, minor: 4 });
    stub.say("version", 12_040);
    let cases = [
        (34, DriverError::LinkStub),
        (46, DriverError::Unavailable),
        (802, DriverError::NotReady),
        (803, DriverError::Mismatch { driver }),
        (804, DriverError::NoCompatibility { driver }),
        (805, DriverError::Mps(Code::CUDA_ERROR_MPS_CONNECTION_FAILED)),
        (806, DriverError::Mps(Code::CUDA_ERROR_MPS_RPC_FAILURE)),
        (807, DriverError::Mps(Code::CUDA_ERROR_MPS_SERVER_NOT_READY)),
        (808, DriverError::Mps(Code::CUDA_ERROR_MPS_MAX_CLIENTS_REACHED)),
        (
            809,
            DriverError::Mps(Code::CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED),
        ),
        (2, DriverError::OutOfMemory),
        (304, DriverError::DoesNotStart(Code::CUDA_ERROR_OPERATING_SYSTEM)),
        (999, DriverError::DoesNotStart(Code::CUDA_ERROR_UNKNOWN)),
    ];
    for (code, expected) in cases {
        for function in ["cuInit", "cuDeviceGetCount", "cuDeviceGetAttribute"] {
            stub.say(function, code);
            for error in [
                device::list().map(|_| ()),
                device::here().map(|_| ()),
                device::get(0).map(|_| ()),
            ] {
                let error = error.expect_err("a driver of no use");
                assert!(
                    matches!(&error, DeviceError::Driver(said) if *said == expected),
                    "{code} of {function}: {error:?}"
                );
                assert!(error.hint().is_some(), "{error}");
                assert!(!error.to_string().contains('\n'), "{error}");
            }
            stub.forget(function);
        }
    }
    stub.say("cuInit", 100);
    assert!(matches!(device::list(), Err(DeviceError::NoGpu)));
    assert!(device::here().expect("a machine without a GPU").is_empty());
    assert!(matches!(Context::new(0), Err(DeviceError::NoGpu)));
    assert!(
        DeviceError::NoGpu
            .hint()
            .is_some_and(|hint| hint.contains("CUDA_VISIBLE_DEVICES"))
    );
    stub.forget("cuInit");
    stub.say("count", 0);
    assert!(device::list().expect("none").is_empty());
    assert!(matches!(device::get(0), Err(DeviceError::NoGpu)));
}

#[test]
fn a_context_is_the_gpus_primary_one_and_is_made_current_where_it_is_bound() {
    let name = "devices::a_context_is_the_gpus_primary_one_and_is_made_current_where_it_is_bound";
    let Some(stub) = under_stub(name) else {
        return;
    };
    stub.say("count", 2);
    let context = Context::new(1).expect("the second");
    assert_eq!(context.id(), 0x1001);
    assert_eq!(context.device().ordinal, 1);
    assert_eq!(
        stub.calls_of("cuDevicePrimaryCtxRetain"),
        ["cuDevicePrimaryCtxRetain device 1"]
    );
    context.bind().expect("bound");
    assert!(
        stub.calls_of("cuCtxSetCurrent").is_empty(),
        "it is current on this thread"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| context.bind().expect("bound"));
    });
    assert_eq!(stub.calls_of("cuCtxSetCurrent"), ["cuCtxSetCurrent 0x1001"]);
    let again = Context::of(context.cuda().clone()).expect("the same");
    assert_eq!((again.id(), again.device()), (context.id(), context.device()));
    stub.say("cuCtxSetCurrent", 201);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = context.bind().expect_err("refused");
            let code = Code::CUDA_ERROR_INVALID_CONTEXT;
            assert!(
                matches!(error, DeviceError::Driver(DriverError::Other(c)) if c == code),
                "{error}"
            );
        });
    });
    stub.forget("cuCtxSetCurrent");
    stub.say("cuDevicePrimaryCtxRetain", 2);
    let error = Context::new(0).expect_err("no memory");
    assert!(
        matches!(error, DeviceError::Driver(DriverError::OutOfMemory)),
        "{error}"
    );
}

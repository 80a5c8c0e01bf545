//! Loading: what the driver is given and asked, what it may answer, and unloading.

use cudarc::driver::sys::CUresult as Code;
use jitc::engine::build::image::ImageError;
use jitc::engine::build::parameter_info::ParameterError;
use jitc::engine::request::target::CudaVersion;
use jitc::engine::run::device::{Context, DeviceError};
use jitc::engine::run::driver_error::DriverError;
use jitc::engine::run::load::{LoadError, LoadedKernel};

use crate::cubin::{Kernel, cubin, kernels, of_spec};
use crate::stub::{artifact, for_arch, pair, spec, under_stub, with_cubin};

/// FNV-1a, as the stub works it out.
fn digest(image: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
    format!("{:016x}", image.iter().fold(14_695_981_039_346_656_037, step))
}

#[test]
fn a_kernel_is_loaded_with_everything_that_a_launch_needs() {
    let Some(stub) = under_stub("load::a_kernel_is_loaded_with_everything_that_a_launch_needs") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let spec = spec(&[("block", "64"), ("shared", "4096")]);
    let artifact = artifact(&spec);
    stub.say("function.1", 100)
        .say("function.4", 40)
        .say("function.3", 24)
        .say("blocks", 5);
    stub.calls();
    let kernel = LoadedKernel::load(&context, &spec, &artifact).expect("loaded");
    assert_eq!(
        stub.calls(),
        [
            format!("cuModuleLoadData image {} in 0x1000", digest(&artifact.cubin)),
            "cuModuleGetFunction scale of 0x2000".into(),
            "cuFuncSetAttribute scale 8 = 4096".into(),
            "cuOccupancyMaxActiveBlocksPerMultiprocessor scale threads 64 shared 4096".into(),
        ]
    );
    assert_eq!(kernel.entries().len(), 1);
    let entry = kernel.entry("scale").expect("declared");
    assert!(std::ptr::eq(entry, &raw const kernel.entries()[0]));
    assert!(kernel.entry("scael").is_none());
    assert_eq!(entry.name(), "scale");
    assert_eq!(entry.function().addr(), 0x5000);
    assert_eq!((entry.block_threads, entry.shared_mem_bytes), (64, 4096));
    assert_eq!((entry.registers, entry.local_bytes), (40, 24));
    assert_eq!((entry.blocks_per_sm, entry.capacity), (5, 5 * 132));
    assert!(!entry.cooperative);
    assert_eq!(entry.grid(&[65, 7]), [2, 7, 3]);
    assert_eq!(kernel.spec().id(), spec.id());
    assert_eq!(kernel.context().id(), 0x1000);
    let signature = kernel.signature("scale").expect("declared");
    assert_eq!((signature.family(), signature.entry()), ("f", "scale"));
    assert!(kernel.signature("scael").is_none());
}

#[test]
fn every_kernel_of_a_family_is_loaded_in_declared_order_and_cooperation_is_the_constants() {
    let name = "load::every_kernel_of_a_family_is_loaded_in_declared_order_and_cooperation_is_the_constants";
    let Some(_) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let pair = pair();
    let kernel = LoadedKernel::load(&context, &pair, &artifact(&pair)).expect("loaded");
    let facts = kernel
        .entries()
        .iter()
        .map(|e| (e.name(), e.block_threads, e.shared_mem_bytes));
    assert_eq!(facts.collect::<Vec<_>>(), [("first", 32, 0), ("second", 64, 0)]);
    let together = spec(&[("together", "true")]);
    let kernel = LoadedKernel::load(&context, &together, &artifact(&together)).expect("loaded");
    assert!(kernel.entries()[0].cooperative);
}

#[test]
fn a_block_has_what_the_gpu_gives_beside_its_static_part_and_not_a_byte_more() {
    let name = "load::a_block_has_what_the_gpu_gives_beside_its_static_part_and_not_a_byte_more";
    let Some(stub) = under_stub(name) else { return };
    stub.say("device.97", 10_000).say("function.1", 1000);
    let context = Context::new(0).expect("a GPU");
    let fits = spec(&[("shared", "9000")]);
    LoadedKernel::load(&context, &fits, &artifact(&fits)).expect("it fits");
    stub.calls();
    let over = spec(&[("shared", "9001")]);
    let error = LoadedKernel::load(&context, &over, &artifact(&over)).expect_err("it does not");
    assert_eq!(
        error.to_string(),
        "f: `scale` takes 9001 bytes of shared memory a block, and Stub 0 gives 9000"
    );
    assert!(!error.blames_the_image());
    assert_eq!(
        stub.calls_of("cuModuleUnload"),
        ["cuModuleUnload 0x2001 in 0x1000"]
    );
}

#[test]
fn what_cannot_run_here_never_reaches_the_driver() {
    let Some(stub) = under_stub("load::what_cannot_run_here_never_reaches_the_driver") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let good = spec(&[]);
    let refused =
        |spec, cubin: Vec<u8>| LoadedKernel::load(&context, spec, &with_cubin(cubin)).expect_err("refused");
    let other = for_arch("sm_100a");
    let error = refused(&other, of_spec(&other));
    assert_eq!(
        error.to_string(),
        "a cubin for sm_100a does not run on Stub 0 (compute capability 9.0)"
    );
    assert!(matches!(
        error,
        LoadError::WrongArch {
            major: 9,
            minor: 0,
            ..
        }
    ));
    assert!(!error.blames_the_image());

    let mut cut = of_spec(&good);
    cut.pop();
    let error = refused(&good, cut);
    assert!(
        matches!(error, LoadError::Image(ImageError::Broken { .. })),
        "{error}"
    );
    assert!(error.blames_the_image());

    let arch = good.arch();
    let unnamed = Kernel {
        name: "scael".into(),
        takes: Vec::new(),
    };
    let error = refused(&good, cubin(arch, 130, &[unnamed], b""));
    assert!(
        matches!(error, LoadError::Image(ImageError::NoEntry { .. })),
        "{error}"
    );
    assert!(!error.blames_the_image(), "the same source would give the same");

    let mut fewer = kernels(&good);
    fewer[0].takes.pop();
    let error = refused(&good, cubin(arch, 130, &fewer, b""));
    assert!(
        matches!(error, LoadError::Parameters(ParameterError::Count { .. })),
        "{error}"
    );
    assert!(stub.calls_of("cuModule").is_empty());
}

/// What the driver may say of a module, with the version that it knows and that of the CUDA
/// that made the code, tenfold; and how that is understood.
fn answers() -> Vec<(u32, u32, u16, DriverError)> {
    let version = |major, minor| Some(CudaVersion { major, minor });
    let too_old = |code| DriverError::TooOld {
        driver: version(12, 4),
        needed: version(13, 0),
        code,
    };
    let spoilt = [
        (214, Code::CUDA_ERROR_ECC_UNCORRECTABLE),
        (220, Code::CUDA_ERROR_NVLINK_UNCORRECTABLE),
        (226, Code::CUDA_ERROR_CONTAINED),
        (700, Code::CUDA_ERROR_ILLEGAL_ADDRESS),
        (702, Code::CUDA_ERROR_LAUNCH_TIMEOUT),
        (709, Code::CUDA_ERROR_CONTEXT_IS_DESTROYED),
        (710, Code::CUDA_ERROR_ASSERT),
        (714, Code::CUDA_ERROR_HARDWARE_STACK_ERROR),
        (715, Code::CUDA_ERROR_ILLEGAL_INSTRUCTION),
        (716, Code::CUDA_ERROR_MISALIGNED_ADDRESS),
        (717, Code::CUDA_ERROR_INVALID_ADDRESS_SPACE),
        (718, Code::CUDA_ERROR_INVALID_PC),
        (719, Code::CUDA_ERROR_LAUNCH_FAILED),
        (721, Code::CUDA_ERROR_TENSOR_MEMORY_LEAK),
    ];
    let mut all: Vec<_> = spoilt
        .into_iter()
        .map(|(number, code)| (number, 13_000, 130, DriverError::Spoilt(code)))
        .collect();
    all.extend([
        (2, 13_000, 130, DriverError::OutOfMemory),
        (
            36,
            12_040,
            130,
            too_old(Code::CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER),
        ),
        (
            222,
            12_040,
            130,
            too_old(Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
        ),
        // An older driver does not know the format, whatever word it has for that.
        (200, 12_040, 130, too_old(Code::CUDA_ERROR_INVALID_IMAGE)),
        (209, 12_040, 130, too_old(Code::CUDA_ERROR_NO_BINARY_FOR_GPU)),
        (218, 12_040, 130, too_old(Code::CUDA_ERROR_INVALID_PTX)),
        (200, 12_040, 129, DriverError::InvalidImage),
        (200, 13_000, 130, DriverError::InvalidImage),
        (
            209,
            13_000,
            129,
            DriverError::NoBinary {
                driver: version(13, 0),
                made_by: version(12, 9),
            },
        ),
        (218, 13_000, 130, DriverError::Other(Code::CUDA_ERROR_INVALID_PTX)),
        (1, 13_000, 130, DriverError::Other(Code::CUDA_ERROR_INVALID_VALUE)),
        (
            301,
            13_000,
            130,
            DriverError::Other(Code::CUDA_ERROR_FILE_NOT_FOUND),
        ),
    ]);
    all
}

#[test]
fn every_answer_of_the_driver_to_a_module_is_understood_and_only_one_blames_the_image() {
    let name = "load::every_answer_of_the_driver_to_a_module_is_understood_and_only_one_blames_the_image";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let spec = spec(&[]);
    for (code, driver, made_by, expected) in answers() {
        stub.say("cuModuleLoadData", code).say("version", driver);
        let cubin = cubin(spec.arch(), made_by, &kernels(&spec), b"");
        let error = LoadedKernel::load(&context, &spec, &with_cubin(cubin)).expect_err("refused");
        let LoadError::Refused { family, arch, reason } = &error else {
            panic!("{code}: {error:?}");
        };
        assert_eq!(
            (family.as_str(), *arch, reason),
            ("f", spec.arch(), &expected),
            "{code}"
        );
        assert_eq!(
            error.blames_the_image(),
            expected == DriverError::InvalidImage,
            "{code}"
        );
        let known = !matches!(expected, DriverError::Other(_));
        assert_eq!(error.hint().is_some(), known, "{error}");
        assert!(
            error.to_string().starts_with("f for sm_90a was not loaded: "),
            "{error}"
        );
        assert!(error.to_string().contains("CUDA_ERROR_"), "{error}");
    }
    assert!(stub.calls_of("cuModuleUnload").is_empty(), "nothing was loaded");
    stub.say("cuModuleLoadData", 222).say("version", 12_040);
    let error = LoadedKernel::load(&context, &spec, &artifact(&spec)).expect_err("too old");
    assert_eq!(
        error.to_string(),
        "f for sm_90a was not loaded: the driver is too old for this code: it knows CUDA up to 12.4, the code is \
         made by CUDA 13.0 (CUDA_ERROR_UNSUPPORTED_PTX_VERSION)"
    );
}

#[test]
fn trouble_with_an_entry_point_names_it_and_unloads_the_module_once() {
    let Some(stub) = under_stub("load::trouble_with_an_entry_point_names_it_and_unloads_the_module_once")
    else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let spec = spec(&[]);
    let artifact = artifact(&spec);
    let load = || LoadedKernel::load(&context, &spec, &artifact);
    let functions = [
        "cuModuleGetFunction",
        // Static shared memory, local memory, registers.
        "cuFuncGetAttribute.1",
        "cuFuncGetAttribute.3",
        "cuFuncGetAttribute.4",
        "cuFuncSetAttribute",
        "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    ];
    for function in functions {
        stub.say(function, 719);
        stub.calls();
        let error = load().expect_err("refused");
        let LoadError::Driver {
            family,
            entry,
            reason,
        } = &error
        else {
            panic!("{function}: {error:?}");
        };
        let spoilt = DriverError::Spoilt(Code::CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!((family.as_str(), entry.as_str(), *reason), ("f", "scale", spoilt));
        assert_eq!(error.hint(), spoilt.hint());
        assert!(!error.blames_the_image());
        assert_eq!(stub.calls_of("cuModuleUnload").len(), 1, "{function}");
        stub.forget(function);
    }
    stub.say("cuModuleGetFunction", 500);
    stub.calls();
    let error = load().expect_err("not there");
    assert_eq!(error.to_string(), "the cubin of f has no entry point `scale`");
    assert_eq!(stub.calls_of("cuModuleUnload").len(), 1);
}

#[test]
fn a_context_that_cannot_be_made_current_is_the_error_and_nothing_is_loaded() {
    let name = "load::a_context_that_cannot_be_made_current_is_the_error_and_nothing_is_loaded";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let spec = spec(&[]);
    stub.say("cuCtxSetCurrent", 709);
    stub.calls();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = LoadedKernel::load(&context, &spec, &artifact(&spec)).expect_err("refused");
            let spoilt = DriverError::Spoilt(Code::CUDA_ERROR_CONTEXT_IS_DESTROYED);
            assert!(
                matches!(&error, LoadError::Device(DeviceError::Driver(said)) if *said == spoilt),
                "{error}"
            );
            assert_eq!(error.hint(), spoilt.hint());
        });
    });
    assert!(stub.calls_of("cuModule").is_empty());
}

#[test]
fn a_module_is_unloaded_once_in_its_own_context_and_the_droppers_context_is_kept() {
    let name = "load::a_module_is_unloaded_once_in_its_own_context_and_the_droppers_context_is_kept";
    let Some(stub) = under_stub(name) else { return };
    stub.say("count", 2);
    let (first, second) = (Context::new(0).expect("a GPU"), Context::new(1).expect("a GPU"));
    let spec = spec(&[]);
    let artifact = artifact(&spec);
    let load = |context| LoadedKernel::load(context, &spec, &artifact).expect("loaded");
    let kernels = (load(&first), load(&second), load(&first));
    first.bind().expect("bound");
    stub.calls();
    drop(kernels.0);
    assert_eq!(stub.calls(), ["cuModuleUnload 0x2000 in 0x1000"]);
    drop(kernels.1);
    assert_eq!(
        stub.calls(),
        [
            "cuCtxSetCurrent 0x1001",
            "cuModuleUnload 0x2001 in 0x1001",
            "cuCtxSetCurrent 0x1000"
        ]
    );
    // A thread that had none has none afterwards.
    std::thread::scope(|scope| {
        scope.spawn(|| drop(kernels.2));
    });
    assert_eq!(
        stub.calls(),
        [
            "cuCtxSetCurrent 0x1000",
            "cuModuleUnload 0x2002 in 0x1000",
            "cuCtxSetCurrent (nil)"
        ]
    );
    // One that cannot be asked for cannot be brought back: it is not touched.
    let unasked = load(&second);
    stub.say("cuCtxGetCurrent", 4);
    stub.calls();
    drop(unasked);
    assert_eq!(stub.calls(), [""; 0]);
    stub.forget("cuCtxGetCurrent");
    let last = load(&second);
    first.bind().expect("bound");
    stub.say("cuCtxSetCurrent", 709);
    stub.calls();
    drop(last);
    assert!(
        stub.calls_of("cuModuleUnload").is_empty(),
        "not in another's context"
    );
}

//! Variables of a kernel: set and read by name, whole, in its own context.

use cudarc::driver::sys::CUresult as Code;
use jitc::engine::run::device::Context;
use jitc::engine::run::driver_error::DriverError;
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::Dtype;
use jitc::engine::run::variable::VariableError;

use crate::cubin::{kernels, with_variables};
use crate::stub::{spec, under_stub, with_cubin};

fn load(context: &Context, variables: &[(&str, u64)]) -> LoadedKernel {
    let spec = spec(&[]);
    let cubin = with_variables(spec.arch(), 130, &kernels(&spec), variables, b"");
    LoadedKernel::load(context, &spec, &with_cubin(cubin)).expect("loaded")
}

const VARIABLES: [(&str, u64); 2] = [("coefficients", 8), ("_ZN2ns5countE", 4)];

#[test]
fn a_variable_is_set_and_read_whole_by_the_name_that_the_source_has() {
    let name = "variable::a_variable_is_set_and_read_whole_by_the_name_that_the_source_has";
    let Some(stub) = under_stub(name) else { return };
    stub.say("count", 2)
        .say("global.coefficients", 8)
        .say("global._ZN2ns5countE", 4);
    let (context, other) = (Context::new(0).expect("a GPU"), Context::new(1).expect("a GPU"));
    let kernel = load(&context, &VARIABLES);
    let variable = kernel.variable("coefficients").expect("there");
    assert_eq!((variable.name(), variable.bytes()), ("coefficients", 8));
    assert_eq!(variable.tensor(Dtype::F32).elements(), Some(2));
    other.bind().expect("bound");
    stub.calls();
    variable.set(&[1.0_f32, -2.0]).expect("set");
    assert_eq!(
        stub.calls_of("cuMemcpy"),
        ["cuMemcpyHtoD 0x7000 in 0x1000 bytes 0000803f000000c0"]
    );
    let mut count = [0_u32];
    kernel
        .variable("ns::count")
        .expect("there")
        .read(&mut count)
        .expect("read");
    assert_eq!(count, [0x0403_0201]);
    assert_eq!(
        stub.calls_of("cuModuleGetGlobal"),
        ["cuModuleGetGlobal _ZN2ns5countE of 0x2000"]
    );
}

#[test]
fn another_number_of_bytes_and_another_name_are_refused_before_the_driver() {
    let name = "variable::another_number_of_bytes_and_another_name_are_refused_before_the_driver";
    let Some(stub) = under_stub(name) else { return };
    stub.say("global.coefficients", 8);
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &VARIABLES);
    let variable = kernel.variable("coefficients").expect("there");
    stub.calls();
    let error = variable.set(&[1_u8; 9]).expect_err("one byte more").to_string();
    assert_eq!(error, "f: variable `coefficients` has 8 bytes, not 9");
    let error = variable.read(&mut [0.0_f32]).expect_err("half of it").to_string();
    assert_eq!(error, "f: variable `coefficients` has 8 bytes, not 4");
    let error = kernel.variable("coeficients").expect_err("a slip").to_string();
    assert_eq!(
        error,
        "f has no variable `coeficients` (did you mean `coefficients`?): it has coefficients, _ZN2ns5countE; \
         one that no kernel uses is left out of the code"
    );
    let error = load(&context, &[])
        .variable("x")
        .map(|_| ())
        .expect_err("none")
        .to_string();
    assert!(
        error.starts_with("f has no variable `x`: it has none; "),
        "{error}"
    );
    assert!(stub.calls_of("cuMemcpy").is_empty());
}

#[test]
fn what_the_driver_says_of_a_variable_names_it() {
    let Some(stub) = under_stub("variable::what_the_driver_says_of_a_variable_names_it") else {
        return;
    };
    stub.say("global.coefficients", 8);
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &VARIABLES);
    let variable = kernel.variable("coefficients").expect("there");
    let spoilt = DriverError::Spoilt(Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    for function in ["cuMemcpyHtoD", "cuMemcpyDtoH", "cuModuleGetGlobal"] {
        stub.say(function, 700);
        let result = match function {
            "cuMemcpyHtoD" => variable.set(&[0_u64]),
            "cuMemcpyDtoH" => variable.read(&mut [0_u64]),
            _ => kernel.variable("coefficients").map(|_| ()),
        };
        let Err(VariableError::Driver { variable, reason, .. }) = result else {
            panic!("{function}: {result:?}");
        };
        assert_eq!(
            (variable.as_str(), reason),
            ("coefficients", spoilt),
            "{function}"
        );
    }
}

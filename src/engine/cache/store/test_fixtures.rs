//! A request and its artifact, for this folder's own tests.

use std::collections::BTreeMap;

use crate::engine::build::artifact::Artifact;
use crate::engine::build::key::{KeyInputs, Preimage};
use crate::engine::build::request::{CompileRequest, RequestParts};
use crate::engine::request::target::{Arch, ToolchainIdentity};

pub(super) fn subject_of(n: u32) -> CompileRequest {
    let toolchain = ToolchainIdentity {
        version: "13.0.88".into(),
        nvrtc: "build-id:aa".into(),
        builtins: "build-id:bb".into(),
    };
    let headers = vec![("a.cuh".to_owned(), "int x;\n".into())];
    let preimage = Preimage::new(&KeyInputs {
        family: "probe",
        entries: vec!["probe"],
        constants: vec![("n", format!("{n}u"))],
        source: "int s;\n",
        headers: &headers,
        sets: Vec::new(),
        expressions: Vec::new(),
        options: &[],
        arch: Arch::of_device(9, 0),
        toolchain: &toolchain,
        compiler_env: &[],
    });
    CompileRequest::new(RequestParts {
        preimage,
        family: "probe".into(),
        constants: BTreeMap::from([("n".to_owned(), n.into())]),
        arch: Arch::of_device(9, 0),
        options: vec![],
        toolchain,
        source: "int s;\n".into(),
        headers,
    })
}

pub(super) fn artifact() -> Artifact {
    Artifact {
        cubin: (0..=255).cycle().take(20_000).collect(),
        resources: vec![],
        compile_log: "ptxas info\n".into(),
        compile_us: 1,
    }
}

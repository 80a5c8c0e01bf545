//! Requests, artifacts and folders for the tests of the cache.

use std::collections::BTreeMap;
use std::convert::Infallible;

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::key::{KeyInputs, Preimage};
use jitc::engine::build::request::{CompileRequest, RequestParts};
use jitc::engine::cache::{Cache, Store};
use jitc::engine::request::target::ToolchainIdentity;

/// A cache root of its own; gone with the value.
pub(crate) struct Root(tempfile::TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Not yet there, as on a first start.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("cache")
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::builder().user(self.path()).build()
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.path())
    }
}

/// A folder in memory where there is such a place: forcing to disk costs nothing.
pub(crate) fn fast_folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir().expect("a temporary folder"))
}

/// A request that differs from others in one constant.
pub(crate) fn subject(n: u32) -> CompileRequest {
    subject_with(n, "int x;\nint y;\n", "--fmad=false")
}

pub(crate) fn subject_with(n: u32, header: &str, option: &str) -> CompileRequest {
    let toolchain = ToolchainIdentity {
        version: "13.0.88".into(),
        nvrtc: "build-id:aa".into(),
        builtins: "build-id:bb".into(),
    };
    let headers = vec![("jitc/a.cuh".to_owned(), header.into())];
    let options = vec![option.to_owned()];
    let arch = "sm_90a".parse().expect("an arch");
    let source = format!("constexpr unsigned n = {n}u;\n");
    let preimage = Preimage::new(&KeyInputs {
        family: "probe",
        entries: vec!["probe"],
        constants: vec![("n", format!("{n}u"))],
        source: &source,
        headers: &headers,
        sets: Vec::new(),
        expressions: Vec::new(),
        options: &options,
        arch,
        toolchain: &toolchain,
        compiler_env: &[],
    });
    CompileRequest::new(RequestParts {
        preimage,
        family: "probe".into(),
        constants: BTreeMap::from([("n".to_owned(), n.into())]),
        arch,
        options,
        toolchain,
        source,
        headers,
    })
}

/// What a compile of `subject(n)` gives.
pub(crate) fn artifact(n: u32) -> Artifact {
    Artifact {
        cubin: (0..4096u32)
            .flat_map(|i| (i ^ n.rotate_left(7)).to_le_bytes())
            .collect(),
        resources: vec![Resources {
            entry: "probe".into(),
            registers: 40,
            ..Resources::default()
        }],
        compile_log: format!("ptxas info: built {n}\n"),
        compile_us: 41_000,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "stands in for a compiler")]
pub(crate) fn build(n: u32) -> Result<Artifact, Infallible> {
    Ok(artifact(n))
}

pub(crate) fn never() -> Result<Artifact, Infallible> {
    panic!("built what should have been a hit")
}

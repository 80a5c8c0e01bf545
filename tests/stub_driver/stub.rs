//! The stub's side of a test: where it is compiled, what it answers, what it was asked.
//!
//! The loader reads `LD_LIBRARY_PATH` once, when a process starts. A test therefore runs
//! twice: in the harness's process it only starts this binary again, with the stub in the
//! loader's way and itself as the one test to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Registry;

use crate::cubin::of_spec;

const FOLDER: &str = "STUB_DRIVER";

/// A family with a plain, a cooperative and a pair of further kernels.
const TOML: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [32, 64]
default = 32
help = "h"
[constants.shared]
type = "u32"
range = [0, 232448]
default = 1024
help = "h"
[constants.together]
type = "bool"
default = false
help = "h"
[[entries]]
name = "scale"
sizes = ["rows", "batch"]
grid = [{ size = "rows", per = "block" }, "batch", 3]
block = "block"
shared_mem_bytes = "shared"
cooperative = "together"
[[entries.parameters]]
name = "x"
type = "f32"
shape = ["rows"]
[[entries.parameters]]
name = "half"
type = "u16"
[[entries.parameters]]
name = "bias"
type = "f32"
shape = ["rows"]
optional = true
[[entries.parameters]]
name = "rows"
type = "u32"
value = "rows"
"#;

/// A family whose two kernels take one struct.
const PAIR: &str = r#"
summary = "s"
parameter_struct = "Params"
sizes = ["rows"]
[constants.block]
type = "u32"
values = [32]
default = 32
help = "h"
[[parameters]]
name = "x"
type = "f32"
shape = ["rows"]
[[parameters]]
name = "rows"
type = "u32"
value = "rows"
[[entries]]
name = "first"
grid = ["rows", 1, 1]
block = 32
[[entries]]
name = "second"
grid = [2, "rows", 1]
block = 64
"#;

/// What the driver is to answer, and what it was asked.
pub(crate) struct Stub {
    folder: PathBuf,
    answers: Mutex<BTreeMap<String, String>>,
}

impl Stub {
    /// A folder in which nothing is out of the ordinary.
    pub(crate) fn over(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            answers: Mutex::default(),
        }
    }

    /// From now on it answers this; `FUNCTION` a status, and `FUNCTION#2` that of the
    /// second call.
    pub(crate) fn say(&self, name: &str, value: impl std::fmt::Display + Copy) -> &Self {
        let mut answers = self.answers.lock().expect("answers");
        answers.insert(name.to_owned(), value.to_string());
        self.write(&answers);
        self
    }

    /// From now on it answers as usual.
    pub(crate) fn forget(&self, name: &str) {
        let mut answers = self.answers.lock().expect("answers");
        answers.remove(name).expect("it was said");
        self.write(&answers);
    }

    fn write(&self, answers: &BTreeMap<String, String>) {
        let lines = answers.iter().map(|(name, value)| format!("{name} {value}\n"));
        fs_err::write(self.folder.join("answers"), lines.collect::<String>()).expect("written");
    }

    /// Every call since the last time, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.folder.join("calls");
        let text = fs_err::read_to_string(&path).unwrap_or_default();
        let _ = fs_err::remove_file(&path);
        text.lines().map(str::to_owned).collect()
    }

    /// Those calls since the last time whose line begins like this.
    pub(crate) fn calls_of(&self, start: &str) -> Vec<String> {
        let mut calls = self.calls();
        calls.retain(|call| call.starts_with(start));
        calls
    }

    /// A folder for whatever a test writes.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command under this stub.
    pub(crate) fn put_on(&self, command: &mut Command) {
        command
            .env("LD_LIBRARY_PATH", library_folder())
            .env(FOLDER, &self.folder);
    }
}

/// In a process that the stub is loaded into: the stub. In the harness's: `None`, when the
/// test of this name has passed in such a process. `name` is the path from this binary.
pub(crate) fn under_stub(name: &str) -> Option<Stub> {
    if let Some((_, folder)) = std::env::vars_os().find(|(name, _)| name == FOLDER) {
        return Some(Stub::over(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    Stub::over(folder.path()).put_on(&mut command);
    let output = command.output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "there is no test {name}: {text}");
    None
}

/// Where the compiled library lies; compiled once a process.
fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stub-driver");
        fs_err::create_dir_all(&folder).expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stub_driver/cuda.c");
        // Another process may be at it, too: renamed when it is whole.
        let made = folder.join(format!("made-{}", std::process::id()));
        let output = Command::new("cc")
            .args([
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unused-parameter",
                "-shared",
                "-fPIC",
            ])
            .args(["-Wl,-soname,libcuda.so.1", "-pthread", "-o"])
            .args([&made, &source])
            .output()
            .expect("cc is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        for name in ["libcuda.so", "libcuda.so.1"] {
            let link = folder.join(format!("{name}-{}", std::process::id()));
            fs_err::copy(&made, &link).expect("copied");
            fs_err::rename(&link, folder.join(name)).expect("renamed");
        }
        fs_err::remove_file(&made).expect("removed");
        folder
    })
}

/// A spec of the family of these tests, for the stub's GPU.
pub(crate) fn spec(set: &[(&str, &str)]) -> KernelSpec {
    spec_of(TOML, set, "sm_90a")
}

/// A spec of the family with two kernels and a struct.
pub(crate) fn pair() -> KernelSpec {
    spec_of(PAIR, &[], "sm_90a")
}

/// As [`spec`], for another GPU.
pub(crate) fn for_arch(arch: &str) -> KernelSpec {
    spec_of(TOML, &[], arch)
}

/// A spec of a family of this TOML.
pub(crate) fn spec_of(toml: &str, set: &[(&str, &str)], arch: &str) -> KernelSpec {
    let files = [("f.toml", toml), ("f.cu.tera", "")];
    let files = BTreeMap::from(files.map(|(name, text)| (name.to_owned(), text.to_owned())));
    let registry = Registry::from_files(&files).expect("a family");
    let family = registry.get("f").expect("the only one");
    KernelSpec::new(family, set.iter().copied(), arch.parse().expect("an arch")).expect("a spec")
}

/// What a compiler might make of a spec.
pub(crate) fn artifact(spec: &KernelSpec) -> Artifact {
    with_cubin(of_spec(spec))
}

pub(crate) fn with_cubin(cubin: Vec<u8>) -> Artifact {
    Artifact {
        cubin,
        resources: vec![Resources::default()],
        compile_log: String::new(),
        compile_us: 1,
    }
}

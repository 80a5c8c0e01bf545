//! The program on machines whose GPUs or driver are of no use to it.

use std::path::Path;
use std::process::Command;

use jitc::engine::request::target::SUPPORTED;

use crate::stub::Stub;

pub(crate) struct Machine {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) stub: Stub,
}

/// How the program ended, and what it said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Machine {
    pub(crate) fn new(answers: &[(&str, u32)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stub = Stub::over(folder.path());
        for (name, value) in answers {
            stub.say(name, value);
        }
        Self { folder, stub }
    }

    pub(crate) fn cache(&self) -> std::path::PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_jitc")));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("JITC_") {
                command.env_remove(name);
            }
        }
        self.stub.put_on(&mut command);
        command
            .args(words)
            .arg("--cache-dir")
            .arg(self.cache())
            .current_dir(self.folder.path());
        let output = command.output().expect("ran");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code(),
            out: text(&output.stdout),
            errors: text(&output.stderr),
        }
    }

    /// The lines of the doctor's report about the driver and its GPUs, and how it ended.
    fn doctor(&self) -> (Option<i32>, String) {
        let said = self.run(&["doctor"]);
        let mut lines: Vec<&str> = said.out.lines().collect();
        lines.retain(|line| [" driver ", " gpu "].iter().any(|word| line.contains(word)));
        (said.code, lines.join("\n"))
    }
}

/// The arch of compute capability 7.5.
const TURING: [(&str, u32); 2] = [("device.75", 7), ("device.76", 5)];

#[test]
fn a_good_machine_is_compiled_for_and_found_good() {
    let machine = Machine::new(&[("count", 2), ("device.75.1", 8), ("device.76.1", 6)]);
    let (code, report) = machine.doctor();
    assert_eq!(
        (code, report.as_str()),
        (
            Some(0),
            "ok      driver  knows CUDA up to 13.0\n\
             ok      gpu     0 Stub 0: compute capability 9.0, 132 SMs\n\
             ok      gpu     1 Stub 1: compute capability 8.6, 132 SMs"
        )
    );
    let warm = machine.run(&["warm", "stream"]);
    assert_eq!((warm.code, warm.errors.as_str()), (Some(0), ""));
    assert!(
        warm.out.contains("sm_86") && warm.out.contains("sm_90a"),
        "{}",
        warm.out
    );
}

#[test]
fn a_gpu_that_no_family_does_is_an_error_alone_and_is_named_beside_another() {
    let alone = Machine::new(&TURING);
    let warm = alone.run(&["warm", "stream"]);
    assert_eq!(warm.code, Some(2), "{}", warm.out);
    assert_eq!(
        warm.errors.lines().next(),
        Some(
            "error: nothing that was requested runs on GPU 0, Stub 0 (compute capability 7.5): stream needs sm_80 \
             or newer"
        )
    );
    assert!(warm.errors.contains("hint: --arch"), "{}", warm.errors);
    assert_eq!(warm.out, "");
    for words in [["warm"], ["key"], ["render"]] {
        let said = alone.run(&words);
        assert_eq!(said.code, Some(2), "{words:?}: {}{}", said.out, said.errors);
    }
    let (code, report) = alone.doctor();
    assert_eq!(code, Some(1));
    let expected = "missing gpu     0 Stub 0: compute capability 7.5, 132 SMs; no family runs on it: they need sm_80 or newer";
    assert!(report.contains(expected), "{report}");

    let beside = Machine::new(&[("count", 3), ("device.75.1", 7), ("device.76.1", 5)]);
    let warm = beside.run(&["warm", "stream"]);
    assert_eq!(warm.code, Some(0), "{}", warm.errors);
    assert_eq!(
        warm.errors,
        "left out: GPU 1, Stub 1 (compute capability 7.5): stream needs sm_80 or newer\n"
    );
    assert!(
        warm.out.contains("sm_90a") && warm.out.contains("1 built"),
        "{}",
        warm.out
    );
    let (code, report) = beside.doctor();
    assert_eq!(code, Some(1));
    assert!(
        report.contains("missing gpu     1 Stub 1") && report.contains("ok      gpu     2"),
        "{report}"
    );
    // A matrix that names no archs has the same ones.
    let matrix = beside.folder.path().join("m.toml");
    fs_err::write(&matrix, "[[warm]]\nfamilies = 'stream'\n").expect("written");
    let warm = beside.run(&["warm", "--matrix", "m.toml"]);
    assert_eq!(warm.code, Some(0), "{}", warm.errors);
    assert!(
        warm.errors.starts_with("left out: GPU 1, Stub 1"),
        "{}",
        warm.errors
    );
    fs_err::copy(&matrix, alone.folder.path().join("m.toml")).expect("copied");
    assert_eq!(alone.run(&["warm", "--matrix", "m.toml"]).code, Some(2));
}

#[test]
fn a_driver_too_old_for_the_compiler_is_said_with_both_versions() {
    let machine = Machine::new(&[("version", 12_040)]);
    let (code, report) = machine.doctor();
    assert_eq!(code, Some(1));
    let expected = "missing driver  it knows CUDA up to 12.4, and loads no code made by NVRTC 13.";
    assert!(report.contains(expected), "{report}");
    let warm = machine.run(&["warm", "stream"]);
    assert_eq!(warm.code, Some(2), "{}", warm.out);
    let expected = "error: this machine's driver is too old for what was compiled: it knows CUDA up to 12.4";
    assert!(warm.errors.starts_with(expected), "{}", warm.errors);
    assert!(
        warm.errors
            .contains("hint: update the driver, or name an NVRTC of CUDA 12"),
        "{}",
        warm.errors
    );
    // What is compiled for other machines is not this driver's business.
    let named = machine.run(&["warm", "stream", "--arch", "sm_90a"]);
    assert_eq!((named.code, named.errors.as_str()), (Some(0), ""));
    // Nor is the minor version.
    let minor = Machine::new(&[("version", 13_000)]);
    assert_eq!(minor.doctor().0, Some(0));
}

#[test]
fn a_gpu_newer_than_the_compiler_is_said_with_the_newest_that_it_knows() {
    let machine = Machine::new(&[("version", 14_000), ("device.75", 13)]);
    let (code, report) = machine.doctor();
    assert_eq!(code, Some(1));
    let expected =
        "compute capability 13.0, 132 SMs; NVRTC makes no code for sm_130a: the newest that it knows is sm_1";
    assert!(report.contains(expected), "{report}");
    let warm = machine.run(&["warm", "wo_gemv", "--wo-split", "4,8"]);
    assert_eq!(warm.code, Some(2), "{}", warm.out);
    let mut lines = warm.errors.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("error: 2 failed: NVRTC 13."), "{}", warm.errors);
    assert!(first.ends_with(" makes no code for sm_130a"), "{}", warm.errors);
    assert_eq!(
        lines.filter(|line| line.contains("sm_130a")).count(),
        0,
        "{}",
        warm.errors
    );
    assert!(
        warm.errors.contains("hint: name an NVRTC that knows it"),
        "{}",
        warm.errors
    );
}

#[test]
fn a_driver_that_does_not_start_is_never_taken_for_a_machine_without_a_gpu() {
    let cases = [
        (803, "do not match (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        (804, "(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)"),
        (802, "(CUDA_ERROR_SYSTEM_NOT_READY)"),
        (34, "(CUDA_ERROR_STUB_LIBRARY)"),
        (999, "(CUDA_ERROR_UNKNOWN)"),
    ];
    for (code, words) in cases {
        let machine = Machine::new(&[("cuInit", code)]);
        let (ended, report) = machine.doctor();
        assert_eq!(ended, Some(1), "{code}");
        assert!(report.contains("missing gpu     none can be used: "), "{report}");
        assert!(report.contains(words), "{report}");
        let warm = machine.run(&["warm", "stream"]);
        assert_eq!(warm.code, Some(2), "{code}: {}", warm.out);
        let first = warm.errors.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("error: ") && first.ends_with(words),
            "{}",
            warm.errors
        );
        assert!(warm.errors.contains("\nhint: "), "{}", warm.errors);
        // Who says what to compile for needs no GPU.
        let key = machine.run(&["key", "stream", "--arch", "sm_90a"]);
        assert_eq!((key.code, key.errors.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_driver_that_shows_no_gpu_is_said_and_the_usual_archs_are_taken() {
    let machine = Machine::new(&[("cuInit", 100)]);
    let (code, report) = machine.doctor();
    assert_eq!(code, Some(1));
    assert!(
        report.contains("missing gpu     none can be used: the driver shows no GPU"),
        "{report}"
    );
    let keys = machine.run(&["key", "stream"]);
    assert_eq!(keys.code, Some(0));
    assert_eq!(
        keys.errors,
        "the driver shows no GPU: taking sm_80, sm_86, sm_89, sm_90a, sm_100a, sm_103a, sm_120a, sm_121a; --arch names others\n"
    );
}

#[test]
fn a_cache_warmed_without_a_gpu_has_the_code_of_every_supported_one() {
    let machine = Machine::new(&[("cuInit", 100)]);
    assert_eq!(machine.run(&["warm", "stream"]).code, Some(0));
    machine.stub.say("cuInit", 0);
    for (major, minor) in SUPPORTED {
        machine.stub.say("device.75.0", major).say("device.76.0", minor);
        let check = machine.run(&["warm", "stream", "--check"]);
        assert_eq!(check.code, Some(0), "{major}.{minor}: {}", check.out);
    }
    machine.stub.say("device.75.0", 7).say("device.76.0", 5);
    assert_eq!(machine.run(&["warm", "stream", "--check"]).code, Some(2));
    machine.stub.say("device.75.0", 10).say("device.76.0", 7);
    let check = machine.run(&["warm", "stream", "--check"]);
    assert_eq!(check.code, Some(1), "what no warm made is missed: {}", check.out);
}

#[test]
fn warm_check_and_why_judge_compatible_code_as_a_load_does() {
    let machine = Machine::new(&[("device.75.0", 8), ("device.76.0", 9)]);
    let warmed = machine.run(&["warm", "stream", "gemv", "--arch", "sm_80"]);
    assert_eq!(warmed.code, Some(0), "{}", warmed.errors);
    for verb in [&["warm", "--check", "stream"][..], &["why", "stream"]] {
        assert_eq!(machine.run(verb).code, Some(1), "exact is the rule");
    }
    let config = "arch_match = \"compatible\"\n";
    fs_err::write(machine.folder.path().join("match.toml"), config).expect("written");
    let run = |words: &[&str]| machine.run(&[words, &["--config", "match.toml"]].concat());
    assert_eq!(run(&["warm", "--check", "stream"]).code, Some(0));
    let why = run(&["why", "stream"]);
    assert_eq!(why.code, Some(0));
    let words = "hit (user): stream defaults sm_89: by code for sm_80: ";
    assert!(why.out.starts_with(words), "{}", why.out);
    let json = run(&["why", "stream", "--json"]).out;
    let answer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["answer"], "compatible");
    assert_eq!(answer["code"]["arch"], "sm_80");
    // Of a family whose bits depend on the arch, none of them takes it.
    assert_eq!(run(&["warm", "--check", "gemv"]).code, Some(1));
    assert_eq!(run(&["why", "gemv"]).code, Some(1));
    // What a warm finds is what its receipt names.
    let receipt = run(&["warm", "stream", "--receipt", "receipt.json"]);
    assert!(receipt.out.contains("hit, code for sm_80"), "{}", receipt.out);
    let text = fs_err::read_to_string(machine.folder.path().join("receipt.json")).expect("read");
    assert!(
        text.contains("\"arch\": \"sm_80\"") && !text.contains("\"sm_89\""),
        "{text}"
    );
}

#[test]
fn trouble_with_loading_keeps_the_cache_and_says_what_helps() {
    let machine = Machine::new(&[]);
    assert_eq!(machine.run(&["warm", "gemv"]).code, Some(0));
    machine.stub.say("cuModuleLoadData", 700);
    let verify = machine.run(&["verify", "gemv", "--quick"]);
    assert_eq!(verify.code, Some(2));
    let words = "error: gemv for sm_90a was not loaded: an earlier fault has spoilt the CUDA context (CUDA_ERROR_ILLEGAL_ADDRESS)";
    assert_eq!(verify.errors.lines().next(), Some(words));
    assert!(
        verify.errors.contains("hint: find the kernel that faulted"),
        "{}",
        verify.errors
    );
    let stats = machine.run(&["cache", "stats", "--json"]).out;
    assert!(stats.contains("\"quarantined\":0"), "{stats}");
    assert_eq!(machine.run(&["warm", "gemv", "--check"]).code, Some(0));
}

//! The compiler sees what it is given and nothing else: no file, no clock, no folder.
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::collections::BTreeSet;
use std::path::Path;

use jitc::engine::build::compile::WorkerChoice;
use jitc::engine::cache::{Load, Store};

use crate::compile_process::{Bench, prepare, program};

/// What a source may try, with `ABSOLUTE` for the path of a file that is there or not.
const TRIES: &[(&str, &str)] = &[
    ("a quoted include of a path", "#include \"ABSOLUTE\"\nKERNEL"),
    ("an include of a path", "#include <ABSOLUTE>\nKERNEL"),
    (
        "an include of the working folder's file",
        "#include \"decoy.h\"\nKERNEL",
    ),
    (
        "an include from a folder above",
        "#include \"../decoy.h\"\nKERNEL",
    ),
    ("a computed include", "#define H \"ABSOLUTE\"\n#include H\nKERNEL"),
    (
        "an include over a spliced line",
        "#inc\\\nlude \"ABSOLUTE\"\nKERNEL",
    ),
    (
        "a question whether a file is there",
        "#if __has_include(\"ABSOLUTE\")\n#error there\n#endif\nKERNEL",
    ),
    (
        "the same in angle brackets",
        "#if __has_include(<ABSOLUTE>)\n#define SIZE 2\n#endif\nKERNEL",
    ),
    (
        "a question for the working folder",
        "#if __has_include(\"decoy.h\")\n#define SIZE 2\n#endif\nKERNEL",
    ),
    ("an import", "#import \"ABSOLUTE\"\nKERNEL"),
    ("the next include", "#include_next \"ABSOLUTE\"\nKERNEL"),
    (
        "an embedded file",
        "__device__ const char e[] = {\n#embed \"ABSOLUTE\"\n};\nKERNEL",
    ),
    (
        "the assembler's include",
        "KERNEL\n__device__ void f() { asm volatile(\".include \\\"ABSOLUTE\\\"\"); }\nUSE_F",
    ),
    (
        "the assembler's file table",
        "KERNEL\n__device__ void f() { asm volatile(\".file 9 \\\"ABSOLUTE\\\"\"); }\nUSE_F",
    ),
    (
        "a line that names a file",
        "#line 1 \"ABSOLUTE\"\nKERNEL\nerror here",
    ),
    (
        "a pragma that depends on a file",
        "#pragma GCC dependency \"ABSOLUTE\"\nKERNEL",
    ),
];

const KERNEL: &str = "
#ifndef SIZE
#define SIZE 1
#endif
extern \"C\" __global__ void k(float* p) { p[{{ n }}] = SIZE; }
";

fn source(attempt: &str, path: &Path) -> String {
    let path = path.to_str().expect("text");
    let call = "extern \"C\" __global__ void k2() { f(); }";
    attempt
        .replace("KERNEL", KERNEL)
        .replace("ABSOLUTE", path)
        .replace("USE_F", call)
}

/// Machine code, or the compiler's words.
fn outcome(bench: &Bench, choice: &WorkerChoice) -> (Option<String>, Result<Vec<u8>, String>) {
    let _ = fs_err::remove_dir_all(bench.path().join("c"));
    let jit = bench.jit(choice.clone(), &[]);
    match prepare(&jit, "k", 1) {
        Ok(prepared) => (
            Some(prepared.request.key().hex()),
            Ok(prepared.fetched.artifact.cubin.clone()),
        ),
        Err(error) => (None, Err(format!("{error}\n{}", error.log().unwrap_or_default()))),
    }
}

#[test]
fn no_source_can_tell_whether_a_file_is_there_or_what_it_holds() {
    let files = tempfile::tempdir().expect("tempdir");
    let decoy = files.path().join("decoy.h");
    for (what, attempt) in TRIES {
        let bench = Bench::new(&source(attempt, &decoy));
        for choice in [program(), WorkerChoice::InProcess] {
            let absent = outcome(&bench, &choice);
            for holds in ["#define SIZE 3\n", "#define SIZE 4\n", "#error decoy\n"] {
                fs_err::write(&decoy, holds).expect("decoy");
                assert_eq!(outcome(&bench, &choice), absent, "{what}, {choice:?}, {holds}");
            }
            fs_err::remove_file(&decoy).expect("removed");
        }
    }
}

#[test]
fn a_compile_is_the_same_from_every_folder_at_every_time_in_every_environment() {
    let source = "\
#define PASTE(a, b) a##b
__device__ const char stamp[] = __DATE__ PASTE(__TI, ME__) __FILE__;
extern \"C\" __global__ void k(char* p) { p[{{ n }}] = stamp[p[1]]; }
";
    let bench = Bench::new(source);
    let toml = bench.path().join("t/k.toml");
    let text = fs_err::read_to_string(&toml).expect("toml");
    fs_err::write(&toml, format!("options = ['-lineinfo', '-G']\n{text}")).expect("toml");
    let mut codes = BTreeSet::new();
    for (number, zone) in ["UTC", "Asia/Tokyo"].into_iter().enumerate() {
        let folder = bench.path().join(format!("from{number}"));
        fs_err::create_dir_all(&folder).expect("folder");
        // What NVRTC looks for beside a source, and may not find.
        for decoy in ["k.cu.tera", "__nv_nvrtc_builtin_header.h", "__nv_name_map"] {
            fs_err::write(folder.join(decoy), format!("#error {number}\n")).expect("decoy");
        }
        let output = crate::command::jitc(&folder)
            .args(["warm", "k", "--arch", "sm_90a", "--json", "--templates"])
            .arg(bench.path().join("t"))
            .env("TZ", zone)
            .env("LANG", "de_DE.UTF-8")
            .env("TMPDIR", &folder)
            .output()
            .expect("run");
        crate::command::succeeded(&output);
        codes.insert(cubin_of(&output, &folder));
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(codes.len(), 1);
}

/// The machine code that a warm printed the key of.
fn cubin_of(output: &std::process::Output, cache: &Path) -> Vec<u8> {
    let events = crate::command::events(output);
    let key = events.iter().find_map(|e| e["key"].as_str()).expect("a key");
    match Store::new(cache).load(&key.parse().expect("a key")) {
        Load::Found(entry) => entry.into_artifact().cubin,
        other => panic!("{other:?}"),
    }
}

#[test]
fn once_the_compiler_is_open_no_file_is_opened_looked_up_or_made() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: no strace");
        return;
    }
    let files = tempfile::tempdir().expect("tempdir");
    let decoy = files.path().join("decoy.h");
    fs_err::write(&decoy, "#define SIZE 3\n").expect("decoy");
    for (what, attempt) in TRIES {
        let bench = Bench::new(&source(attempt, &decoy));
        let trace = bench.path().join("trace");
        let output = traced(&bench, &trace);
        let trace = fs_err::read_to_string(&trace).expect("trace");
        if !trace.contains("execve(") {
            println!(
                "skipped: no leave to trace: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        let reached = reached(&trace);
        assert!(reached.is_empty(), "{what}: {reached:#?}");
    }
}

/// Warms a bench's family with the system calls about files and networks written down.
pub(crate) fn traced(bench: &Bench, trace: &Path) -> std::process::Output {
    std::process::Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(trace)
        .args(["-e", "trace=%file,socket,connect,bind,listen,seccomp"])
        .arg(env!("CARGO_BIN_EXE_jitc"))
        .args([
            "warm",
            "k",
            "--templates",
            "t",
            "--arch",
            "sm_90a",
            "--cache-dir",
            "c",
        ])
        .current_dir(bench.path())
        .output()
        .expect("run")
}

/// What the thread of the compiler reached after it was closed: calls that succeeded.
pub(crate) fn reached(trace: &str) -> Vec<&str> {
    let mut closed = BTreeSet::new();
    let mut reached = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with("seccomp(") || call.contains("SECCOMP_MODE_FILTER") {
            closed.insert(thread);
        } else if call.starts_with("<... seccomp resumed>") {
            // The end of one that another thread's call stands in the middle of.
        } else if closed.contains(thread) && !call.contains("= -1 ") && call.contains(") ") {
            reached.push(line);
        }
    }
    assert!(!closed.is_empty(), "nothing was closed:\n{trace}");
    reached
}

#[test]
fn an_option_of_the_environment_that_reads_files_is_refused_by_its_name() {
    let bench = Bench::new(&source("KERNEL", Path::new("/")));
    let output = crate::command::jitc(bench.path())
        .args(["warm", "k", "--templates", "t", "--arch", "sm_90a"])
        .env("NVRTC_APPEND_FLAGS", "-lineinfo -I/usr/include")
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("NVRTC_APPEND_FLAGS: option `-I/usr/include` is refused"),
        "{said}"
    );
}

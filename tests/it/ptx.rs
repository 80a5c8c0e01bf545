//! PTX from the compiler: its key, what is checked of it, and whom it stands in for.

use std::path::Path;

use jitc::engine::build::{image, parameter_info};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;

use crate::command::jitc;

fn facade(folder: &Path, settings: &[(&str, &str)]) -> Jit {
    // Where the compiler is found; and no setting of whoever runs the tests.
    let own = std::env::vars().filter(|(name, _)| !name.starts_with("JITC_"));
    let pairs = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env: Environment = own.chain(pairs).collect();
    let flags = Flags {
        cache_dir: Some(folder.join("cache")),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, env).expect("settings")).expect("families")
}

fn spec(jit: &Jit, family: &str, arch: &str) -> KernelSpec {
    let family = jit.registry().get(family).expect("built in");
    KernelSpec::new(family, [], arch.parse().expect("an arch")).expect("a spec")
}

/// `jitc WORDS` over a cache and a family `k` of this TOML and source.
fn run(folder: &Path, (toml, source): (&str, &str), words: &str) -> (Option<i32>, String, String) {
    fs_err::write(folder.join("k.toml"), toml).expect("toml");
    fs_err::write(folder.join("k.cu.tera"), source).expect("source");
    let mut command = jitc(folder);
    command
        .args(words.split_whitespace())
        .arg("--templates")
        .arg(folder);
    let output = command
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .output()
        .expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn ptx_has_a_key_of_its_own_and_verifies_like_machine_code() {
    let folder = tempfile::tempdir().expect("tempdir");
    let jit = facade(folder.path(), &[]);
    let (asked, cubin) = (spec(&jit, "axpy", "compute_90"), spec(&jit, "axpy", "sm_90"));
    let prepared = jit.prepare(&asked).expect("built");
    let key = *prepared.request.key();
    assert_ne!(key, *jit.describe(&cubin).expect("described").0.key());
    assert_eq!(prepared.request.arch().to_string(), "compute_90");
    let code = &prepared.fetched.artifact.cubin;
    let read = image::read(code).expect("whole");
    assert_eq!(
        (read.is_ptx, read.arch, read.entries),
        (true, Some(90), vec!["axpy".to_owned()])
    );
    let places = parameter_info::parameters(code, "axpy").expect("read");
    let declared = asked
        .entries()
        .next()
        .and_then(|entry| asked.signature(entry))
        .expect("declared");
    assert_eq!(places, declared.places());
    // In another process' view it is a hit, and the cache finds nothing wrong.
    let again = facade(folder.path(), &[]);
    assert!(again.judge(&asked).expect("judged").1.is_hit());
    let (code, out, error) = run(folder.path(), (TOML, SOURCE), "cache verify");
    assert_eq!(code, Some(0), "{out}{error}");
}

const TOML: &str = "summary = 's'\n[[entries]]\nname = 'k'\nexpression = 'ns::k<7>'\ngrid = 1\nblock = 32\n\
                    [[entries.parameters]]\nname = 'n'\ntype = 'u32'\n";
const SOURCE: &str = "namespace ns { __constant__ float table[3]; template <int N> __global__ void k(unsigned n) { \
                      if (table[n] > N) __trap(); } }\n";

#[test]
fn what_a_family_declares_is_checked_of_ptx_too() {
    let folder = tempfile::tempdir().expect("tempdir");
    let warm = "warm k --arch compute_80";
    for (toml, source, says) in [
        (
            TOML.replace("'u32'", "'u64'"),
            SOURCE.to_owned(),
            "declared 8 bytes at 0, the kernel takes 4",
        ),
        (
            TOML.replace("expression = 'ns::k<7>'\n", ""),
            "extern \"C\" __global__ void other(unsigned n) {}\n".to_owned(),
            "the source defines no kernel `k`",
        ),
    ] {
        let (code, _, error) = run(folder.path(), (&toml, &source), warm);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(says), "{error}");
    }
    let (code, out, error) = run(folder.path(), (TOML, SOURCE), warm);
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, _, error) = run(folder.path(), (TOML, SOURCE), "warm k --arch compute_90a");
    assert_eq!(code, Some(2));
    assert!(error.contains("for PTX, compute_ and a number alone"), "{error}");
}

#[test]
fn a_gpu_that_no_compiler_knows_gets_ptx_where_that_is_allowed() {
    let folder = tempfile::tempdir().expect("tempdir");
    let jit = facade(folder.path(), &[]);
    jit.prepare(&spec(&jit, "axpy", "compute_80")).expect("built");
    let newest = jit.prepare(&spec(&jit, "axpy", "compute_90")).expect("built");
    let future = |settings: &[(&str, &str)]| {
        let jit = facade(folder.path(), settings);
        jit.prepare(&spec(&jit, "axpy", "sm_130a"))
    };
    assert!(matches!(future(&[]), Err(Error::UnknownArch { .. })));
    let found = future(&[("JITC_ARCH_MATCH", "ptx")]).expect("the newest stands in");
    assert_eq!(found.request.key(), newest.request.key());
    assert_eq!(found.fetched.provenance.label(), "compatible");
    let forbidden = future(&[("JITC_ARCH_MATCH", "ptx"), ("JITC_MISS", "forbid")]);
    assert!(matches!(forbidden, Err(Error::Forbidden { .. })));
}

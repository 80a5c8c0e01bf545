//! Hostile sources, by number and seed, and a server that has to live with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use jitc::engine::build::compile::{CompileError, WorkerChoice};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Registry;
use jitc::measure::rng::Rng;

const TOML: &str = "summary = 's'\n[constants.n]\ntype = 'u32'\nrange = [1, 1000000]\ndefault = 1\n\
                    help = 'n'\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
const GOOD: &str = "extern \"C\" __global__ void k(float* p) { p[{{ n }}] = 1; }\n";

/// How often each outcome came, and how many other requests were answered meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) outcomes: BTreeMap<&'static str, u32>,
    pub(crate) answered: u32,
}

/// One source. The kinds are those that took a host down, or got something past the key.
#[expect(clippy::too_many_lines, reason = "a list of kinds, a line or two each")]
pub(crate) fn source(seed: u64, number: u64) -> String {
    let mut rng = Rng::stream(seed, number);
    let mut below = |most: u64| usize::try_from(rng.next_u64() % most).unwrap_or(0) + 1;
    let kernel = |body: &str| {
        format!("extern \"C\" __global__ void k(float* p) {{ int x = p[{{{{ n }}}}]; {body} }}\n")
    };
    match number % 20 {
        0 => {
            let depth = below(300_000);
            kernel(&format!("p[1] = {}1.f{};", "(".repeat(depth), ")".repeat(depth)))
        }
        1 => {
            let mut arms = String::new();
            for arm in 0..below(3000) {
                let _ = write!(arms, "if (x == {arm}) p[1] = {arm}; else ");
            }
            kernel(&format!("{arms} p[2] = 1;"))
        }
        2 => format!(
            "template<int N, int M> __device__ long f() {{ if constexpr (N == 0) return M; else return \
             f<N-1, 2*M>() + f<N-1, 2*M+1>(); }}\n{}",
            kernel(&format!("p[1] = f<{}, 0>();", 16 + below(14)))
        ),
        3 => format!(
            "template<int N> struct T {{ T<N+1> t; }};\n{}",
            kernel(&format!("T<{}> t; p[1] = sizeof(t);", below(9)))
        ),
        4 => format!(
            "constexpr __device__ int f(int n) {{ int s = 0; for (long i = 0; i < 1000000000L * n; ++i) s += i; \
             return s; }}\n{}",
            kernel(&format!("constexpr int v = f({}); p[1] = v;", below(100)))
        ),
        5 => format!(
            "#include \"/{}\"\n{}",
            "../".repeat(below(20)) + "etc/passwd",
            kernel("")
        ),
        6 => format!(
            "#if __has_include(\"/etc/{}\")\n#error there\n#endif\n{}",
            pick(below(3), &["passwd", "none", "hosts"]),
            kernel("")
        ),
        7 => format!(
            "#define P(a, b) a##b\n__device__ const char t[] = P(__{}, __) __DATE__;\n{}",
            pick(below(2), &["TIME", "DATE"]),
            kernel("p[1] = t[x];")
        ),
        8 => {
            let mut macros = "#define M0(x) x x x x x x x x\n".to_owned();
            let depth = below(12);
            for level in 1..=depth {
                let _ = writeln!(
                    macros,
                    "#define M{level}(x) M{}(x) M{}(x) M{}(x)",
                    level - 1,
                    level - 1,
                    level - 1
                );
            }
            format!("{macros}{}", kernel(&format!("M{depth}(p[1] += 1;)")))
        }
        9 => kernel(&format!(
            "asm volatile(\"{}\");",
            pick(
                below(5),
                &[
                    ".include \\\"/etc/passwd\\\"",
                    "trap; exit",
                    "@!",
                    ".file 1 \\\"/etc/passwd\\\"",
                    "{ .reg .b32 x<99999999>; }"
                ]
            )
        )),
        10 => {
            let noise: String = (0..below(20_000))
                .map(|_| char::from_u32(u32::try_from(below(0x2000)).unwrap_or(1)).unwrap_or('?'))
                .collect();
            noise.replace(['{', '}', '\0'], " ")
        }
        11 => format!(
            "__device__ char big[{}ull << 30];\n{}",
            below(100_000),
            kernel("p[1] = big[x];")
        ),
        12 => kernel(&format!("__shared__ float s[{}]; p[1] = s[x];", below(1 << 28))),
        13 => format!(
            "#line {} \"/etc/passwd\"\n#pragma once\n#pragma nv_exec_check_disable\n{}",
            below(1 << 30),
            kernel("no;")
        ),
        14 => format!(
            "#if {}1{}\n#endif\n{}",
            "(".repeat(below(200_000)),
            ")".repeat(below(200_000)),
            kernel("")
        ),
        15 => format!("{}{}", "namespace a { ".repeat(below(100_000)), kernel("")),
        16 => kernel(&format!(
            "auto f = [&](auto self, auto y) {{ return self(self, self); }}; p[1] = f(f, {});",
            below(9)
        )),
        17 => kernel(&format!(
            "{} p[1] = x;",
            "#pragma unroll 1000000\nfor (int i = 0; i < 1000000; ++i) p[i] += i;\n".repeat(below(4))
        )),
        18 => format!("/* {}", "never ends ".repeat(below(50_000))),
        _ => kernel(&format!("{} p[1] = x;", "x = x * 3 + 1; ".repeat(below(30_000)))),
    }
}

fn pick<'a>(number: usize, of: &[&'a str]) -> &'a str {
    of[(number - 1) % of.len()]
}

/// Compiles so many hostile sources in a server that answers other requests meanwhile.
/// Panics as soon as one of those is not answered.
pub(crate) fn serve(count: u64, seed: u64, worker: WorkerChoice, folder: &std::path::Path) -> Report {
    let mut files = BTreeMap::from([
        ("good.toml".to_owned(), TOML.to_owned()),
        ("good.cu.tera".to_owned(), GOOD.to_owned()),
    ]);
    for number in 0..count {
        files.insert(format!("h{number}.toml"), TOML.to_owned());
        files.insert(format!("h{number}.cu.tera"), source(seed, number));
    }
    let flags = Flags {
        cache_dir: Some(folder.to_path_buf()),
        ..Flags::default()
    };
    let own = [("JITC_COMPILE_TIMEOUT", "2s"), ("JITC_COMPILE_MEMORY", "1GiB")];
    let home = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let home = home.filter(|(k, _)| ["HOME", "XDG_DATA_HOME"].contains(&k.as_str()));
    let env: Environment = home
        .chain(own.map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    let jit = Jit::builder(Config::load(flags, env).expect("settings"))
        .registry(Registry::from_files(&files).expect("families"))
        .worker(worker)
        .build()
        .expect("a facade");
    let spec = |family: &str, n: u32| {
        let family = jit.registry().get(family).expect("family");
        let n = n.to_string();
        KernelSpec::new(family, [("n", n.as_str())], "sm_90a".parse().expect("arch")).expect("legal")
    };
    let (done, next) = (AtomicBool::new(false), AtomicU32::new(1));
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                jit.prepare(&spec("good", n))
                    .expect("every other request is answered");
                jit.prepare(&spec("good", n)).expect("and hit");
            }
        });
        for number in 0..count {
            let outcome = match jit.prepare(&spec(&format!("h{number}"), 1)) {
                Ok(_) => "built",
                Err(Error::Compile { source, .. }) => match source {
                    CompileError::Refused { .. } => "refused",
                    CompileError::Crashed { .. } => "crashed",
                    CompileError::TimedOut { .. } => "timed out",
                    CompileError::OutOfMemory { .. } => "out of memory",
                    other => panic!("source {number}: {other}"),
                },
                Err(Error::Render(_) | Error::Template(_) | Error::Image(_)) => "refused before or after",
                Err(other) => panic!("source {number}: {other}"),
            };
            *report.outcomes.entry(outcome).or_default() += 1;
        }
        done.store(true, Ordering::Release);
        server.join().expect("the server lives");
    });
    report.answered = next.into_inner() - 1;
    report
}

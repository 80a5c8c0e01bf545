//! A process of its own that works on a cache as it is told, line by line.
//!
//! The tests of several processes, of limits and of kills start this test binary
//! again with [`worker`] alone; orders go in on standard input, and replies come
//! back on standard output behind a mark, since the harness prints there too.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jitc::engine::cache::bundle::{export, import};
use jitc::engine::cache::{Cache, Limits, Provenance, Store};

use crate::cache_support::{artifact, subject};

const MARK: &str = "> ";

/// The parent's side of a worker.
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    errors: std::path::PathBuf,
}

impl Worker {
    /// Starts one in this folder.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_under(folder, &[]).expect("a worker")
    }

    /// Starts one through a wrapper, to which the worker's own words are added.
    pub(crate) fn start_under(folder: &Path, wrapper: &[&str]) -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs_err::write(folder.join("worker"), b"")?;
        let errors = folder.join(format!("errors-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let this = std::env::current_exe()?;
        let own = [
            "--exact",
            "worker::worker",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ];
        let mut command = match wrapper {
            [] => Command::new(&this),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&this);
                command
            }
        };
        let mut child = command
            .args(own)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs_err::File::create(&errors)?.into_parts().0)
            .spawn()?;
        Ok(Self {
            orders: child.stdin.take(),
            replies: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
            errors,
        })
    }

    /// Gives an order without waiting for the reply.
    pub(crate) fn say(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("orders");
        // One that has died says so when it is heard.
        let _ = writeln!(orders, "{order}");
    }

    /// The reply to the oldest order that has not been answered; empty if it died.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.replies.read_line(&mut line).expect("a reply") == 0 {
                return String::new();
            }
            // The harness may have begun the line.
            if let Some((_, reply)) = line.split_once(MARK) {
                return reply.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.say(order);
        self.hear()
    }

    /// Ends it; what it wrote to standard error.
    pub(crate) fn end(mut self) -> String {
        self.orders = None;
        self.child.wait().expect("ended");
        fs_err::read_to_string(&self.errors).expect("errors")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a worker holds between two orders.
struct State {
    cache: Cache,
    store: Store,
    hoard: Vec<fs_err::File>,
}

#[test]
#[ignore = "started by the tests of several processes"]
fn worker() {
    if !Path::new("worker").exists() {
        return;
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("jitc=warn"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    let mut state = State {
        cache: Cache::builder().build(),
        store: Store::new("nowhere"),
        hoard: Vec::new(),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("an order");
        let words: Vec<&str> = line.split(' ').collect();
        let reply = state.obey(&words);
        let _ = writeln!(std::io::stdout().lock(), "{MARK}{reply}");
    }
}

impl State {
    fn obey(&mut self, words: &[&str]) -> String {
        match words {
            ["open", path] => {
                self.cache = Cache::builder().user(*path).build();
                self.store = Store::new(*path);
                "opened".into()
            }
            ["request", n] => self.request(number(n), Duration::ZERO),
            ["slow", n] => self.request(number(n), Duration::from_millis(100)),
            ["lookup", n] => {
                let found = self.cache.lookup(subject(number(n)).key());
                match found {
                    Some(found) if found.artifact.cubin == artifact(number(n)).cubin => "hit".into(),
                    Some(_) => "wrong bytes".into(),
                    None => "miss".into(),
                }
            }
            ["prune", keep] => {
                let limits = Limits {
                    max_entries: u64::from(number(keep)),
                    ..Limits::NONE
                };
                let pruned = self.store.prune(&limits, false).expect("pruned");
                let removed = pruned.keys.iter().map(jitc::engine::build::key::CacheKey::hex);
                removed.collect::<Vec<_>>().join(" ")
            }
            ["clean"] => self.store.clean().expect("cleaned").entries.to_string(),
            ["verify"] => match self.store.check(false) {
                Ok(checked) if checked.is_clean() => format!("clean {}", checked.good),
                Ok(checked) => format!("{checked:?}"),
                Err(error) => error.to_string(),
            },
            ["export", path] => {
                let mut file = fs_err::File::create(*path).expect("a file");
                let keys = self.store.keys().expect("keys");
                let exported = export(&self.store, &keys, &mut file).expect("exported");
                exported.entries.to_string()
            }
            ["import", path] => {
                let mut file = fs_err::File::open(*path).expect("a file");
                import(&self.store, &mut file)
                    .expect("imported")
                    .added
                    .to_string()
            }
            ["counters"] => serde_json::to_string(&self.cache.counters()).expect("JSON"),
            ["starve", left] => {
                while let Ok(file) = fs_err::File::open("/dev/null") {
                    self.hoard.push(file);
                }
                let left = self.hoard.len().saturating_sub(number(left) as usize);
                self.hoard.truncate(left);
                "starved".into()
            }
            ["feed"] => {
                self.hoard = Vec::new();
                "fed".into()
            }
            ["storm", seed, count] => self.storm(number(seed), number(count)),
            _ => format!("no such order: {words:?}"),
        }
    }

    fn request(&self, n: u32, slowly: Duration) -> String {
        let fetched = self.cache.get_or_build(&subject(n), || {
            // Counted by the compiler: one byte a compile.
            let mut options = fs_err::OpenOptions::new();
            if let Ok(mut file) = options.append(true).create(true).open("compiles") {
                let _ = file.write_all(b".");
            }
            std::thread::sleep(slowly);
            Ok::<_, Infallible>(artifact(n))
        });
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(never) => match never {},
        };
        if fetched.artifact.cubin != artifact(n).cubin {
            return "wrong bytes".into();
        }
        match fetched.provenance {
            Provenance::Hit(tier) => format!("hit {tier}"),
            Provenance::Compatible { tier, arch } => format!("hit {tier} of {arch}"),
            Provenance::Built => "built".into(),
            Provenance::BuiltUncached(reason) => format!("uncached {reason}"),
        }
    }

    /// Random work on eight keys: mostly requests, some prunes and looks.
    fn storm(&self, seed: u32, count: u32) -> String {
        let mut random = u64::from(seed);
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..count {
            let n = u32::try_from(next(8)).expect("small");
            let reply = match next(4) {
                0 => {
                    let limits = Limits {
                        max_entries: next(8),
                        ..Limits::NONE
                    };
                    match self.store.prune(&limits, false) {
                        Ok(_) => continue,
                        Err(error) => return error.to_string(),
                    }
                }
                1 => match self.cache.lookup(subject(n).key()) {
                    Some(found) if found.artifact.cubin != artifact(n).cubin => "wrong bytes".into(),
                    _ => continue,
                },
                _ => self.request(n, Duration::ZERO),
            };
            if reply.starts_with("wrong") || reply.starts_with("uncached") {
                return reply;
            }
        }
        let counters = self.cache.counters();
        format!("done healed={}", counters.healed)
    }
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}

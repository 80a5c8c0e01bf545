//! Compiles that begin and end under a test's eyes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jitc::engine::build::artifact::Artifact;
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::cache::Event;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Handover, Jit, JitBuilder};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;

use crate::cubin::of_source;
use crate::stub::{Stub, with_cubin};

/// Far longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_mins(2);

/// How a compile is to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Well,
    Refused,
    Panic,
}

/// Says which compile has begun, and ends it as it is told to; a canceled one at once.
pub(super) struct Told {
    begun: Mutex<Sender<String>>,
    ends: Mutex<Receiver<End>>,
    at_once: AtomicUsize,
    most: Arc<AtomicUsize>,
    canceled: Mutex<Sender<()>>,
}

impl Compiler for Told {
    fn compile(&self, rendered: &RenderedSource, cancel: &Cancel) -> Result<Artifact, CompileError> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let threads = rendered
            .source
            .split("num_threads = ")
            .nth(1)
            .and_then(|rest| rest.split('u').next());
        self.begun
            .lock()
            .expect("unlocked")
            .send(threads.expect("a number").to_owned())
            .expect("heard");
        let end = loop {
            if cancel.is_canceled() {
                self.canceled.lock().expect("unlocked").send(()).expect("heard");
                break Err(CompileError::Canceled);
            }
            if let Ok(end) = self
                .ends
                .lock()
                .expect("unlocked")
                .recv_timeout(Duration::from_millis(5))
            {
                break Ok(end);
            }
        };
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match end? {
            End::Well => Ok(with_cubin(of_source(rendered))),
            End::Refused => Err(CompileError::Refused {
                first: "k.cu(1): error: no".into(),
                log: "k.cu(1): error: no".into(),
            }),
            End::Panic => panic!("of a compiler"),
        }
    }
}

/// A facade whose compiles begin and end under the test's eyes.
pub(super) struct Bench {
    pub(super) jit: Arc<Jit>,
    pub(super) context: Context,
    pub(super) begun: Receiver<String>,
    pub(super) ends: Sender<End>,
    pub(super) canceled: Receiver<()>,
    pub(super) most: Arc<AtomicUsize>,
    pub(super) events: Arc<Mutex<Vec<String>>>,
}

pub(super) fn settings(cache: &Path, more: &[(&str, &str)]) -> Config {
    let own = [("JITC_MISS", "behind")];
    let env: Environment = (own.iter().chain(more))
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = Flags {
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    Config::load(flags, env).expect("settings")
}

/// An event's name, as `Debug` begins.
pub(super) fn name_of(event: &Event) -> String {
    let text = format!("{event:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

impl Bench {
    pub(super) fn over(builder: JitBuilder) -> Self {
        let events: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&events);
        let listener = move |event: &Event| heard.lock().expect("unlocked").push(name_of(event));
        let ((says, begun), (ends, told), (gone, canceled)) = (channel(), channel(), channel());
        let most = Arc::new(AtomicUsize::new(0));
        let told = Told {
            begun: Mutex::new(says),
            ends: Mutex::new(told),
            at_once: AtomicUsize::new(0),
            most: Arc::clone(&most),
            canceled: Mutex::new(gone),
        };
        let jit = builder.listener(Arc::new(listener)).build().expect("families");
        Self {
            jit: Arc::new(jit.with_compiler(Box::new(told))),
            context: Context::new(0).expect("a GPU"),
            begun,
            ends,
            canceled,
            most,
            events,
        }
    }

    /// Over a cache that has the general variant.
    pub(super) fn new(stub: &Stub) -> Self {
        Self::over(Jit::builder(settings(&warmed(stub), &[])))
    }

    pub(super) fn ask(&self, threads: u32) -> Handover {
        self.jit
            .load_behind(&spec(&self.jit, threads), &self.context)
            .expect("loaded")
    }

    /// The number of threads of the next compile that begins.
    pub(super) fn begun(&self) -> String {
        self.begun.recv_timeout(LONG).expect("a compile begins")
    }

    pub(super) fn end(&self, end: End) {
        self.ends.send(end).expect("a compile runs");
    }

    pub(super) fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().expect("unlocked"))
    }

    /// The events until this one, which is told on another thread.
    pub(super) fn events_until(&self, last: &str) -> Vec<String> {
        let begun = std::time::Instant::now();
        loop {
            if self
                .events
                .lock()
                .expect("unlocked")
                .iter()
                .any(|event| event == last)
            {
                return self.events();
            }
            assert!(begun.elapsed() < LONG, "no {last}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(super) fn spec(jit: &Jit, threads: u32) -> KernelSpec {
    let family = jit.registry().get("axpy").expect("built in");
    let arch = "sm_90a".parse().expect("an arch");
    KernelSpec::new(family, [("num_threads", threads.to_string().as_str())], arch).expect("a spec")
}

pub(super) struct Plain;

impl Compiler for Plain {
    fn compile(&self, rendered: &RenderedSource, _: &Cancel) -> Result<Artifact, CompileError> {
        Ok(with_cubin(of_source(rendered)))
    }
}

/// A cache with the general variant in it: 256 threads.
pub(super) fn warmed(stub: &Stub) -> PathBuf {
    let cache = stub.folder().join("cache");
    let jit = Jit::new(settings(&cache, &[]))
        .expect("families")
        .with_compiler(Box::new(Plain));
    jit.prepare(&spec(&jit, 256)).expect("built");
    cache
}

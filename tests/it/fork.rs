//! A process that forks while its threads are at work: the child answers by itself.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;

use crate::apart::{apart, ended_well, in_child};

/// Says that a compile has begun, and goes on when it is told to; in a child at once.
struct Told {
    parent: u32,
    begun: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Compiler for Told {
    fn compile(&self, rendered: &RenderedSource, _cancel: &Cancel) -> Result<Artifact, CompileError> {
        if std::process::id() == self.parent {
            self.begun.send(()).expect("heard");
            self.go_on.lock().expect("unlocked").recv().expect("told");
        }
        Ok(Artifact {
            cubin: crate::cubin::of_source(rendered),
            resources: vec![Resources::default()],
            compile_log: String::new(),
            compile_us: 7,
        })
    }
}

/// A facade over a folder, or over none, whose waits for others are longer than a day.
fn facade(folder: Option<&std::path::Path>) -> (Arc<Jit>, Receiver<()>, SyncSender<()>) {
    let mut settings = vec![("JITC_LOCK_TIMEOUT".to_owned(), "2d".to_owned())];
    if let Some(folder) = folder {
        let folder = folder.join("cache").to_str().expect("a path").to_owned();
        settings.push(("JITC_CACHE_DIR".into(), folder));
    }
    let env: Environment = settings.into_iter().collect();
    let jit = Jit::new(Config::load(Flags::default(), env).expect("config")).expect("a facade");
    let (begun, hears) = sync_channel(1);
    let (tells, go_on) = sync_channel(1);
    let told = Told {
        parent: std::process::id(),
        begun,
        go_on: Mutex::new(go_on),
    };
    (Arc::new(jit.with_compiler(Box::new(told))), hears, tells)
}

fn spec(jit: &Jit) -> KernelSpec {
    let family = jit.registry().get("wo_gemv").expect("family");
    let arch = "sm_90a".parse().expect("an arch");
    KernelSpec::new(family, [("wo_split", "8")], arch).expect("a spec")
}

#[test]
fn a_child_that_is_forked_during_a_compile_waits_for_no_thread_of_its_parent() {
    let name = "fork::a_child_that_is_forked_during_a_compile_waits_for_no_thread_of_its_parent";
    let Some(_) = apart(name) else { return };
    // Without a folder no lock is shared: only what is in memory could make it wait.
    let (jit, hears, tells) = facade(None);
    let spec = spec(&jit);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        // The parent's compile ends only once the child has its own.
        ended_well(in_child(|| {
            let prepared = jit.prepare(&spec).expect("built here");
            assert_eq!(prepared.fetched.provenance.label(), "built_uncached");
            jit.prepare(&spec).expect("and again");
        }));
        tells.send(()).expect("told");
        compiling.join().expect("the parent's own");
    });
}

#[test]
fn a_child_that_shares_a_folder_takes_what_its_parent_publishes() {
    let name = "fork::a_child_that_shares_a_folder_takes_what_its_parent_publishes";
    let Some(folder) = apart(name) else { return };
    let (jit, hears, tells) = facade(Some(&folder));
    let spec = spec(&jit);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        let child = in_child(|| {
            let prepared = jit.prepare(&spec).expect("waited for, or built");
            assert_eq!(prepared.fetched.provenance.label(), "hit");
        });
        tells.send(()).expect("told");
        compiling.join().expect("the parent's own");
        ended_well(child);
    });
}

#[test]
fn a_child_shuts_its_cache_down_without_its_parents_publishers_and_locks() {
    let name = "fork::a_child_shuts_its_cache_down_without_its_parents_publishers_and_locks";
    let Some(folder) = apart(name) else { return };
    let (jit, hears, tells) = facade(Some(&folder));
    let spec = spec(&jit);
    let locks = folder.join("cache/v2/.locks");
    let held = || fs_err::read_dir(&locks).map_or(0, Iterator::count);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        assert_eq!(held(), 1, "the parent's");
        ended_well(in_child(jitc::engine::cache::shutdown));
        assert_eq!(held(), 1, "and still the parent's");
        tells.send(()).expect("told");
        let prepared = compiling.join().expect("the parent's own");
        assert_eq!(prepared.fetched.provenance.label(), "built");
    });
}

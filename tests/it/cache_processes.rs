//! Several processes on one folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use jitc::engine::cache::{Limits, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::cache_support::{Root, artifact, build, fast_folder, subject};
use crate::worker::Worker;

fn compiles(folder: &Path) -> u64 {
    fs_err::metadata(folder.join("compiles")).map_or(0, |m| m.len())
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let listed = fs_err::read_dir(folder).expect("folder");
    listed.map(|e| e.expect("a name").path()).collect()
}

#[test]
fn thirty_two_processes_on_one_cold_key_compile_once() {
    let folder = tempfile::tempdir().expect("folder");
    let mut workers: Vec<_> = (0..32).map(|_| Worker::start(folder.path())).collect();
    for worker in &mut workers {
        assert_eq!(worker.ask("open cache"), "opened");
    }
    // All of them are up: now at once.
    for worker in &mut workers {
        worker.say("slow 1");
    }
    let mut replies: Vec<_> = workers.iter_mut().map(Worker::hear).collect();
    replies.sort();
    assert_eq!(replies[0], "built");
    assert_eq!(replies[1..], vec!["hit user"; 31]);
    assert_eq!(compiles(folder.path()), 1);
    for leftover in [".locks", ".staging"] {
        let left = names(&folder.path().join("cache/v2").join(leftover));
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(workers[0].ask("verify"), "clean 1");
}

#[test]
fn processes_that_prune_and_build_at_once_lose_nothing_that_is_in_use() {
    let folder = fast_folder();
    let mut workers: Vec<_> = (0..4).map(|_| Worker::start(folder.path())).collect();
    for (seed, worker) in workers.iter_mut().enumerate() {
        worker.ask("open cache");
        worker.say(&format!("storm {seed} 400"));
    }
    for worker in &mut workers {
        // Nothing uncached, nothing wrong, nothing taken for bad.
        assert_eq!(worker.hear(), "done healed=0");
    }
    assert!(workers[0].ask("verify").starts_with("clean "));
    assert!(!folder.path().join("cache/v2/.quarantine").exists());
    assert!(names(&folder.path().join("cache/v2/.staging")).is_empty());
}

#[test]
fn a_prune_does_not_disturb_a_reader_and_a_reader_no_prune() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(0), || build(0))
        .expect("built");
    let store = root.store();
    let none = Limits {
        max_entries: 0,
        ..Limits::NONE
    };
    let path = store.entry_path(subject(0).key());
    let good = fs_err::read(&path).expect("the entry");
    let mut reader = fs_err::File::open(&path).expect("an entry");
    // A lock that somebody holds, who may be anybody, keeps nobody from reading.
    rustix::fs::flock(reader.file().as_fd(), rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let hit = root.cache().lookup(subject(0).key()).expect("a hit");
    assert_eq!(hit.artifact.cubin, artifact(0).cubin);
    assert_eq!(
        store.prune(&none, false).expect("pruned").keys,
        [*subject(0).key()]
    );
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut bytes).expect("read");
    assert_eq!(bytes, good);
}

/// One step of the model test: which of three processes does what.
#[derive(Debug, Clone)]
enum Step {
    Request(usize, u32),
    Lookup(usize, u32),
    Prune(usize, u32),
    Clean(usize),
    Reopen(usize),
    /// Some file of the entry gets other bytes.
    Damage(u32),
    /// What writers that died left: a staging folder, a lock file.
    Litter(u32),
    /// Everything goes through a bundle into another folder, and that is used on.
    Move(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (who, n) = (0..3usize, 0..5u32);
    prop_oneof![
        6 => (who.clone(), n.clone()).prop_map(|(w, n)| Step::Request(w, n)),
        3 => (who.clone(), n.clone()).prop_map(|(w, n)| Step::Lookup(w, n)),
        1 => (who.clone(), n.clone()).prop_map(|(w, n)| Step::Prune(w, n)),
        1 => who.clone().prop_map(Step::Clean),
        1 => who.clone().prop_map(Step::Reopen),
        2 => n.clone().prop_map(Step::Damage),
        1 => n.prop_map(Step::Litter),
        1 => who.prop_map(Step::Move),
    ]
}

/// What the folder should hold.
#[derive(Default)]
struct Model {
    good: BTreeSet<u32>,
    bad: BTreeSet<u32>,
}

#[test]
fn three_processes_do_what_a_model_in_memory_does() {
    let mut config = Config::with_cases(48);
    // Where a failing case is kept would be beside the source; it is printed.
    config.failure_persistence = None;
    let folder = fast_folder();
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(folder.path())).collect();
    let workers = std::cell::RefCell::new(&mut workers);
    let count = std::cell::Cell::new(0);
    let steps = prop::collection::vec(step(), 1..30);
    TestRunner::new(config)
        .run(&steps, |steps| {
            let mut workers = workers.borrow_mut();
            let fresh = || {
                count.set(count.get() + 1);
                format!("cache-{}", count.get())
            };
            let mut root = fresh();
            for worker in workers.iter_mut() {
                worker.ask(&format!("open {root}"));
            }
            let mut model = Model::default();
            for step in steps {
                let path = folder.path().join(&root);
                follow(&mut workers, &path, &mut model, &step)?;
                if let Step::Move(who) = step {
                    let bundle = format!("{root}.bundle");
                    workers[who].ask(&format!("export {bundle}"));
                    root = fresh();
                    for worker in workers.iter_mut() {
                        worker.ask(&format!("open {root}"));
                    }
                    let added = workers[who].ask(&format!("import {bundle}"));
                    // A bundle takes along what is good, and leaves the rest.
                    model.bad.clear();
                    prop_assert_eq!(added, model.good.len().to_string());
                }
            }
            for n in 0..5 {
                let expected = if model.good.contains(&n) { "hit" } else { "miss" };
                prop_assert_eq!(workers[0].ask(&format!("lookup {n}")), expected);
            }
            prop_assert_eq!(workers[1].ask("verify"), format!("clean {}", model.good.len()));
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

fn follow(workers: &mut [Worker], root: &Path, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::Request(who, n) => {
            let before = compiles(root.parent().expect("folder"));
            let reply = workers[who].ask(&format!("request {n}"));
            let hit = model.good.contains(&n);
            prop_assert_eq!(reply, if hit { "hit user" } else { "built" });
            let compiled = compiles(root.parent().expect("folder")) - before;
            prop_assert_eq!(compiled, u64::from(!hit));
            model.bad.remove(&n);
            model.good.insert(n);
        }
        Step::Lookup(who, n) => {
            let reply = workers[who].ask(&format!("lookup {n}"));
            let expected = if model.good.contains(&n) { "hit" } else { "miss" };
            prop_assert_eq!(reply, expected);
            // A bad one was moved out of the way.
            model.bad.remove(&n);
        }
        Step::Prune(who, keep) => {
            let reply = workers[who].ask(&format!("prune {keep}"));
            let removed: Vec<_> = reply.split(' ').filter(|k| !k.is_empty()).collect();
            let there = model.good.len() + model.bad.len();
            prop_assert_eq!(removed.len(), there.saturating_sub(keep as usize));
            for n in 0..5 {
                if removed.contains(&subject(n).key().hex().as_str()) {
                    prop_assert!(model.good.remove(&n) || model.bad.remove(&n));
                }
            }
        }
        Step::Clean(who) => {
            let there = model.good.len() + model.bad.len();
            prop_assert_eq!(workers[who].ask("clean"), there.to_string());
            *model = Model::default();
        }
        Step::Reopen(who) => {
            let name = root.file_name().expect("a name").to_str().expect("text");
            workers[who].ask(&format!("open {name}"));
        }
        Step::Damage(n) => {
            let entry = Store::new(root).entry_path(subject(n).key());
            if model.good.contains(&n) {
                let mut options = fs_err::OpenOptions::new();
                let file = options.append(true).open(entry);
                file.expect("an entry's file").write_all(b"x").expect("written");
                model.good.remove(&n);
                model.bad.insert(n);
            }
        }
        Step::Litter(n) => {
            let version = root.join("v2");
            if version.is_dir() {
                let _ = fs_err::create_dir_all(version.join(".staging").join(format!("dead.{n}")));
                let _ = fs_err::create_dir_all(version.join(".locks"));
                fs_err::write(version.join(".locks").join(subject(n).key().hex()), b"").expect("written");
            }
        }
        Step::Move(_) => {}
    }
    Ok(())
}

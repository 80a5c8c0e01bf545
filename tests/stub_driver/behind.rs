//! Launching a general variant while the asked one is compiled: what is launched when, in
//! which order compiles run, how many at once, and what failing, forbidding, forking and
//! dropping do to them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cudarc::driver::sys;
use jitc::engine::cache::{Store, bundle};
use jitc::engine::config::MissPolicy;
use jitc::engine::jit::{Error, Handover, Jit, Standing};
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::bind_error::BindError;
use jitc::engine::run::device::DeviceError;
use jitc::engine::run::dispatch::{Chosen, Dispatcher};
use jitc::engine::run::load::{LoadError, LoadedKernel};
use jitc::engine::run::tensor::{Dtype, Tensor};

use bench::{Bench, End, LONG, settings, spec, warmed};

use crate::stub::{Stub, under_stub};

mod bench;
#[allow(dead_code, reason = "its main is of the example alone")]
#[path = "../../examples/behind.rs"]
mod example;

fn threads_of(handover: &Handover) -> u32 {
    handover.kernel().entries()[0].block_threads
}

fn bound(stub: &Stub, kernel: &Arc<LoadedKernel>) -> BoundKernel {
    stub.say("pointer", 0).say("params.axpy", "4,8,8,8,4");
    let vector = |address| Tensor::flat(address, Dtype::F32, 1000);
    let bind = kernel.bind().size("n", 1000).arg("a", 2.0_f32);
    bind.arg("x", vector(0x70_0000))
        .arg("y", vector(0x80_0000))
        .finish()
        .expect("bound")
}

fn launch(bound: &BoundKernel) {
    let stream: sys::CUstream = std::ptr::without_provenance_mut(0x3abc);
    // SAFETY: no kernel runs, and nothing is read at the addresses.
    unsafe { bound.launch(&[1000], stream) }.expect("launched");
}

#[test]
fn a_general_variant_is_launched_at_once_and_the_asked_one_takes_over_between_two_launches() {
    let name =
        "behind::a_general_variant_is_launched_at_once_and_the_asked_one_takes_over_between_two_launches";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    let handover = bench.ask(64);
    assert_eq!(
        (handover.standing(), threads_of(&handover)),
        (Standing::Behind, 256)
    );
    let general = bound(&stub, handover.kernel());
    assert_eq!(bench.begun(), "64");
    let told = bench.events();
    assert_eq!(
        told[..3],
        ["Lookup", "Hit", "Behind"],
        "before anything is compiled: {told:?}"
    );
    stub.calls();
    launch(&general);
    assert!(!handover.wait_for(Duration::ZERO), "it is still compiled");
    bench.end(End::Well);
    assert!(handover.wait_for(LONG));
    assert_eq!(
        (handover.standing(), threads_of(&handover)),
        (Standing::Asked, 64)
    );
    let mut told = told;
    told.extend(bench.events_until("TookOver"));
    let after = &told[3..];
    assert_eq!(
        after,
        ["Lookup", "Miss", "Building", "Built", "Published", "TookOver"]
    );
    // The values that were bound are those of the one that takes over.
    let asked = general.over(handover.kernel()).expect("the same parameters");
    launch(&asked);
    let launches = stub.calls_of("cuLaunchKernel");
    assert!(launches[0].contains("grid 1,1,1 block 256,1,1"), "{launches:?}");
    assert!(launches[1].contains("grid 4,1,1 block 64,1,1"), "{launches:?}");
    let values = |line: &String| line.split("params ").nth(1).map(str::to_owned);
    assert_eq!(values(&launches[0]), values(&launches[1]));
    let again = bench.ask(64);
    assert!(Arc::ptr_eq(again.kernel(), handover.kernel()));
    assert!(bench.events().is_empty(), "it is loaded already");
    let counters = bench.jit.cache().counters();
    assert_eq!(
        (counters.behind, counters.took_over, counters.behind_failed),
        (1, 1, 0)
    );
}

#[test]
fn values_of_one_kernel_are_anothers_only_where_nothing_that_a_launch_is_given_differs() {
    let name = "behind::values_of_one_kernel_are_anothers_only_where_nothing_that_a_launch_is_given_differs";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    let handover = bench.ask(256);
    let bound = bound(&stub, handover.kernel());
    let timed = spec(&bench.jit, 256)
        .with([("num_regions", "2")])
        .expect("a spec");
    bench.end(End::Well);
    let timed = bench.jit.load(&timed, &bench.context).expect("loaded");
    let error = bound.over(&timed).expect_err("another parameter is optional");
    assert!(matches!(error, BindError::OtherKernel { .. }), "{error}");
    assert!(
        !error.to_string().contains('\n') && error.to_string().contains("num_regions=2"),
        "{error}"
    );
}

#[test]
fn requests_are_compiled_in_their_order_one_at_a_time_and_each_once() {
    let name = "behind::requests_are_compiled_in_their_order_one_at_a_time_and_each_once";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    let asked = [64, 512, 128, 1024];
    let handovers: Vec<Handover> = asked.iter().map(|threads| bench.ask(*threads)).collect();
    // Asked again meanwhile, each is the same request.
    let again: Vec<Handover> = asked.iter().map(|threads| bench.ask(*threads)).collect();
    for (place, threads) in asked.iter().enumerate() {
        assert_eq!(bench.begun(), threads.to_string());
        assert!(
            handovers[place..]
                .iter()
                .all(|handover| threads_of(handover) == 256)
        );
        bench.end(End::Well);
        assert!(handovers[place].wait_for(LONG) && again[place].wait_for(LONG));
        assert_eq!(
            (threads_of(&handovers[place]), threads_of(&again[place])),
            (*threads, *threads)
        );
    }
    assert_eq!(bench.most.load(Ordering::SeqCst), 1);
    assert!(bench.begun.try_recv().is_err(), "no fifth compile");
    assert_eq!(bench.jit.cache().counters().behind, 4);
}

#[test]
fn as_many_are_compiled_at_once_as_the_program_says_and_no_more() {
    let name = "behind::as_many_are_compiled_at_once_as_the_program_says_and_no_more";
    let Some(stub) = under_stub(name) else { return };
    let two = std::num::NonZeroUsize::new(2).expect("not 0");
    let bench = Bench::over(Jit::builder(settings(&warmed(&stub), &[])).behind_jobs(two));
    let handovers: Vec<Handover> = [64, 512, 128, 1024, 32].map(|threads| bench.ask(threads)).into();
    let mut first = [bench.begun(), bench.begun()];
    first.sort_unstable();
    assert_eq!(first, ["512", "64"], "two begin before any has ended");
    for _ in 0..5 {
        bench.end(End::Well);
    }
    assert!(handovers.iter().all(|handover| handover.wait_for(LONG)));
    assert_eq!(bench.most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_failure_keeps_the_general_variant_and_is_not_repeated_with_each_request() {
    let name = "behind::a_failure_keeps_the_general_variant_and_is_not_repeated_with_each_request";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    for (threads, end, says) in [
        (64, End::Refused, "k.cu(1): error: no"),
        (128, End::Panic, "panicked"),
    ] {
        let handover = bench.ask(threads);
        bench.begun();
        bench.end(end);
        assert!(handover.wait_for(LONG));
        let Standing::Failed(reason) = handover.standing() else {
            panic!("{:?}", handover.standing());
        };
        assert!(reason.contains(says), "{reason}");
        assert_eq!(threads_of(&handover), 256);
        let told = bench.events_until("BehindFailed");
        assert!(!told.contains(&"TookOver".to_owned()), "{told:?}");
        for _ in 0..3 {
            let again = bench.ask(threads);
            assert!(matches!(again.standing(), Standing::Failed(_)) && threads_of(&again) == 256);
        }
        assert!(bench.events().is_empty(), "nor told again");
        assert!(bench.begun.try_recv().is_err(), "it is left alone");
    }
    let counters = bench.jit.cache().counters();
    assert_eq!(
        (counters.behind, counters.took_over, counters.behind_failed),
        (2, 0, 2)
    );
}

#[test]
fn nothing_is_compiled_behind_where_compiling_is_forbidden() {
    let name = "behind::nothing_is_compiled_behind_where_compiling_is_forbidden";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    let (compiled, waiting) = (bench.ask(64), bench.ask(128));
    assert_eq!(bench.begun(), "64");
    bench.jit.forbid();
    let refused = bench.jit.load_behind(&spec(&bench.jit, 512), &bench.context);
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    // What has begun ends as usual, and what waits does not begin.
    bench.end(End::Well);
    assert!(compiled.wait_for(LONG) && waiting.wait_for(LONG));
    assert_eq!(threads_of(&compiled), 64);
    assert!(matches!(waiting.standing(), Standing::Failed(reason) if reason.contains("forbidden")));
    bench.events_until("BehindFailed");
    assert!(bench.begun.try_recv().is_err(), "nothing is compiled");
    bench.jit.set_miss(MissPolicy::Behind);
    let again = bench.ask(128);
    assert_eq!(
        (again.standing(), bench.begun().as_str()),
        (Standing::Behind, "128")
    );
    bench.end(End::Well);
    assert!(again.wait_for(LONG) && threads_of(&again) == 128);
}

#[test]
fn what_nobody_holds_any_more_is_given_up_without_a_word() {
    let name = "behind::what_nobody_holds_any_more_is_given_up_without_a_word";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::new(&stub);
    let (under_way, waiting) = (bench.ask(64), bench.ask(128));
    let clone = under_way.clone();
    assert_eq!(bench.begun(), "64");
    drop((under_way, waiting));
    assert_eq!(clone.standing(), Standing::Behind, "one still holds it");
    drop(clone);
    bench
        .canceled
        .recv_timeout(LONG)
        .expect("its compile is given up");
    // Asked for again it is a request of its own, and what was dropped before its turn
    // never has one.
    let again = bench.ask(512);
    assert_eq!(bench.begun(), "512");
    bench.end(End::Well);
    assert!(again.wait_for(LONG));
    let told = bench.events_until("TookOver");
    assert!(!told.contains(&"BehindFailed".to_owned()), "{told:?}");
    let back = bench.ask(64);
    assert_eq!(
        (back.standing(), bench.begun().as_str()),
        (Standing::Behind, "64")
    );
    bench.end(End::Well);
    assert!(back.wait_for(LONG) && threads_of(&back) == 64);
}

#[test]
fn where_no_general_variant_is_prepared_a_request_waits_for_its_own() {
    let name = "behind::where_no_general_variant_is_prepared_a_request_waits_for_its_own";
    let Some(stub) = under_stub(name) else { return };
    let bench = Bench::over(Jit::builder(settings(&stub.folder().join("cache"), &[])));
    bench.end(End::Well);
    let handover = bench.ask(64);
    assert_eq!(
        (handover.standing(), threads_of(&handover)),
        (Standing::Asked, 64)
    );
    let told = bench.events();
    assert!(!told.contains(&"Behind".to_owned()), "{told:?}");
    // Under another policy a general variant that is there stands in for nothing.
    bench.jit.set_miss(MissPolicy::Compile);
    bench.end(End::Well);
    bench.ask(256);
    bench.end(End::Well);
    assert_eq!(threads_of(&bench.ask(128)), 128);
}

#[test]
fn an_embedded_general_variant_is_launched_before_anybody_looks_for_a_compiler() {
    let name = "behind::an_embedded_general_variant_is_launched_before_anybody_looks_for_a_compiler";
    let Some(stub) = under_stub(name) else { return };
    let jit = Jit::new(settings(&warmed(&stub), &[])).expect("families");
    let mut bytes = Vec::new();
    let key = *jit.describe(&spec(&jit, 256)).expect("described").0.key();
    bundle::export(&Store::new(warmed(&stub)), &[key], &mut bytes).expect("exported");
    // To look there is an error: who looks fails.
    let nowhere = settings(
        &stub.folder().join("empty"),
        &[("JITC_NVRTC", "/nonexistent/libnvrtc.so.13")],
    );
    let bench = Bench::over(Jit::builder(nowhere).embedded(bytes.leak()));
    let handover = bench.ask(64);
    assert_eq!(threads_of(&handover), 256);
    assert!(handover.wait_for(LONG));
    assert!(
        matches!(handover.standing(), Standing::Failed(reason) if reason.contains("/nonexistent")),
        "{:?}",
        handover.standing()
    );
}

#[test]
fn a_takeover_waits_until_no_stream_captures() {
    let Some(stub) = under_stub("behind::a_takeover_waits_until_no_stream_captures") else {
        return;
    };
    let bench = Bench::new(&stub);
    let handover = bench.ask(64);
    bench.begun();
    stub.say("capturing", 1);
    bench.end(End::Well);
    bench.events_until("Published");
    assert!(!handover.wait_for(Duration::from_millis(50)), "a stream captures");
    stub.forget("capturing");
    assert!(handover.wait_for(LONG) && threads_of(&handover) == 64);
    assert!(bench.begun.try_recv().is_err(), "it is compiled once");
}

#[test]
fn a_forked_child_waits_for_no_takeover_and_asks_for_none() {
    let Some(stub) = under_stub("behind::a_forked_child_waits_for_no_takeover_and_asks_for_none") else {
        return;
    };
    let bench = Bench::new(&stub);
    let handover = bench.ask(64);
    bench.begun();
    // SAFETY: the child does what a child may, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let work = std::panic::AssertUnwindSafe(|| {
            assert!(!handover.wait_for(LONG), "nobody makes it here");
            assert_eq!(handover.standing(), Standing::Behind);
            let asked = bench.jit.load_behind(&spec(&bench.jit, 64), &bench.context);
            assert!(
                matches!(asked, Err(Error::Load(LoadError::Device(DeviceError::Forked)))),
                "{asked:?}"
            );
            drop(handover);
        });
        let failed = std::panic::catch_unwind(work).is_err();
        // SAFETY: ends this process, of which nothing else is left.
        unsafe { libc::_exit(i32::from(failed)) };
    }
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "its words are above");
    bench.end(End::Well);
    assert!(
        handover.wait_for(LONG) && threads_of(&handover) == 64,
        "what a child drops is its own"
    );
}

#[test]
fn the_example_of_the_docs_launches_at_once_and_ends_with_what_it_asked_for() {
    let name = "behind::the_example_of_the_docs_launches_at_once_and_ends_with_what_it_asked_for";
    let Some(stub) = under_stub(name) else { return };
    stub.say("pointer", 0).say("params.axpy", "4,8,8,8,4");
    let bench = Bench::new(&stub);
    bench.end(End::Well);
    let tensors = [0x70_0000, 0x80_0000].map(|address| Tensor::flat(address, Dtype::F32, 1 << 20));
    let stream = std::ptr::without_provenance_mut(0x3abc);
    stub.calls();
    let launches = example::until_it_took_over(&bench.jit, &bench.context, tensors, stream, u32::MAX);
    let launches = launches.expect("launched") as usize;
    let calls = stub.calls_of("cuLaunchKernel");
    assert!(launches >= 1 && calls.len() == launches, "{launches}");
    assert!(
        calls[0].contains(" block 256,1,1 ") || launches == 1,
        "{}",
        calls[0]
    );
    assert!(
        calls[launches - 1].contains(" block 64,1,1 "),
        "{}",
        calls[launches - 1]
    );
    assert_eq!(bench.jit.cache().counters().took_over, 1);
}

const RULES: &str = "\n[dispatch]\nsizes = ['m']\n[[dispatch.rules]]\nwhen = 'm < 100'\nset = { num_threads = 64 }\n\
                     [[dispatch.rules]]\nset = { num_threads = 256 }\n";

#[test]
fn a_selection_sees_a_takeover() {
    let Some(stub) = under_stub("behind::a_selection_sees_a_takeover") else {
        return;
    };
    let folder = stub.folder().join("kernels");
    fs_err::create_dir_all(folder.join("axpy")).expect("a folder");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/axpy");
    let toml = fs_err::read_to_string(own.join("family.toml")).expect("read");
    fs_err::write(folder.join("axpy/family.toml"), format!("{toml}{RULES}")).expect("written");
    fs_err::copy(own.join("kernel.cu.tera"), folder.join("axpy/kernel.cu.tera")).expect("copied");
    let templates = folder.to_str().expect("a path");
    let config = settings(&warmed(&stub), &[("JITC_TEMPLATES", templates)]);
    let bench = Bench::over(Jit::builder(config));
    let dispatcher = Dispatcher::new(&spec(&bench.jit, 256), bench.context.device(), &[]).expect("rules");
    let serving = bench.jit.serve(dispatcher, &bench.context).expect("served");
    let selected = |m: u32| {
        let (kernel, selected) = serving.select(&[m]).expect("selected");
        assert_eq!(selected.chosen, Chosen::Rule);
        (kernel.entries()[0].block_threads, selected.rule)
    };
    assert_eq!((selected(5), selected(500)), ((256, Some(1)), (256, Some(2))));
    assert_eq!(bench.begun(), "64");
    bench.end(End::Well);
    assert!(serving.kernels().iter().all(|handover| handover.wait_for(LONG)));
    assert_eq!((selected(5), selected(500)), ((64, Some(1)), (256, Some(2))));
    assert!(serving.select(&[]).is_err(), "a problem has a size");
    // Under another policy every variant is there when it is served.
    bench.jit.set_miss(MissPolicy::Compile);
    bench.end(End::Well);
    let wide = spec(&bench.jit, 256).with([("unroll", "8")]).expect("a spec");
    let dispatcher = Dispatcher::new(&wide, bench.context.device(), &["num_threads"]).expect("rules");
    let serving = bench.jit.serve(dispatcher, &bench.context).expect("served");
    assert!(
        serving
            .kernels()
            .iter()
            .all(|handover| handover.standing() == Standing::Asked)
    );
}

//! Selecting among prepared variants: what a serving loop pays at every step.

#[path = "../tests/it/own_family.rs"]
mod own_family;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use jitc::engine::jit::{Handover, Serving};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::run::dispatch::Dispatcher;
use jitc::engine::run::occupancy::known_device;
use jitc::families::decode_layer::dispatch::Kind;
use jitc::families::decode_layer::dispatch::Layers;
use jitc::families::decode_layer::dispatch::Path;
use jitc::families::decode_layer::dispatch::Policy;
use jitc::families::decode_layer::dispatch::Problem;
use jitc::families::decode_layer::dispatch::Variant;
use jitc::families::decode_layer::dispatch::select;
use own_family::family_of;

/// A cooperative and a separate variant for each of 1, 2, 4 and 8 tokens a pass.
fn variants() -> Vec<Variant> {
    [1, 2, 4, 8]
        .into_iter()
        .flat_map(|tokens| {
            [Kind::Cooperative, Kind::Separate].map(|kind| Variant {
                kind,
                tokens_per_pass: tokens,
                blocks: 132,
                per_token: false,
                capacity: 132,
            })
        })
        .collect()
}

fn selecting(c: &mut Criterion) {
    let variants = variants();
    let every_fourth = (3..64).step_by(4).map(|n: u32| n.to_string());
    let layers = Layers::parse(&every_fourth.collect::<Vec<_>>().join(",")).expect("layers");
    for (name, path) in [("auto", Path::Auto), ("separate", Path::Separate)] {
        let policy = Policy {
            path,
            layers: layers.clone(),
            max_tokens: 8,
        };
        let mut num_tokens = 0;
        c.bench_function(&format!("select among 8, {name}"), |b| {
            b.iter(|| {
                num_tokens = num_tokens % 8 + 1;
                let problem = Problem {
                    num_tokens,
                    layer: 31,
                    decode_only: true,
                };
                select(black_box(&variants), black_box(&policy), &problem)
            });
        });
    }
}

const RULES: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [128, 256, 512]
default = 256
help = "threads"
[constants.width]
type = "u32"
values = [1, 2, 4]
default = 1
help = "elements of a load"
[[entries]]
name = "k"
grid = [1, 1, 1]
block = "block"
[dispatch]
sizes = ["n", "k"]
[[dispatch.rules]]
when = "n % 4 == 0 and sm_count >= 200"
set = { width = 4, block = 512 }
[[dispatch.rules]]
when = "n % 4 == 0 and k >= 1024"
set = { width = 4, block = { of = "ceil_div(a=n, b=4)", up_to = [128, 256, 512] } }
[[dispatch.rules]]
when = "n % 2 == 0"
set = { width = 2 }
[[dispatch.rules]]
set = { width = 1 }
"#;

/// A family's own rules.
fn by_rule(c: &mut Criterion) {
    let family = family_of(RULES).expect("family");
    let asked = KernelSpec::new(&family, [], Arch::of_device(9, 0)).expect("legal");
    let device = known_device("h200").expect("known");
    let dispatcher = Dispatcher::new(&asked, &device, &[]).expect("rules");
    let mut n = 0;
    c.bench_function("select by four rules of a family", |b| {
        b.iter(|| {
            n = n % 4096 + 1;
            black_box(&dispatcher).select(&[n, 4096])
        });
    });
    // What stands for the kernels: each took over from another, and no GPU is asked.
    let took_over = |index: usize| {
        let (handover, takeover) = Handover::until(Arc::new(usize::MAX));
        takeover.give(Arc::new(index));
        handover
    };
    let kernels = (0..dispatcher.variants().len()).map(took_over).collect();
    let serving = Serving::new(dispatcher, kernels).expect("one each");
    c.bench_function("select a kernel that took over, by four rules", |b| {
        b.iter(|| {
            n = n % 4096 + 1;
            let selected = black_box(&serving).select(&[n, 4096]);
            selected.map(|(kernel, _)| **kernel)
        });
    });
}

criterion_group!(benches, selecting, by_rule);
criterion_main!(benches);

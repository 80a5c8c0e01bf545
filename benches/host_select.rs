//! Selecting among prepared variants: what a serving loop pays at every step.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jitc::families::decode_layer::dispatch::Kind;
use jitc::families::decode_layer::dispatch::Layers;
use jitc::families::decode_layer::dispatch::Path;
use jitc::families::decode_layer::dispatch::Policy;
use jitc::families::decode_layer::dispatch::Problem;
use jitc::families::decode_layer::dispatch::Variant;
use jitc::families::decode_layer::dispatch::select;

/// A cooperative and a lite variant for each of 1, 2, 4 and 8 tokens a pass.
fn variants() -> Vec<Variant> {
    [1, 2, 4, 8]
        .into_iter()
        .flat_map(|tokens| {
            [Kind::Coop, Kind::Lite].map(|kind| Variant {
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
    for (name, path) in [("auto", Path::Auto), ("lite", Path::Lite)] {
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

criterion_group!(benches, selecting);
criterion_main!(benches);

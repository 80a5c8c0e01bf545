//! The cache on the host: a hit in memory, a verified hit on disk.

#[path = "../tests/it/cache_support.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod cache_support;

use cache_support::{Root, artifact, never, subject};
use criterion::{Criterion, criterion_group, criterion_main};

fn hits(criterion: &mut Criterion) {
    let root = Root::new();
    let subject = subject(1);
    let mut big = artifact(1);
    big.cubin = big.cubin.repeat(7);
    big.cubin.truncate(100_000);
    let cache = root.cache();
    let held = cache.get_or_build(&subject, || Ok::<_, std::convert::Infallible>(big));
    criterion.bench_function("memory_hit", |b| {
        b.iter(|| cache.get_or_build(&subject, never));
    });
    let store = root.store();
    criterion.bench_function("disk_hit_100_kb", |b| b.iter(|| store.load(&subject.key)));
    drop(held);
}

criterion_group!(benches, hits);
criterion_main!(benches);

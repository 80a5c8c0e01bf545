//! The cache on the host: a hit in memory, a verified hit on disk, a key, and a
//! folder of 50,000 entries. Aims: 50 ns, 200 us, 50 us, and 1 ms to open, 1 s to list.

#[path = "../tests/it/cache_support.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod cache_support;

use std::hint::black_box;

use cache_support::{Root, artifact, fast_folder, never, subject};
use criterion::{Criterion, criterion_group, criterion_main};
use jitc::engine::build::render::{preimage, render};
use jitc::engine::cache::{Cache, Store, Whole};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::sign::{Place, SecretKey, Signing, TrustedKeys};
use sha2::{Digest, Sha256};

/// Entries of the large folder; `JITC_BENCH_ENTRIES` says another number.
const MANY: u32 = 50_000;

fn entries() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a bench has no settings of its own")]
    let said = std::env::var("JITC_BENCH_ENTRIES").ok();
    said.map_or(MANY, |text| text.parse().expect("a number of entries"))
}

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
    let hashed = vec![7; 100_000];
    criterion.bench_function("sha256_100_kb", |b| b.iter(|| Sha256::digest(&hashed)));
    let store = root.store();
    criterion.bench_function("disk_hit_100_kb", |b| b.iter(|| store.load(subject.key())));
    let secret = SecretKey::generate("bench-1").expect("a key");
    store.sign(subject.key(), &secret).expect("signed");
    let trusted = TrustedKeys::new(vec![secret.public()]).expect("keys");
    let signing = Signing::new(trusted, "signed".parse().expect("rules"));
    let signed = store.with_admission(signing.of(Place::User));
    criterion.bench_function("signed_disk_hit_100_kb", |b| {
        b.iter(|| signed.load(subject.key()));
    });
    drop(held);
}

fn keys(criterion: &mut Criterion) {
    let config = Config::load(Flags::default(), Environment::default()).expect("settings");
    let jit = Jit::new(config).expect("a facade");
    let family = jit.registry().get("wo_gemv").expect("the family");
    let arch = "sm_90a".parse().expect("an arch");
    let spec = KernelSpec::new(family, [("wo_split", "8")], arch).expect("a spec");
    let rendered = render(jit.registry(), &spec).expect("a source");
    let toolchain = jit.identity().expect("an identity");
    criterion.bench_function("render_wo", |b| b.iter(|| render(jit.registry(), &spec)));
    criterion.bench_function("key_of_rendered_wo", |b| {
        b.iter(|| preimage(&spec, &rendered, &toolchain, &[]).key());
    });
    criterion.bench_function("describe_wo", |b| b.iter(|| jit.describe(&spec)));
}

/// Entries as a publish leaves them, without its trips to the disk.
fn fill(store: &Store, entries: u32) {
    for n in 0..entries {
        let subject = subject(n);
        let path = store.entry_path(subject.key());
        fs_err::create_dir_all(path.parent().expect("a shard")).expect("a folder");
        fs_err::write(path, Whole::new(&subject, &artifact(n)).to_bytes()).expect("a file");
    }
}

fn many(criterion: &mut Criterion) {
    let folder = fast_folder();
    let root = folder.path().join("cache");
    let store = Store::new(&root);
    let entries = entries();
    fill(&store, entries);
    let absent = *subject(entries).key();
    let mut group = criterion.benchmark_group(format!("of_{entries}"));
    group.bench_function("open_and_miss", |b| {
        b.iter(|| black_box(Cache::builder().user(&root).build().lookup(&absent)));
    });
    let there = *subject(7).key();
    group.bench_function("open_and_hit", |b| {
        b.iter(|| black_box(Cache::builder().user(&root).build().lookup(&there)));
    });
    group.sample_size(10);
    group.bench_function("ls", |b| {
        b.iter(|| assert_eq!(store.records().expect("records").len(), entries as usize));
    });
    group.bench_function("ls_first_line", |b| {
        let shards = store.shards().expect("shards");
        b.iter(|| black_box(store.records_of(&shards[0])));
    });
    // The first counts every shard, and remembers those that have been still for two seconds.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(store.tally().expect("a tally").totals.entries, u64::from(entries));
    group.bench_function("stats", |b| b.iter(|| black_box(store.tally())));
    group.finish();
}

criterion_group!(benches, hits, keys, many);
criterion_main!(benches);

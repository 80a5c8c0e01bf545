//! A mutation fuzzer for the readers of manifests and bundles, in this process.
//!
//!     cargo run --release --example fuzz -- 10000000 2026
//!
//! runs so many executions from this seed, and keeps one input for each outcome in
//! fuzz/corpus, which `cargo test` replays. It mutates at random and, so that
//! inputs get past the digests, mends the digest of half of them. A panic
//! leaves its input in fuzz/crashes and ends the run.

#[path = "../fuzz/targets.rs"]
mod targets;

#[path = "../tests/it/cache_support.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod cache_support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use jitc::engine::cache::Whole;
use targets::{mend, pack};

type Target = fn(&[u8]) -> String;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
const CRASHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/crashes");

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1).map(|w| w.parse::<u64>().ok());
    let executions = words.next().flatten().unwrap_or(1_000_000);
    let seed = words.next().flatten().unwrap_or(1);
    let mut out = std::io::stdout().lock();
    let entry = small_entry();
    let manifests = vec![entry.parts().manifest];
    let bundles = vec![bundle_of(&[]), bundle_of(&[&entry])];
    let mut total = 0;
    let started = Instant::now();
    for (name, target, seeds, share) in [
        ("manifest", targets::manifest as Target, manifests, executions / 2),
        (
            "bundle",
            targets::bundle as Target,
            bundles,
            executions - executions / 2,
        ),
    ] {
        let begun = Instant::now();
        let outcomes = run(name, target, &seeds, share, seed)?;
        total += share;
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(
            out,
            "{name}: {share} executions in {seconds:.1} s, {} outcomes",
            outcomes.len()
        )?;
        for (outcome, (count, _)) in outcomes {
            writeln!(out, "  {outcome}: {count}")?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = total as f64 / seconds;
    writeln!(
        out,
        "{total} executions from seed {seed} in {seconds:.1} s ({rate:.0} a second): no panic"
    )
}

/// Outcomes with their number and one input.
type Outcomes = BTreeMap<String, (u64, Vec<u8>)>;

fn run(
    name: &str,
    target: Target,
    seeds: &[Vec<u8>],
    executions: u64,
    seed: u64,
) -> std::io::Result<Outcomes> {
    let mut random = Random(seed);
    let mut outcomes = Outcomes::new();
    for execution in 0..executions {
        // Mostly from a seed, at times from what came to another outcome before.
        let from = if random.below(4) == 0 && !outcomes.is_empty() {
            let n = random.below(outcomes.len());
            outcomes.values().nth(n).map_or(&seeds[0], |(_, input)| input)
        } else {
            &seeds[random.below(seeds.len())]
        };
        let mut input = from.clone();
        if execution > 0 {
            random.mutate(name, &mut input);
        }
        let outcome = match std::panic::catch_unwind(|| target(&input)) {
            Ok(outcome) => outcome,
            Err(panic) => {
                fs_err::create_dir_all(CRASHES)?;
                fs_err::write(
                    Path::new(CRASHES).join(format!("{name}-{seed}-{execution}")),
                    &input,
                )?;
                std::panic::resume_unwind(panic);
            }
        };
        let (count, _) = outcomes
            .entry(outcome.clone())
            .or_insert_with(|| (0, input.clone()));
        *count += 1;
        if *count == 1 {
            let folder = Path::new(CORPUS).join(name);
            fs_err::create_dir_all(&folder)?;
            fs_err::write(folder.join(outcome), &input)?;
        }
    }
    Ok(outcomes)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    fn mutate(&mut self, name: &str, input: &mut Vec<u8>) {
        if name == "bundle" && self.below(4) == 0 {
            *input = self.mutated_inside();
        }
        for _ in 0..=self.below(3) {
            self.mutate_once(input);
        }
        if name == "bundle" && self.below(2) == 0 {
            mend(input);
        }
    }

    fn mutate_once(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            input.push(self.next().to_le_bytes()[0]);
            return;
        }
        let at = self.below(input.len());
        let length = self.below(16.min(input.len() - at)) + 1;
        match self.below(8) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.next().to_le_bytes()[0],
            2 => input.truncate(at),
            3 => drop(input.drain(at..at + length)),
            4 => {
                let copied = input[at..at + length].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, copied);
            }
            5 => {
                // Lengths and counts are eight bytes.
                let odd = [
                    0,
                    1,
                    u64::MAX,
                    1 << 32,
                    (256 << 20) + 1,
                    i64::MAX.unsigned_abs(),
                    255,
                ];
                let bytes = odd[self.below(odd.len())].to_le_bytes();
                let end = input.len().min(at + 8);
                input[at..end].copy_from_slice(&bytes[..end - at]);
            }
            6 => {
                let text: [&[u8]; 8] = [
                    b"null",
                    b"-1",
                    b"1e999",
                    b"\"",
                    b"{",
                    b"]",
                    b"\\u0000",
                    b"99999999999999999999",
                ];
                let text = text[self.below(text.len())].to_vec();
                input.splice(at..at + length, text);
            }
            _ => {
                let other = self.below(input.len());
                input.swap(at, other);
            }
        }
    }

    /// A bundle whose one entry was mutated before it was packed.
    fn mutated_inside(&mut self) -> Vec<u8> {
        let entry = small_entry();
        let mut parts = entry.parts();
        let part = match self.below(4) {
            0 => &mut parts.manifest,
            1 => &mut parts.code,
            2 => &mut parts.source,
            _ => &mut parts.log,
        };
        self.mutate_once(part);
        let text = &entry.texts().headers[0].1;
        pack(&[text], &[(*entry.entry().manifest().key.as_bytes(), &parts)])
    }
}

fn small_entry() -> Whole {
    let mut artifact = cache_support::artifact(1);
    artifact.cubin.truncate(48);
    Whole::new(&cache_support::subject(1), &artifact)
}

fn bundle_of(entries: &[&Whole]) -> Vec<u8> {
    let parts: Vec<_> = entries.iter().map(|whole| whole.parts()).collect();
    let packed: Vec<_> = entries
        .iter()
        .zip(&parts)
        .map(|(whole, parts)| (*whole.entry().manifest().key.as_bytes(), parts))
        .collect();
    let text = cache_support::subject(1).headers()[0].1.clone();
    pack(&[&text], &packed)
}

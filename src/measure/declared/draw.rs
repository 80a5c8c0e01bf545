//! Elements drawn from a seed.
//!
//! Invariant: the same seed and name give the same bytes on every machine, whatever else is
//! drawn.

use sha2::{Digest, Sha256};

use crate::engine::request::dtype::Dtype;
use crate::engine::request::template::{Fill, FillKind};
use crate::measure::number::{bits, lanes};
use crate::measure::rng::Rng;

/// A stream of random numbers of its own for each name: what another one draws changes none.
pub(super) fn stream(seed: u64, name: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let own = digest.first_chunk().map_or(0, |own| u64::from_le_bytes(*own));
    Rng::stream(seed, own).next_u64()
}

/// The bytes of the element nearest to a number.
pub(super) fn element(dtype: Dtype, number: f64) -> impl Iterator<Item = u8> {
    bits(dtype, number).to_le_bytes().into_iter().take(dtype.bytes())
}

/// Elements of a type, filled.
#[expect(
    clippy::cast_precision_loss,
    reason = "a count that is filled in is below 2^53"
)]
pub(super) fn draw(dtype: Dtype, fill: &Fill, seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let whole = dtype.is_integer() || dtype == Dtype::Bool;
    let mut next = |at: usize| match fill.kind {
        FillKind::Value(value) => value,
        FillKind::Uniform(low, high) if whole => {
            // Every whole number of the range has the same share.
            let span = high - low + 1.0;
            (low + (share(&mut rng) * span).floor()).min(high)
        }
        FillKind::Uniform(low, high) => low + share(&mut rng) * (high - low),
        FillKind::Normal(mean, deviation) => mean + deviation * rng.normal_f64(),
        FillKind::Iota => {
            let width = 8 * i32::try_from(dtype.bytes()).unwrap_or(8);
            let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
            let most = match dtype {
                Dtype::Bool => 2.0,
                _ if whole => 2f64.powi(width - i32::from(signed)),
                _ => f64::MAX,
            };
            at as f64 % most
        }
        // Read already.
        FillKind::File(_) => 0.0,
    };
    let mut bytes = Vec::with_capacity(count * dtype.bytes());
    for at in 0..count {
        if lanes(dtype) == 2 {
            let (low, high) = (bits(dtype, next(2 * at)), bits(dtype, next(2 * at + 1)));
            bytes.extend((low | high << 4).to_le_bytes().into_iter().take(1));
        } else {
            bytes.extend(element(dtype, next(at)));
        }
    }
    bytes
}

/// Uniform from 0 to below 1.
fn share(rng: &mut Rng) -> f64 {
    f64::midpoint(rng.symmetric_f64(), 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::number::{bits_of, value};

    fn drawn(dtype: Dtype, fill: &str, count: usize) -> Vec<f64> {
        let fill = fill.parse().expect("a fill");
        let bytes = draw(dtype, &fill, stream(4242, "x"), count);
        assert_eq!(bytes.len(), count * dtype.bytes());
        bytes
            .chunks_exact(dtype.bytes())
            .map(|one| value(dtype, bits_of(one), 0))
            .collect()
    }

    #[test]
    fn the_numbers_of_a_seed_and_a_name_never_change() {
        let first = draw(Dtype::F32, &"normal".parse().expect("fill"), stream(4242, "x"), 2);
        // From an implementation in another language, on its own log.
        assert_eq!(hex::encode(&first), "785eb8be343d85be");
        let longer = draw(Dtype::F32, &"normal".parse().expect("fill"), stream(4242, "x"), 9);
        assert_eq!(longer[..8], first[..], "more elements begin with the same");
        for (seed, name) in [(4242, "y"), (4243, "x")] {
            let other = draw(
                Dtype::F32,
                &"normal".parse().expect("fill"),
                stream(seed, name),
                2,
            );
            assert_ne!(other, first, "{seed} {name}");
        }
    }

    #[test]
    fn every_type_is_filled_with_what_it_can_hold() {
        for dtype in Dtype::ALL {
            let usual = draw(dtype, &Fill::usual(dtype), 7, 64);
            assert_eq!(usual.len(), 64 * dtype.bytes());
            let of = |one: &[u8]| value(dtype, bits_of(one), 0);
            let values: Vec<f64> = usual.chunks_exact(dtype.bytes()).map(of).collect();
            assert!(values.iter().all(|v| v.is_finite()), "{dtype}: {values:?}");
            let varied = values.iter().any(|v| v.to_bits() != values[0].to_bits());
            let constant = dtype.is_integer() || matches!(dtype, Dtype::Bool | Dtype::E8m0);
            assert_eq!(varied, !constant, "{dtype}");
        }
    }

    #[test]
    fn numbers_lie_in_their_range_and_whole_ones_reach_both_ends() {
        let reals = drawn(Dtype::F64, "{ kind = 'uniform', range = [2, 3] }", 1000);
        assert!(reals.iter().all(|v| (2.0..3.0).contains(v)));
        let mean = reals.iter().sum::<f64>() / 1000.0;
        assert!((mean - 2.5).abs() < 0.05, "{mean}");
        let whole = drawn(Dtype::I8, "{ kind = 'uniform', range = [-2, 1] }", 1000);
        for n in [-2.0, -1.0, 0.0, 1.0] {
            let share = whole.iter().filter(|v| **v == n).count();
            assert!((150..350).contains(&share), "{n}: {share}");
        }
        assert!(whole.iter().all(|v| (-2.0..=1.0).contains(v)));
        for (dtype, most) in [(Dtype::U8, 256), (Dtype::I8, 128), (Dtype::Bool, 2)] {
            let iota = drawn(dtype, "iota", most + 2);
            let last = f64::from(u32::try_from(most).expect("small") - 1);
            assert_eq!((iota[0], iota[most - 1], iota[most]), (0.0, last, 0.0), "{dtype}");
        }
        assert_eq!(drawn(Dtype::Bf16, "0.5", 2), [0.5, 0.5]);
    }
}

//! The generator of test inputs.
//!
//! Invariant: a seed gives the same bits on every machine. Hence a fixed
//! integer generator, and normals that use only the basic IEEE operations and
//! the square root (all correctly rounded everywhere), never the platform's
//! `log` or `cos`.

use half::bf16;

/// Increment of the `SplitMix64` sequence: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// `SplitMix64` (Steele, Lea and Flood, 2014): a counter through a mixer.
///
/// Not for cryptography; it is small, fast, and statistically good enough for
/// inputs of numeric tests.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator in its published form: first output is the mix of
    /// `seed` plus one increment.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one tensor of a set that shares `seed`.
    ///
    /// Tensors drawn from streams of their own do not change when another
    /// tensor of the set grows.
    #[must_use]
    pub const fn stream(seed: u64, stream: u64) -> Self {
        Self::new(mix(seed.wrapping_add(GAMMA)) ^ mix(stream))
    }

    /// The next 64 uniform bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in [-1, 1), a multiple of 2^-52.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits fit the significand: the conversion is exact"
    )]
    pub fn symmetric_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * 2f64.powi(-52) - 1.0
    }

    /// A normal deviate of mean 0 and variance 1, by Marsaglia's polar method
    /// in f64.
    pub fn normal_f64(&mut self) -> f64 {
        loop {
            let (x, y) = (self.symmetric_f64(), self.symmetric_f64());
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * portable_ln(square) / square).sqrt();
            }
        }
    }

    /// A normal deviate of mean 0 and variance 1, rounded to f32.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    pub fn normal_f32(&mut self) -> f32 {
        self.normal_f64() as f32
    }

    /// `count` normal deviates, each rounded to f32 and then to bf16, both to
    /// nearest even.
    pub fn normal_bf16(&mut self, count: usize) -> Vec<bf16> {
        (0..count).map(|_| bf16::from_f32(self.normal_f32())).collect()
    }

    /// `count` uniform bytes: each output's eight, least significant first.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

/// The published finaliser of `SplitMix64`.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Natural logarithm of a positive normal number, from basic operations only.
///
/// ln x = e ln 2 + 2 atanh((m - 1) / (m + 1)) for x = m 2^e with m in
/// [1/sqrt 2, sqrt 2); the odd series to the 21st power leaves about 1e-18.
fn portable_ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let mut exponent = f64::from(((x.to_bits() >> 52) & 0x7FF) as u16) - 1023.0;
    let mut m = f64::from_bits((x.to_bits() & MANTISSA) | ONE);
    if m >= std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let mut series = 0.0;
    for odd in (1..=21u8).rev().step_by(2) {
        series = series * square + 1.0 / f64::from(odd);
    }
    exponent * std::f64::consts::LN_2 + 2.0 * t * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut rng = Rng::new(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for expected in published {
            assert_eq!(rng.next_u64(), expected);
        }
    }

    #[test]
    fn bytes_are_the_outputs_least_significant_byte_first() {
        let bytes = Rng::new(1_234_567).bytes(11);
        assert_eq!(bytes[..8], 6_457_827_717_110_365_317u64.to_le_bytes());
        assert_eq!(bytes[8..], 3_203_168_211_198_807_973u64.to_le_bytes()[..3]);
    }

    #[test]
    fn portable_ln_agrees_with_the_platforms_to_a_few_ulps() {
        let mut rng = Rng::new(7);
        for _ in 0..20_000 {
            let x = rng.symmetric_f64().abs() + f64::MIN_POSITIVE;
            let error = (portable_ln(x) - x.ln()).abs();
            assert!(error <= 4.0 * f64::EPSILON * x.ln().abs().max(1e-3), "{x}");
        }
        assert!((portable_ln(1e-300) - 1e-300f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_first_normals_of_a_seed_never_change() {
        let mut rng = Rng::new(4242);
        let bits: Vec<u32> = (0..4).map(|_| rng.normal_f32().to_bits()).collect();
        // From an implementation in another language, on its platform's log.
        assert_eq!(bits, [0x3F82_4DD7, 0xBF78_5B5F, 0x3F69_4657, 0x3FCD_E4A2]);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let mut rng = Rng::new(1);
        let count = 100_000u32;
        let (mut mean, mut variance, mut fourth, mut beyond) = (0.0, 0.0, 0.0, 0u32);
        for _ in 0..count {
            let x = rng.normal_f64();
            mean += x;
            variance += x * x;
            fourth += x.powi(4);
            beyond += u32::from(x.abs() > 2.0);
        }
        let n = f64::from(count);
        assert!((mean / n).abs() < 0.02);
        assert!((variance / n - 1.0).abs() < 0.02);
        assert!((fourth / n - 3.0).abs() < 0.15);
        assert!((f64::from(beyond) / n - 0.0455).abs() < 0.004);
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let first = Rng::stream(9, 0).bytes(64);
        assert_ne!(first, Rng::stream(9, 1).bytes(64));
        assert_ne!(first, Rng::stream(10, 0).bytes(64));
        assert_eq!(first, Rng::stream(9, 0).bytes(64));
    }
}

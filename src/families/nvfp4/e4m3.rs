//! FP8 E4M3 in its "fn" variant: `s eeee mmm`, bias 7, no infinities, and NaN
//! only at `0x7F` and `0xFF`.
//!
//! Invariant: decode is exact and *signed* (a scale byte may be negative);
//! encode is round to nearest even, saturating to ±448.

/// The largest finite magnitude.
pub const MAX: f32 = 448.0;

/// Weight of the last mantissa bit of a subnormal, 2^-9.
const SUBNORMAL_STEP: f32 = 1.0 / 512.0;

/// 2^23, where the last bit of an f32 is worth one.
const UNIT_BIT_0: f32 = 8_388_608.0;

/// The smallest normal magnitude, 2^-6.
const MIN_NORMAL: f32 = 1.0 / 64.0;

/// The value of an E4M3 byte; NaN (sign kept) for `0x7F` and `0xFF`.
#[must_use]
pub fn decode(byte: u8) -> f32 {
    let sign = u32::from(byte >> 7) << 31;
    let exponent = u32::from((byte >> 3) & 0x0F);
    let mantissa = u32::from(byte & 7);
    let magnitude = if byte & 0x7F == 0x7F {
        f32::NAN.to_bits()
    } else if exponent == 0 {
        (f32::from(byte & 7) * SUBNORMAL_STEP).to_bits()
    } else {
        ((exponent + 120) << 23) | (mantissa << 20)
    };
    f32::from_bits(sign | magnitude)
}

/// The E4M3 byte nearest to `value`: ties to even, subnormals down to 2^-9,
/// magnitudes above 448 (infinity included) saturate to 448, the sign of zero
/// is kept. NaN of either sign gives `0x7F`.
#[must_use]
pub fn encode(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7F;
    }
    let sign = u8::from(value.is_sign_negative()) << 7;
    let magnitude = value.abs().min(MAX);
    let code = if magnitude < MIN_NORMAL {
        // Scaling by a power of two is exact. Adding 2^23 then leaves no bits
        // below the unit, so that addition is the one rounding, and the low
        // bits are the code. A result of 8 is 2^-6, whose code is also 8.
        (magnitude / SUBNORMAL_STEP + UNIT_BIT_0).to_bits() - UNIT_BIT_0.to_bits()
    } else {
        let bits = magnitude.to_bits();
        let round = 0x7_FFFF + ((bits >> 20) & 1);
        ((bits + round) >> 20) - (120 << 3)
    };
    sign | code.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::dtype::Dtype;
    use crate::measure::number;

    #[test]
    fn inputs_of_any_family_are_rounded_to_the_same_codes() {
        for code in 0..=u8::MAX {
            let value = decode(code);
            let same = number::value(Dtype::E4m3, code.into(), 0);
            assert!(value.is_nan() && same.is_nan() || f64::from(value).to_bits() == same.to_bits());
        }
        let mut bits = 1_u32;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            if value.is_finite() {
                assert_eq!(
                    u64::from(encode(value)),
                    number::bits(Dtype::E4m3, value.into()),
                    "{value}"
                );
                let fp4 = crate::families::nvfp4::fp4::encode(value % 8.0);
                let same = number::bits(Dtype::E2m1x2, (value % 8.0).into());
                assert_eq!(u64::from(fp4), same, "{}", value % 8.0);
            }
        }
    }

    /// Finite non-negative bytes, in ascending order of value.
    const FINITE: std::ops::Range<u8> = 0..0x7F;

    fn value_from_fields(byte: u8) -> f64 {
        let exponent = i32::from((byte >> 3) & 15);
        let mantissa = f64::from(byte & 7);
        let magnitude = if exponent == 0 {
            mantissa * 2f64.powi(-9)
        } else {
            (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7)
        };
        if byte < 0x80 { magnitude } else { -magnitude }
    }

    /// Nearest byte by search over all finite bytes, a tie going to the even
    /// one: the definition that the bit arithmetic must agree with.
    fn nearest(value: f32) -> u8 {
        let magnitude = f64::from(value.abs());
        let distance = |byte: u8| (value_from_fields(byte) - magnitude).abs();
        let mut best = 0;
        for byte in FINITE.skip(1) {
            let tie_to_even = distance(byte) == distance(best) && byte % 2 == 0;
            if distance(byte) < distance(best) || tie_to_even {
                best = byte;
            }
        }
        best | (u8::from(value.is_sign_negative()) << 7)
    }

    #[test]
    fn every_byte_decodes_to_the_value_its_fields_spell() {
        for byte in 0..=255u8 {
            if byte & 0x7F == 0x7F {
                assert!(decode(byte).is_nan());
                assert_eq!(decode(byte).is_sign_negative(), byte == 0xFF);
                continue;
            }
            let expected = value_from_fields(byte);
            assert_eq!(f64::from(decode(byte)).to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn known_bytes_have_their_known_values() {
        let known = [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x07, 7.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x40, 2.0),
            (0x7E, 448.0),
            (0x80, -0.0),
            (0xC0, -2.0),
            (0xFE, -448.0),
        ];
        for (byte, value) in known {
            assert_eq!(decode(byte).to_bits(), f32::to_bits(value), "{byte:#x}");
        }
    }

    #[test]
    fn every_byte_but_negative_nan_survives_a_round_trip() {
        for byte in 0..=255 {
            let expected = if byte == 0xFF { 0x7F } else { byte };
            assert_eq!(encode(decode(byte)), expected);
        }
    }

    #[test]
    fn ties_go_to_the_even_byte_and_their_neighbors_to_the_nearer_one() {
        for byte in 0..0x7E {
            let middle = f32::midpoint(decode(byte), decode(byte + 1));
            let even = byte + (byte & 1);
            assert_eq!(encode(middle), even, "tie above {byte:#x}");
            assert_eq!(encode(-middle), even | 0x80);
            assert_eq!(encode(middle.next_down()), byte);
            assert_eq!(encode(middle.next_up()), byte + 1);
            assert_eq!(encode(-middle.next_down()), byte | 0x80);
            assert_eq!(encode(-middle.next_up()), (byte + 1) | 0x80);
        }
    }

    #[test]
    fn encode_agrees_with_a_nearest_search_across_binades() {
        // Every exponent from far below the subnormals to above the maximum,
        // with mantissas on and around each rounding boundary.
        for exponent in 110..140u32 {
            for step in 0..256u32 {
                for nudge in [0, 1, 0x7FFF] {
                    let value = f32::from_bits((exponent << 23) | (step << 15) | nudge);
                    assert_eq!(encode(value), nearest(value), "{value:e}");
                    assert_eq!(encode(-value), nearest(-value), "-{value:e}");
                }
            }
        }
    }

    #[test]
    fn values_beyond_the_range_saturate_and_zero_keeps_its_sign() {
        for value in [448.0, 448.0f32.next_up(), 464.0, 480.0, 1e30, f32::INFINITY] {
            assert_eq!(encode(value), 0x7E);
            assert_eq!(encode(-value), 0xFE);
        }
        assert_eq!(encode(0.0), 0x00);
        assert_eq!(encode(-0.0), 0x80);
        assert_eq!(encode(f32::from_bits(1)), 0x00);
        assert_eq!(encode(-f32::from_bits(1)), 0x80);
        assert_eq!(encode(1.0 / 1024.0), 0x00);
        assert_eq!(encode((1.0f32 / 1024.0).next_up()), 0x01);
    }

    #[test]
    fn nan_of_either_sign_encodes_to_0x7f() {
        assert_eq!(encode(f32::NAN), 0x7F);
        assert_eq!(encode(-f32::NAN), 0x7F);
    }
}

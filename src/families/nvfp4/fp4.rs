//! FP4 E2M1: four bits, `s ee m`, two values a byte.
//!
//! Invariant: decode is exact, encode is round to nearest with ties to the
//! even code, and both keep the sign of zero (code 8 is -0.0).

/// Magnitudes of codes 0 to 7; codes 8 to 15 are their negatives.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The largest magnitude an E2M1 code holds.
pub const MAX: f32 = 6.0;

/// The value of an E2M1 code: bit 3 is the sign, bits 2 to 0 the magnitude.
///
/// Only the low four bits of `code` are read.
#[must_use]
pub const fn decode(code: u8) -> f32 {
    let magnitude = MAGNITUDES[(code & 7) as usize];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// The E2M1 code (0 to 15) nearest to `value`.
///
/// Ties go to the code whose last bit is 0, magnitudes above 6 (infinity
/// included) saturate to 6, and the sign is kept, that of zero and of values
/// that round to zero included. The format has no NaN: a NaN of either sign
/// gives code 7 (+6), and no caller may rely on that.
#[must_use]
pub fn encode(value: f32) -> u8 {
    if value.is_nan() {
        return 7;
    }
    let magnitude = value.abs();
    // Whether a boundary belongs to the code below or above follows from which
    // of the two is even.
    let code = if magnitude <= 0.25 {
        0
    } else if magnitude < 0.75 {
        1
    } else if magnitude <= 1.25 {
        2
    } else if magnitude < 1.75 {
        3
    } else if magnitude <= 2.5 {
        4
    } else if magnitude < 3.5 {
        5
    } else if magnitude <= 5.0 {
        6
    } else {
        7
    };
    code | (u8::from(value.is_sign_negative()) << 3)
}

/// One byte of two codes: the even element is the low nibble.
///
/// Only the low four bits of each code are used.
#[must_use]
pub const fn pack(even: u8, odd: u8) -> u8 {
    (even & 0x0F) | (odd << 4)
}

/// The two codes of a byte: even element (low nibble), then odd element.
#[must_use]
pub const fn unpack(byte: u8) -> [u8; 2] {
    [byte & 0x0F, byte >> 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearest code by search, a tie going to the even code: the definition
    /// that the threshold table must agree with.
    fn nearest(value: f32) -> u8 {
        let magnitude = f64::from(value.abs());
        let distance = |code: u8| (f64::from(decode(code)) - magnitude).abs();
        let mut best = 0;
        for code in 1..8 {
            let tie_to_even = distance(code) == distance(best) && code % 2 == 0;
            if distance(code) < distance(best) || tie_to_even {
                best = code;
            }
        }
        best | (u8::from(value.is_sign_negative()) << 3)
    }

    #[test]
    fn every_code_decodes_to_the_value_its_fields_spell() {
        for code in 0..16u8 {
            let exponent = i32::from((code >> 1) & 3);
            let mantissa = f32::from(code & 1);
            let magnitude = if exponent == 0 {
                mantissa * 0.5
            } else {
                (1.0 + mantissa * 0.5) * 2f32.powi(exponent - 1)
            };
            let expected = if code & 8 == 0 { magnitude } else { -magnitude };
            assert_eq!(decode(code).to_bits(), expected.to_bits(), "code {code}");
        }
        assert_eq!(decode(8).to_bits(), (-0.0f32).to_bits());
        assert_eq!(decode(7).to_bits(), MAX.to_bits());
    }

    #[test]
    fn decode_reads_the_low_four_bits_only() {
        for byte in 0..=255u8 {
            assert_eq!(decode(byte).to_bits(), decode(byte & 15).to_bits());
        }
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..16 {
            assert_eq!(encode(decode(code)), code);
        }
    }

    #[test]
    fn ties_go_to_the_even_code() {
        let ties = [
            (0.25, 0),
            (0.75, 2),
            (1.25, 2),
            (1.75, 4),
            (2.5, 4),
            (3.5, 6),
            (5.0, 6),
        ];
        for (value, code) in ties {
            assert_eq!(encode(value), code, "{value}");
            assert_eq!(encode(-value), code | 8, "-{value}");
        }
    }

    #[test]
    fn the_neighbors_of_each_tie_go_to_the_nearer_code() {
        for code in 0..7u8 {
            let middle = f32::midpoint(decode(code), decode(code + 1));
            assert_eq!(encode(middle.next_down()), code);
            assert_eq!(encode(middle.next_up()), code + 1);
            assert_eq!(encode(-middle.next_down()), code | 8);
            assert_eq!(encode(-middle.next_up()), (code + 1) | 8);
        }
    }

    #[test]
    fn encode_agrees_with_a_nearest_search_over_a_fine_grid() {
        for step in 0..=8192u16 {
            let value = f32::from(step) / 1024.0;
            assert_eq!(encode(value), nearest(value), "{value}");
            assert_eq!(encode(-value), nearest(-value), "-{value}");
        }
    }

    #[test]
    fn values_beyond_the_range_saturate_and_zero_keeps_its_sign() {
        for value in [6.0, 6.5, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!(encode(value), 7);
            assert_eq!(encode(-value), 15);
        }
        assert_eq!(encode(0.0), 0);
        assert_eq!(encode(-0.0), 8);
        assert_eq!(encode(f32::from_bits(1)), 0);
        assert_eq!(encode(-f32::from_bits(1)), 8);
    }

    #[test]
    fn nan_encodes_to_plus_six_whatever_its_sign() {
        assert_eq!(encode(f32::NAN), 7);
        assert_eq!(encode(-f32::NAN), 7);
    }

    #[test]
    fn every_byte_unpacks_low_nibble_first_and_packs_back() {
        for byte in 0..=255u8 {
            let [even, odd] = unpack(byte);
            assert_eq!(even, byte % 16);
            assert_eq!(odd, byte / 16);
            assert_eq!(pack(even, odd), byte);
        }
        assert_eq!(pack(0xF2, 0xF5), 0x52);
    }
}

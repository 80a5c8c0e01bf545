//! The block-scale swizzle: where the scale byte of (row m, group g) lies.
//!
//! Scales come one byte per 16 consecutive k of a row. Their storage is padded
//! to 128 rows by 4 groups and cut into tiles of that size, 512 bytes each,
//! tile rows outermost; within a tile the order is (m mod 32, m / 32, g).
//!
//! Invariant: [`offset`] is a bijection from the padded (row, group) domain
//! onto `0..padded_len`.

/// Rows of one swizzle tile.
pub const TILE_ROWS: usize = 128;

/// Groups of one swizzle tile.
pub const TILE_GROUPS: usize = 4;

/// Bytes of one swizzle tile.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_GROUPS;

/// Tiles needed to cover `rows` rows.
#[must_use]
pub const fn row_tiles(rows: usize) -> usize {
    rows.div_ceil(TILE_ROWS)
}

/// Tiles needed to cover `groups` groups; the `SKT` of the kernels.
#[must_use]
pub const fn group_tiles(groups: usize) -> usize {
    groups.div_ceil(TILE_GROUPS)
}

/// Bytes of the swizzled, padded storage of a `[rows, groups]` array.
#[must_use]
pub const fn padded_len(rows: usize, groups: usize) -> usize {
    row_tiles(rows) * group_tiles(groups) * TILE_BYTES
}

/// Byte offset of (row, group) in storage that is `group_tiles` tiles wide.
#[must_use]
pub const fn offset(row: usize, group: usize, group_tiles: usize) -> usize {
    let tile = (row / TILE_ROWS) * group_tiles + group / TILE_GROUPS;
    tile * TILE_BYTES + (row % 32) * 16 + ((row / 32) % 4) * 4 + group % TILE_GROUPS
}

/// Swizzles a linear, row-major `[rows, groups]` array; padding bytes are 0.
///
/// # Panics
///
/// If `linear` does not hold `rows * groups` bytes.
#[must_use]
pub fn swizzle(linear: &[u8], rows: usize, groups: usize) -> Vec<u8> {
    assert_eq!(linear.len(), rows * groups, "linear is [rows, groups]");
    let width = group_tiles(groups);
    let mut swizzled = vec![0; padded_len(rows, groups)];
    for row in 0..rows {
        for group in 0..groups {
            swizzled[offset(row, group, width)] = linear[row * groups + group];
        }
    }
    swizzled
}

/// The linear, row-major `[rows, groups]` array behind swizzled storage;
/// padding bytes are dropped.
///
/// # Panics
///
/// If `swizzled` does not hold [`padded_len`] bytes.
#[must_use]
pub fn unswizzle(swizzled: &[u8], rows: usize, groups: usize) -> Vec<u8> {
    assert_eq!(swizzled.len(), padded_len(rows, groups), "swizzled is padded");
    let width = group_tiles(groups);
    let mut linear = Vec::with_capacity(rows * groups);
    for row in 0..rows {
        for group in 0..groups {
            linear.push(swizzled[offset(row, group, width)]);
        }
    }
    linear
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(usize, usize); 8] = [
        (1, 1),
        (7, 3),
        (40, 9),
        (128, 4),
        (129, 5),
        (130, 15),
        (257, 8),
        (300, 33),
    ];

    /// Pads to (128, 4), reshapes to (M/128, 4, 32, G/4, 4), permutes the axes
    /// to (0, 3, 2, 1, 4) and flattens: the layout's definition, as array
    /// operations, without the offset formula.
    fn reshape_and_permute(linear: &[u8], rows: usize, groups: usize) -> Vec<u8> {
        let (padded_rows, padded_groups) = (rows.div_ceil(128) * 128, groups.div_ceil(4) * 4);
        let mut padded = vec![0; padded_rows * padded_groups];
        for row in 0..rows {
            let target = row * padded_groups;
            padded[target..target + groups].copy_from_slice(&linear[row * groups..(row + 1) * groups]);
        }
        let shape = [padded_rows / 128, 4, 32, padded_groups / 4, 4];
        let strides = [
            shape[1] * shape[2] * shape[3] * shape[4],
            shape[2] * shape[3] * shape[4],
            shape[3] * shape[4],
            shape[4],
            1,
        ];
        let axes = [0, 3, 2, 1, 4];
        let mut permuted = Vec::with_capacity(padded.len());
        for flat in 0..padded.len() {
            let mut rest = flat;
            let mut source = 0;
            for &axis in axes.iter().rev() {
                source += rest % shape[axis] * strides[axis];
                rest /= shape[axis];
            }
            permuted.push(padded[source]);
        }
        permuted
    }

    /// Bytes that repeat with a prime period, so that no two rows look alike.
    fn distinct_bytes(count: usize) -> Vec<u8> {
        (1..=251).cycle().take(count).collect()
    }

    #[test]
    fn offsets_are_a_bijection_on_the_padded_domain() {
        for (rows, groups) in SIZES {
            let width = group_tiles(groups);
            let mut seen = vec![false; padded_len(rows, groups)];
            for row in 0..row_tiles(rows) * TILE_ROWS {
                for group in 0..width * TILE_GROUPS {
                    let at = offset(row, group, width);
                    assert!(!seen[at], "offset {at} is hit twice");
                    seen[at] = true;
                }
            }
            assert!(seen.iter().all(|&hit| hit));
        }
    }

    #[test]
    fn the_offset_is_the_published_shift_and_mask_formula() {
        for (m, g) in [(0, 0), (31, 3), (32, 4), (127, 383), (128, 17), (5119, 383)] {
            let expected = ((m >> 7) * 96 + (g >> 2)) * 512 + (m & 31) * 16 + ((m >> 5) & 3) * 4 + (g & 3);
            assert_eq!(offset(m, g, 96), expected);
        }
    }

    #[test]
    fn swizzling_equals_reshape_and_permute_for_odd_sizes_too() {
        for (rows, groups) in SIZES {
            let linear = distinct_bytes(rows * groups);
            assert_eq!(
                swizzle(&linear, rows, groups),
                reshape_and_permute(&linear, rows, groups),
                "{rows} rows, {groups} groups"
            );
        }
    }

    #[test]
    fn unswizzling_gives_the_linear_array_back() {
        for (rows, groups) in SIZES {
            let linear = distinct_bytes(rows * groups);
            let swizzled = swizzle(&linear, rows, groups);
            assert_eq!(unswizzle(&swizzled, rows, groups), linear);
        }
    }

    #[test]
    fn the_models_scales_take_40_by_96_tiles() {
        assert_eq!(row_tiles(5120), 40);
        assert_eq!(group_tiles(6144 / 16), 96);
        assert_eq!(padded_len(5120, 384), 40 * 96 * 512);
    }
}

//! What a search for the fastest geometry has in common, whatever the family.
//!
//! Invariant: a value that is to be tried is legal by itself.

use super::{Geometry, Winner};
use crate::engine::request::template::Family;
use crate::measure::MeasureError;

/// Constants with the values to try of each, in the place of the declared ones.
pub type Space = Vec<(String, Vec<String>)>;

/// Reads texts such as `num_ctas=66,132`.
pub fn read_space<'t>(
    family: &Family,
    texts: impl IntoIterator<Item = &'t str>,
) -> Result<Space, MeasureError> {
    let one = |text: &'t str| {
        let (name, list) = text
            .split_once('=')
            .filter(|(name, _)| family.constants.contains_key(*name))
            .ok_or_else(|| {
                MeasureError::Request(format!(
                    "--space {text}: expected NAME=LIST of one of this family's constants"
                ))
            })?;
        let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        for value in &values {
            let legal = family.constants[name].legal.parse(value);
            legal.map_err(|reason| MeasureError::Request(format!("--space {text}: {reason}")))?;
        }
        Ok((name.to_owned(), values))
    };
    texts.into_iter().map(one).collect()
}

/// What is left to try of nothing: the space and the constants that were set leave no
/// geometry that is legal and fits.
#[must_use]
pub fn empty_search_space(problem: &str) -> MeasureError {
    MeasureError::Request(format!(
        "{problem}: no candidate is legal and fits the GPU: give --space other values, or set fewer constants"
    ))
}

/// Keeps the faster of two winners; of equals the first.
pub fn keep_faster(winner: &mut Option<Winner>, found: Winner) {
    if winner.as_ref().is_none_or(|w| found.median_us < w.median_us) {
        *winner = Some(found);
    }
}

/// A geometry for people: `num_ctas=132 stages=5`.
#[must_use]
pub fn geometry_text(geometry: &Geometry) -> String {
    let set: Vec<String> = geometry.iter().map(|(n, v)| format!("{n}={v}")).collect();
    set.join(" ")
}

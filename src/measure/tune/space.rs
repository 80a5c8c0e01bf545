//! What a search for the fastest geometry has in common, whatever the family.
//!
//! Invariant: a value that is to be tried is legal by itself.

use super::{Geometry, Winner};
use crate::engine::config::Config;
use crate::engine::request::constant::split_values;
use crate::engine::request::spec;
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
        let values: Vec<String> = split_values(list).iter().map(|v| v.trim().to_owned()).collect();
        for value in &values {
            let legal = family.constants[name].legal.parse(value);
            legal.map_err(|reason| MeasureError::Request(format!("--space {text}: {reason}")))?;
        }
        Ok((name.to_owned(), values))
    };
    texts.into_iter().map(one).collect()
}

/// The values of a family's geometry that flags, environment and config file set, each
/// constant's a list. Needs no GPU.
///
/// # Errors
/// A value that is not legal, and a constant that is set and is not among `geometry`.
pub fn set_constants(family: &Family, config: &Config, geometry: &[&str]) -> Result<Space, MeasureError> {
    let mut space = Space::new();
    for constant in family.constants.values() {
        let Some(set) = config.constant(&constant.name, &constant.variables) else {
            continue;
        };
        let name = &constant.name;
        if !geometry.contains(&name.as_str()) {
            return Err(MeasureError::Request(format!(
                "{}: {name} ({}) cannot be set here: expected one of {}",
                family.name,
                set.source,
                geometry.join(", ")
            )));
        }
        let values: Vec<String> = split_values(&set.value)
            .iter()
            .map(|v| v.trim().to_owned())
            .collect();
        for value in &values {
            spec::parse(family, name, value, &set.source)?;
        }
        space.push((name.clone(), values));
    }
    Ok(space)
}

/// Every combination of the declared values, or of those `given` for a constant in their
/// place; of nothing, the one geometry that sets nothing. Combinations that the family
/// forbids are the caller's to drop.
#[must_use]
pub fn combinations(declared: &[(&str, &[u32])], given: &[(String, Vec<String>)]) -> Vec<Geometry> {
    let values = |values: &[u32]| values.iter().map(u32::to_string).collect();
    let mut lists: Space = (declared.iter())
        .map(|(name, list)| ((*name).to_owned(), values(list)))
        .collect();
    for (name, values) in given {
        lists.retain(|(declared, _)| declared != name);
        lists.push((name.clone(), values.clone()));
    }
    let mut product = vec![Geometry::new()];
    for (name, values) in &lists {
        let with = |geometry: &Geometry, value: &String| {
            let mut geometry = geometry.clone();
            geometry.insert(name.clone(), value.clone());
            geometry
        };
        product = (values.iter())
            .flat_map(|value| product.iter().map(move |geometry| with(geometry, value)))
            .collect();
    }
    product
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_of_declared_values_or_of_those_given_in_their_place() {
        let declared: [(&str, &[u32]); 2] = [("stages", &[2, 4]), ("rows", &[8, 16])];
        let given = [("rows".to_owned(), vec!["40".to_owned()])];
        assert_eq!(combinations(&declared, &[]).len(), 4);
        let texts: Vec<_> = combinations(&declared, &given)
            .iter()
            .map(geometry_text)
            .collect();
        assert_eq!(texts, ["rows=40 stages=2", "rows=40 stages=4"]);
        assert_eq!(combinations(&[], &[]), [Geometry::new()]);
    }
}

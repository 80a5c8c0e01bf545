//! What may be launched while a variant is still being compiled.
//!
//! Invariant: between a spec and its general ones only constants differ that the family
//! declares neutral to bits, and nothing that a launch is given depends on those.

use std::sync::Arc;

use super::KernelSpec;
use crate::engine::request::constant::Value;

impl KernelSpec {
    /// Whether a launch of this variant is given just what one of another is: between them
    /// only constants differ that have general values.
    #[must_use]
    pub fn takes_what(&self, other: &Self) -> bool {
        let family = self.family();
        let alike = |(name, value): (&String, &Value)| {
            let general = family.constants.get(name).is_some_and(|c| !c.general.is_empty());
            general || other.constants().get(name) == Some(value)
        };
        Arc::ptr_eq(family, other.family()) && self.constants().iter().all(alike)
    }

    /// The variants that do the work of this one, bit for bit, the best first: each constant
    /// that its family declares general values of has one of those. Empty where there is
    /// none but itself. One that a constraint does not allow is none.
    #[must_use]
    pub fn general(&self) -> Vec<Self> {
        let mut sets: Vec<Vec<(&str, String)>> = vec![Vec::new()];
        for constant in self.family().constants.values() {
            let is_one = |own: &Value| constant.general.contains(own);
            if constant.general.is_empty() || self.constants().get(&constant.name).is_some_and(is_one) {
                continue;
            }
            let mut longer = Vec::new();
            for set in &sets {
                for value in &constant.general {
                    let mut set = set.clone();
                    set.push((constant.name.as_str(), value.to_string()));
                    longer.push(set);
                }
            }
            sets = longer;
        }
        let other = |set: Vec<(&str, String)>| {
            let set: Vec<(&str, &str)> = set.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.with(set).ok().filter(|other| other.id() != self.id())
        };
        sets.into_iter().filter_map(other).collect()
    }
}

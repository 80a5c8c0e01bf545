//! Values of constants that do the work of others: what is checked of their declaration.
//!
//! Invariant: on a constant that has such values depends nothing that a launch is given:
//! entry points, parameters and regions are the same, whatever its value.

use std::collections::BTreeSet;

use super::family::{Family, derived_id};
use super::parameters::{Element, Optional, Parameter, ParameterKind};

/// The most general variants of a spec: each is looked for when a request waits.
pub const MAX_GENERAL: usize = 16;

impl Family {
    /// Refuses a value that stands for others where something that a launch is given
    /// depends on its constant.
    pub(super) fn check_general(&self) -> Result<(), String> {
        let general = || self.constants.values().filter(|c| !c.general.is_empty());
        let variants = general().fold(1_usize, |all, c| all.saturating_mul(c.general.len()));
        if variants > MAX_GENERAL {
            return Err(format!(
                "`general` comes to {variants} variants: expected at most {MAX_GENERAL}, one value a constant say"
            ));
        }
        for constant in general() {
            if let Some(what) = self.given_by(&constant.name) {
                return Err(format!(
                    "constant `{}`: general: {what} depends on it: expected one that changes nothing that a launch \
                     is given",
                    constant.name
                ));
            }
        }
        Ok(())
    }

    /// What of that which a launch is given depends on a constant, if anything does.
    fn given_by(&self, constant: &str) -> Option<String> {
        if (self.regions.as_ref()).is_some_and(|regions| regions.count == constant) {
            return Some("the number of regions".into());
        }
        let depends = |names: BTreeSet<String>| self.with_their_own(names).contains(constant);
        for entry in &self.entries {
            let when = entry.when.as_ref();
            if when.is_some_and(|when| depends(self.expressions.names_of(&when.id))) {
                return Some(format!("whether there is an entry point `{}`", entry.name));
            }
            let mut parameters = entry.parameters.iter().flat_map(|list| &list.parameters);
            if let Some(parameter) = parameters.find(|parameter| depends(self.names_of(parameter))) {
                return Some(format!("the parameter `{}`", parameter.name));
            }
        }
        None
    }

    /// The names that a parameter's type, shape and presence are worked out from.
    fn names_of(&self, parameter: &Parameter) -> BTreeSet<String> {
        let ParameterKind::Pointer {
            element,
            shape,
            optional,
            ..
        } = &parameter.kind
        else {
            return BTreeSet::new();
        };
        let rule = match optional {
            Optional::When(rule) => Some(&rule.id),
            Optional::Fixed(_) => None,
        };
        let ids = shape.iter().filter_map(|dim| dim.id.as_ref()).chain(rule);
        let mut names: BTreeSet<String> = ids.flat_map(|id| self.expressions.names_of(id)).collect();
        if let Element::Constant(name) = element {
            names.insert(name.clone());
        }
        names
    }

    /// These names, and those that derived ones among them are worked out from.
    fn with_their_own(&self, names: BTreeSet<String>) -> BTreeSet<String> {
        let mut all = names;
        // Each is worked out from earlier ones.
        for derived in self.derived.iter().rev() {
            if all.contains(&derived.name) {
                all.extend(self.expressions.names_of(&derived_id(&derived.name)));
            }
        }
        all
    }
}

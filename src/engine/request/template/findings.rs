//! What a family declares that is legal, and probably not what was meant.

use std::collections::BTreeSet;

use super::{Axis, Element, Entry, Family, ParameterKind, Size};
use crate::engine::request::constant::Type;
use crate::engine::request::tera_strict::shown;

impl Family {
    /// One line for each declaration that says less than it seems to, its place first.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let used = self.used_names();
        let mut found = Vec::new();
        let constants = self.constants.keys().map(|name| ("constant", name));
        let derived = self.derived.iter().map(|derived| ("derived", &derived.name));
        for (what, name) in constants.chain(derived) {
            if !used.contains(name) {
                found.push(format!("{what} `{name}`: nothing uses it"));
            }
        }
        for (index, constraint) in self.constraints.iter().enumerate() {
            let is_bool = |name: &str| {
                (self.constants.get(name)).is_some_and(|constant| constant.legal.type_of() == Type::Bool)
            };
            if !self
                .expressions
                .is_condition(&format!("constraint {index}"), &is_bool)
            {
                found.push(format!(
                    "constraint `{}`: it is not a condition, and whatever is not 0 or empty counts as true",
                    shown(&constraint.rule)
                ));
            }
        }
        found
    }

    /// Every name that the source, an expression, a launch or a parameter reads.
    fn used_names(&self) -> BTreeSet<String> {
        let mut used = self.expressions.names();
        for entry in &self.entries {
            names_of(entry, &mut used);
        }
        let lists = self.entries.iter().filter_map(|entry| entry.parameters.as_ref());
        for parameter in lists.flat_map(|list| &list.parameters) {
            if let ParameterKind::Pointer {
                element: Element::Constant(name),
                ..
            } = &parameter.kind
            {
                used.insert(name.clone());
            }
        }
        if let Some(regions) = &self.regions {
            used.insert(regions.count.clone());
            used.extend(regions.clock.clone());
        }
        used
    }
}

/// The names in the numbers of a launch.
fn names_of(entry: &Entry, used: &mut BTreeSet<String>) {
    let mut size = |size: &Size| match size {
        Size::Named(name) => {
            used.insert(name.clone());
        }
        Size::Computed(formula) => formula.term.names(used),
        Size::Fixed(_) | Size::Flag(_) => {}
    };
    let cluster = entry.cluster.iter().flatten();
    let single = [&entry.cooperative, &entry.programmatic].into_iter();
    single.chain(&entry.carveout).chain(cluster).for_each(&mut size);
    for axis in entry
        .grid
        .iter()
        .chain(&entry.block)
        .chain([&entry.shared_mem_bytes])
    {
        match axis {
            Axis::Fixed(fixed) | Axis::Launch { per: fixed, .. } => size(fixed),
            Axis::Computed(_) => {}
        }
    }
    for axis in entry
        .grid
        .iter()
        .chain(&entry.block)
        .chain([&entry.shared_mem_bytes])
    {
        if let Axis::Computed(formula) = axis {
            formula.term.names(used);
        }
    }
    if let Some(formula) = &entry.priority {
        formula.term.names(used);
    }
}

//! What two entries measure: registers, spills, memory, sizes, times.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::build::artifact::Resources;
use crate::engine::cache::store::entry::Whole;

/// A number of two entries, or of one that the other has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compared {
    /// The entry point, or nothing where it is of all.
    pub entry: String,
    /// What it is, with its unit: `registers`, `spill_bytes`, `stack_bytes`, `shared_bytes`,
    /// `code_bytes`, `compile_us`.
    pub what: &'static str,
    /// Of the first entry.
    pub here: Option<u64>,
    /// Of the second.
    pub there: Option<u64>,
}

type Number = fn(&Resources) -> u32;

const NUMBERS: [(&str, Number); 4] = [
    ("registers", |r| r.registers),
    ("spill_bytes", |r| r.spill_bytes),
    ("stack_bytes", |r| r.stack_bytes),
    ("shared_bytes", |r| r.shared_bytes),
];

/// Every number of two entries, alike or not: of each entry point by name, then of all.
#[must_use]
pub fn measures(first: &Whole, second: &Whole) -> Vec<Compared> {
    let points = |whole: &'_ Whole| -> BTreeMap<String, Resources> {
        let resources = whole.entry().manifest().resources.iter();
        resources.map(|r| (r.entry.clone(), r.clone())).collect()
    };
    let (here, there) = (points(first), points(second));
    let mut names: Vec<&String> = here.keys().chain(there.keys()).collect();
    names.sort();
    names.dedup();
    let mut all = Vec::new();
    for name in names {
        let (here, there) = (here.get(name), there.get(name));
        all.extend(NUMBERS.iter().map(|(what, number)| Compared {
            entry: name.clone(),
            what,
            here: here.map(|r| number(r).into()),
            there: there.map(|r| number(r).into()),
        }));
    }
    let of_all = |what, number: fn(&Whole) -> Option<u64>| Compared {
        entry: String::new(),
        what,
        here: number(first),
        there: number(second),
    };
    all.push(of_all("code_bytes", |whole| {
        Some(whole.entry().manifest().code.length)
    }));
    all.push(of_all("compile_us", |whole| whole.entry().notes().compile_us));
    all
}

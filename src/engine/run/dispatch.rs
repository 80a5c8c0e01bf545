//! Which variant of a family runs a problem on a GPU, by the family's own rules.
//!
//! Invariant: selecting allocates nothing, takes no lock and looks nothing up by name. It
//! compiles nothing: all that the rules can come to is known, and can be prepared, before
//! the first problem.

use std::fmt;

use serde::Serialize;

use super::device::Device;
use crate::engine::request::formula::{Formula, Named, Quick, Term};
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::template::DEVICE_FACTS;

/// A family's rules for one GPU, with every variant that they can come to on it.
#[derive(Debug)]
pub struct Dispatcher {
    sizes: usize,
    /// Measured problems, ascending, and the places of their variants.
    tuned: Vec<(Box<[u32]>, usize)>,
    rules: Vec<Rule>,
    variants: Vec<KernelSpec>,
}

/// A rule with the GPU and the constants put in.
#[derive(Debug)]
struct Rule {
    when: Option<Quick>,
    /// Whether it holds for no problem on this GPU.
    never: bool,
    buckets: Vec<Buckets>,
    /// The variant for each combination of buckets, the last one's places running fastest.
    places: Vec<usize>,
    /// Whether a constant that it would set was set otherwise.
    forced: bool,
}

#[derive(Debug)]
struct Buckets {
    of: Quick,
    up_to: Vec<u32>,
    count: usize,
}

/// Where a choice comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// Somebody set a constant that the rule would set; the rule holds for the others.
    Forced,
    /// It was the fastest when this problem was measured on this GPU.
    Tuned,
    /// By the rule alone.
    Rule,
}

/// What runs a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selected {
    /// Index into [`Dispatcher::variants`].
    pub variant: usize,
    /// Where it comes from.
    pub chosen: Chosen,
    /// Number of the rule, from 1, as the family's TOML has them; `None` of a tuned one.
    pub rule: Option<usize>,
}

/// Why nothing is selected, or no dispatcher made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The family has no rules.
    #[error("`{0}` has no [dispatch]: expected a family whose TOML has rules")]
    NoRules(String),
    /// Another number of sizes than the problem has.
    #[error("{found} sizes: expected {expected}, in the order of [dispatch]")]
    Sizes {
        /// The problem's.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A condition or a bucket that these sizes give no whole number.
    #[error("rule {rule} does not come out as a whole number for these sizes")]
    NoNumber {
        /// Number of the rule, from 1.
        rule: usize,
    },
    /// An expression does not fit this GPU or these constants.
    #[error("`{family}`: dispatch: rule {rule}: `{expression}`: {reason}")]
    Expression {
        /// The family.
        family: String,
        /// Number of the rule, from 1.
        rule: usize,
        /// The expression.
        expression: String,
        /// What is wrong.
        reason: String,
    },
    /// What a rule comes to is not legal.
    #[error("dispatch: rule {rule}: {source}")]
    Variant {
        /// Number of the rule, from 1.
        rule: usize,
        /// Why not.
        source: Box<SpecError>,
    },
}

impl Dispatcher {
    /// The rules of a spec's family on a GPU. What the rules do not set is as in `asked`;
    /// constants in `forced` stay so whatever the rules say.
    ///
    /// # Errors
    /// A family without rules, and a rule that comes to what is not legal.
    pub fn new(asked: &KernelSpec, device: &Device, forced: &[&str]) -> Result<Self, DispatchError> {
        let family = asked.family();
        let Some(dispatch) = &family.dispatch else {
            return Err(DispatchError::NoRules(family.name.clone()));
        };
        let (mut rules, mut variants) = (Vec::new(), Vec::<KernelSpec>::new());
        // Whether a rule before holds for every problem on this GPU.
        let mut decided = false;
        for (index, declared) in dispatch.rules.iter().enumerate() {
            let rule = index + 1;
            let put_in = |formula: &Formula| {
                let value = |name: &str| match fact(device, name) {
                    Some(number) => Some(Named::Derived(number)),
                    None => asked.constants().get(name).map(Named::Constant),
                };
                let expression = |reason| DispatchError::Expression {
                    family: family.name.clone(),
                    rule,
                    expression: formula.text.clone(),
                    reason,
                };
                formula.term.with(&value).map_err(expression)
            };
            let is_forced = |name: &str| forced.contains(&name);
            let when = declared.when.as_ref().map(put_in).transpose()?;
            let mut buckets = Vec::new();
            let mut set: Vec<(&str, &[String])> = Vec::new();
            for (name, choosing) in declared.set.iter().filter(|(name, _)| !is_forced(name)) {
                let mut values = choosing.values.as_slice();
                if let Some(of) = &choosing.of {
                    let own = Buckets {
                        of: Quick::new(put_in(of)?),
                        up_to: choosing.up_to.clone(),
                        count: values.len(),
                    };
                    if let Term::Number(number) = own.of.term() {
                        // No problem changes it on this GPU.
                        values = std::slice::from_ref(&values[own.of_number(*number)]);
                    } else {
                        buckets.push(own);
                    }
                }
                set.push((name, values));
            }
            let never = when.as_ref().is_some_and(Term::never_holds);
            let reached = !decided && !never;
            decided |= match &when {
                None => true,
                Some(Term::Number(number)) => *number != 0,
                Some(_) => false,
            };
            let mut places = Vec::new();
            for values in if reached { combinations(&set) } else { Vec::new() } {
                let spec = asked.with(values).map_err(|source| DispatchError::Variant {
                    rule,
                    source: Box::new(source),
                })?;
                let place = variants.iter().position(|variant| variant.id() == spec.id());
                places.push(place.unwrap_or(variants.len()));
                if place.is_none() {
                    variants.push(spec);
                }
            }
            rules.push(Rule {
                when: when.map(Quick::new),
                never,
                buckets,
                places,
                forced: declared.set.keys().any(|name| is_forced(name)),
            });
        }
        Ok(Self {
            sizes: dispatch.sizes.len(),
            tuned: Vec::new(),
            rules,
            variants,
        })
    }

    /// Notes the variant that was the fastest for exactly these sizes on this GPU.
    ///
    /// # Errors
    /// Another number of sizes than the problem has.
    pub fn tune(&mut self, sizes: &[u32], variant: KernelSpec) -> Result<(), DispatchError> {
        self.check(sizes)?;
        let known = self.variants.iter().position(|known| known.id() == variant.id());
        let place = known.unwrap_or(self.variants.len());
        if known.is_none() {
            self.variants.push(variant);
        }
        match self.tuned.binary_search_by(|(held, _)| (**held).cmp(sizes)) {
            Ok(at) => self.tuned[at].1 = place,
            Err(at) => self.tuned.insert(at, (sizes.into(), place)),
        }
        Ok(())
    }

    /// Every variant that can be selected, each once: what is to be prepared.
    #[must_use]
    pub fn variants(&self) -> &[KernelSpec] {
        &self.variants
    }

    /// The variant for a problem, by its sizes in the order of the family's `[dispatch]`.
    ///
    /// # Errors
    /// Sizes that the problem does not have, or that a rule has no answer for.
    pub fn select(&self, sizes: &[u32]) -> Result<Selected, DispatchError> {
        self.check(sizes)?;
        let tuned = self.tuned.binary_search_by(|(held, _)| (**held).cmp(sizes));
        if let Ok(at) = tuned {
            return Ok(Selected {
                variant: self.tuned[at].1,
                chosen: Chosen::Tuned,
                rule: None,
            });
        }
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| !rule.never) {
            let no_number = || DispatchError::NoNumber { rule: index + 1 };
            if rule.holds(sizes).ok_or_else(no_number)? {
                return Ok(Selected {
                    variant: rule.place(sizes).ok_or_else(no_number)?,
                    chosen: if rule.forced { Chosen::Forced } else { Chosen::Rule },
                    rule: Some(index + 1),
                });
            }
        }
        // The last rule has no condition.
        Err(DispatchError::NoNumber {
            rule: self.rules.len(),
        })
    }

    /// Whether each rule's condition holds for a problem; `None` where that does not come
    /// out.
    #[must_use]
    pub fn conditions(&self, sizes: &[u32]) -> Vec<Option<bool>> {
        self.rules.iter().map(|rule| rule.holds(sizes)).collect()
    }

    fn check(&self, sizes: &[u32]) -> Result<(), DispatchError> {
        let (expected, found) = (self.sizes, sizes.len());
        (expected == found)
            .then_some(())
            .ok_or(DispatchError::Sizes { expected, found })
    }
}

impl Rule {
    fn holds(&self, sizes: &[u32]) -> Option<bool> {
        (self.when.as_ref()).map_or(Some(true), |when| Some(when.at(sizes)? != 0))
    }

    fn place(&self, sizes: &[u32]) -> Option<usize> {
        let mut place = 0;
        for buckets in &self.buckets {
            let bucket = buckets.of_number(buckets.of.at(sizes)?);
            place = place * buckets.count + bucket;
        }
        self.places.get(place).copied()
    }
}

impl Buckets {
    /// The place of the value for a number.
    fn of_number(&self, number: i128) -> usize {
        let fits = |most: &u32| number <= i128::from(*most);
        self.up_to.iter().position(fits).unwrap_or(self.count - 1)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forced => "set",
            Self::Tuned => "tuned",
            Self::Rule => "by rule",
        })
    }
}

/// Every combination of the values of constants, the last one's running fastest.
fn combinations<'d>(set: &[(&'d str, &'d [String])]) -> Vec<Vec<(&'d str, &'d str)>> {
    let mut all = vec![Vec::new()];
    for (name, all_of_it) in set {
        let with = |values: Vec<(&'d str, &'d str)>| {
            all_of_it.iter().map(move |value| {
                let mut values = values.clone();
                values.push((name, value.as_str()));
                values
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

/// A fact of a GPU, by one of the names of [`DEVICE_FACTS`].
fn fact(device: &Device, name: &str) -> Option<u32> {
    let numbers = [
        u32::from(device.major) * 10 + u32::from(device.minor),
        device.sm_count,
        device.shared_mem_per_sm,
        device.shared_mem_per_block,
        device.registers_per_sm,
        device.threads_per_sm,
        device.l2_bytes,
    ];
    let at = DEVICE_FACTS.iter().position(|fact| *fact == name)?;
    Some(numbers[at])
}

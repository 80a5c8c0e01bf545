//! Which variant a family's own rules choose for a problem, and whether the cache has it.
//!
//! Invariant: it decides as a load would, and writes nothing.

use std::collections::BTreeMap;

use super::{Error, Jit};
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::Judged;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::NamedFamily;
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::Selected;

/// A choice, with all that led to it.
#[derive(Debug)]
#[non_exhaustive]
pub struct DispatchExplanation {
    /// The problem: its sizes by name, in the order of the family's TOML.
    pub problem: Vec<(String, u32)>,
    /// Every rule of the family, in order.
    pub rules: Vec<RuleShown>,
    /// What was chosen.
    pub selected: Selected,
    /// The variant that was chosen.
    pub spec: KernelSpec,
    /// What the compiler would be given for it.
    pub request: CompileRequest,
    /// What a load would find.
    pub judged: Judged,
}

/// A rule as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleShown {
    /// Its condition; `None` holds always.
    pub when: Option<String>,
    /// Whether that holds for the problem; `None` where it comes to no number.
    pub holds: Option<bool>,
    /// `constant = how it is chosen`.
    pub sets: Vec<String>,
    /// Why, in one line.
    pub because: Option<String>,
}

/// Why there is no choice to explain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The family has no rules.
    #[error("`{family}` has no [dispatch] in its TOML: families that have rules: {with}")]
    NoRules {
        /// The family.
        family: String,
        /// Those that have some.
        with: String,
    },
    /// Not the sizes that the rules take, or a problem for which they have no answer.
    #[error("{0}")]
    Problem(String),
    /// A family, a constant or the compiler's identity.
    #[error(transparent)]
    Jit(#[from] Error),
}

impl Jit {
    /// The choice of a family's rules for a problem on a GPU, which need not be here.
    ///
    /// # Errors
    /// The family has no rules, these are not its sizes, or a constant that is set has
    /// several values.
    pub fn explain_dispatch(
        &self,
        named: &NamedFamily,
        device: &Device,
        sizes: &BTreeMap<String, u32>,
    ) -> Result<DispatchExplanation, ExplainError> {
        let family = named.family();
        let Some(rules) = &family.dispatch else {
            let all = self.registry().families();
            let with: Vec<&str> = (all.filter(|f| f.dispatch.is_some()))
                .map(|f| f.name.as_str())
                .collect();
            return Err(ExplainError::NoRules {
                family: family.name.clone(),
                with: if with.is_empty() {
                    "none".to_owned()
                } else {
                    with.join(", ")
                },
            });
        };
        let sizes = rules
            .in_order(sizes)
            .map_err(|e| ExplainError::Problem(e.into()))?;
        let dispatchers = self.dispatchers(named, device)?;
        let [dispatcher] = &dispatchers[..] else {
            return Err(ExplainError::Problem(format!(
                "{} variants are requested: expected one value for each constant",
                dispatchers.len()
            )));
        };
        let selected = dispatcher.select(&sizes);
        let selected = selected.map_err(|e| ExplainError::Problem(e.to_string()))?;
        let spec = dispatcher.variants()[selected.variant].clone();
        let (request, judged) = self.judge(&spec)?;
        let shown = (rules.rules.iter().zip(dispatcher.conditions(&sizes))).map(|(rule, holds)| RuleShown {
            when: rule.when.as_ref().map(|when| when.text.clone()),
            holds,
            sets: (rule.set.iter().map(|(name, by)| format!("{name} = {by}"))).collect(),
            because: rule.because.clone(),
        });
        Ok(DispatchExplanation {
            problem: rules.sizes.iter().cloned().zip(sizes.iter().copied()).collect(),
            rules: shown.collect(),
            selected,
            spec,
            request,
            judged,
        })
    }
}

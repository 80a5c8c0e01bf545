//! Which families a request means.
//!
//! Invariant: every constant that was written is one of some family of the request, or
//! the request is refused.

use std::sync::Arc;

use crate::engine::config::Config;
use crate::engine::request::spec::{SpecError, check_names};
use crate::engine::request::template::{Family, Registry, TemplateError};

/// Why a selection is empty or wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A family that nobody declares.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Constants that no family takes.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Registry {
    /// Refuses constants of the command line that none of these families declares, and
    /// those of the config file that no family at all declares.
    pub fn check_constants(&self, names: &[&str], config: &Config) -> Result<(), SelectError> {
        let families: Vec<Arc<Family>> = names
            .iter()
            .map(|n| self.named(n).map(|named| Arc::clone(named.family())))
            .collect::<Result<_, _>>()?;
        check_names(self.families(), config)?;
        let declared = |name: &String| families.iter().any(|f| f.constants.contains_key(name));
        // The file's constants may be other families'.
        if !config.flag_constants().iter().all(|c| declared(&c.name)) {
            check_names(&families, config)?;
        }
        Ok(())
    }
}

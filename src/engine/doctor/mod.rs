//! What is here, what is missing, and how to fix it: for `jitc doctor`, and for a process
//! that wants to know before it serves.
//!
//! Invariant: it looks, and makes nothing: no folder, no entry, no fetch.

mod cache;
mod gpu;
mod settings;
mod stores;
mod toolchain;
mod versions;

pub use stores::try_stores;
pub use versions::versions;

use crate::engine::config::Effective;
use crate::engine::jit::{Error, Jit};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fact {
    /// What it is about: `nvrtc`, `headers`, `python`, `driver`, `gpu`, `cache`, `store`, `config`.
    pub what: &'static str,
    /// Whether a warm could run for all of this.
    pub good: bool,
    /// What was found.
    pub text: String,
    /// How to fix it, where there is something to fix.
    pub fix: Option<String>,
}

impl Fact {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            what,
            good: true,
            text: text.into(),
            fix: None,
        }
    }

    fn missing(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            good: false,
            text: text.into(),
            fix: Some(fix.into()),
        }
    }
}

/// The state of an installation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Everything that was looked at.
    pub facts: Vec<Fact>,
    /// Every setting that is in force, the constants that are set, then variables of others.
    pub settings: Vec<Effective>,
}

impl Diagnosis {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.facts.iter().all(|fact| fact.good)
    }
}

/// Looks at the compiler, the header sets, the driver and its GPUs, the cache's folders
/// and the settings of a facade.
///
/// # Errors
/// A setting is not legal, or the driver's version could not be compared.
pub fn diagnose(jit: &Jit) -> Result<Diagnosis, Error> {
    let config = jit.config();
    let python = toolchain::pip_version();
    let mut facts = vec![
        toolchain::facts(config, python.is_some())?,
        toolchain::header_sets(config),
        match python {
            Some(version) => Fact::good("python", version),
            None => Fact::good(
                "python",
                "no python3 with pip; only fetching NVRTC and header sets needs it",
            ),
        },
    ];
    facts.extend(gpu::facts(jit)?);
    facts.push(cache::fact(config));
    facts.extend(cache::passed_over(jit));
    facts.extend(settings::fact(config));
    Ok(Diagnosis {
        facts,
        settings: settings::effective(jit),
    })
}

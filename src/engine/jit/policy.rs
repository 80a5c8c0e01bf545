//! What a request may do beyond looking: compile, warn of it, or fail; and the
//! receipt, if nothing else may be loaded.
//!
//! Invariant: fail closed. Under a receipt, or with compiling forbidden, no path
//! leads to the compiler, and a receipt that cannot be read admits nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::trace::Trace;
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Drift, Receipt, ReceiptError};
use crate::engine::config::{Config, MissPolicy, Source};
use crate::engine::regular_file::{self, MAX_RECORDS};
use crate::engine::request::spec::KernelSpec;

/// Miss policy, receipt and trace of one facade.
pub(super) struct Policy {
    pub(super) miss: MissPolicy,
    pub(super) trace: Option<Trace>,
    /// Its file, and who named it.
    required: Option<(PathBuf, Source)>,
    templates: Option<PathBuf>,
    receipt: Mutex<Option<Arc<Receipt>>>,
}

impl Policy {
    pub(super) fn new(
        config: &Config,
        miss: Option<MissPolicy>,
        receipt: Option<Receipt>,
    ) -> Result<Self, Error> {
        Ok(Self {
            miss: match miss {
                Some(miss) => miss,
                None => config.miss()?,
            },
            trace: config.trace().map(Trace::new),
            required: config.require_receipt().zip(config.source_of("require_receipt")),
            templates: config.templates(),
            receipt: Mutex::new(receipt.map(Arc::new)),
        })
    }

    /// Whether a miss may not compile, receipt or none.
    pub(super) fn forbids(&self) -> bool {
        self.miss == MissPolicy::Forbid
    }

    /// Why a request that no tier has, or that drifts from the receipt, is refused.
    pub(super) fn refusal(&self, spec: &KernelSpec, request: &CompileRequest, drift: Option<Drift>) -> Error {
        let drift = drift.map(|drift| self.explained(drift, spec));
        match drift {
            Some(Ok(drift)) => Error::Drift {
                drift,
                variant: variant(spec),
                arch: spec.arch(),
            },
            Some(Err(error)) => error,
            None => Error::Forbidden {
                key: *request.key(),
                variant: variant(spec),
                arch: spec.arch(),
                command: self.warm_command(spec),
            },
        }
    }

    /// A key that is missing because the family had another name is said to be so.
    pub(super) fn explained(&self, drift: Drift, spec: &KernelSpec) -> Result<Drift, Error> {
        Ok(match self.receipt()? {
            Some(receipt) => explained(drift, spec, &receipt),
            None => drift,
        })
    }

    /// Told of a compile that a request needed.
    pub(super) fn compiled(&self, spec: &KernelSpec, request: &CompileRequest, compile_us: u64) {
        if self.miss == MissPolicy::Warn {
            tracing::warn!(key = %request.key().short(), command = self.warm_command(spec),
                "a request had to compile; warm it beforehand");
        }
        if let Some(trace) = &self.trace {
            trace.record(request, compile_us);
        }
    }

    /// Read once; what the program gave holds over what the settings name.
    pub(super) fn receipt(&self) -> Result<Option<Arc<Receipt>>, Error> {
        let mut held = self.receipt.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some((path, origin))) = (&*held, &self.required) {
            let unreadable = |source: ReceiptError| Error::Receipt {
                path: path.clone(),
                origin: origin.clone(),
                source,
            };
            let bytes = regular_file::read(path, MAX_RECORDS).map_err(|e| unreadable(e.into()))?;
            *held = Some(Arc::new(Receipt::from_bytes(&bytes).map_err(unreadable)?));
        }
        Ok(held.clone())
    }

    fn warm_command(&self, spec: &KernelSpec) -> String {
        let family = spec.family();
        let mut words = vec![format!("jitc warm {} --arch {}", family.name, spec.arch())];
        let constants = family.constants.values().filter_map(|constant| {
            let value = spec.constants().get(&constant.name)?;
            (*value != constant.default).then(|| format!("--set {}={value}", constant.name))
        });
        words.extend(constants);
        let templates = self.templates.iter();
        words.extend(templates.map(|folder| format!("--templates {}", folder.display())));
        words.join(" ")
    }
}

/// A key that is missing because the family had another name is said to be so.
fn explained(drift: Drift, spec: &KernelSpec, receipt: &Receipt) -> Drift {
    let former = (spec.family().former_name_of(spec.constants())).map(|former| former.name.as_str());
    match (drift, receipt.names_one_of(former)) {
        (Drift::NotListed(key), Some(former)) => Drift::FormerName {
            key,
            former: former.to_owned(),
        },
        (drift, _) => drift,
    }
}

fn variant(spec: &KernelSpec) -> String {
    format!("{} {}", spec.family().name, spec.variant())
}

//! What a load would find, asked without loading: for questions, which change nothing.
//!
//! Invariant: it decides as [`Jit::prepare`] does, under the receipt, the policies and the
//! trust that hold for that; and it neither writes, compiles nor tells a listener.

use super::{Error, Jit};
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Drift, Entry};
use crate::engine::request::spec::KernelSpec;

/// What a load would find of a request, before it compiles.
#[derive(Debug)]
pub enum Verdict {
    /// A good entry that may be loaded.
    Hit(Box<Entry>),
    /// None: it would compile, or fail where that is forbidden.
    Absent,
    /// Nothing that the receipt that is required admits: it would fail.
    Refused(Drift),
}

impl Verdict {
    /// The entry that would be loaded.
    #[must_use]
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Hit(entry) => Some(*entry),
            _ => None,
        }
    }
}

impl Jit {
    /// What a load of this spec would find.
    ///
    /// # Errors
    /// As [`Jit::describe`]; and where a receipt is required that cannot be read.
    pub fn peek(&self, spec: &KernelSpec) -> Result<Verdict, Error> {
        self.peek_request(spec, &self.describe(spec)?.0)
    }

    /// As [`Jit::peek`], of a spec that was described already.
    ///
    /// # Errors
    /// Where a receipt is required that cannot be read.
    pub fn peek_request(&self, spec: &KernelSpec, request: &CompileRequest) -> Result<Verdict, Error> {
        self.policy.peek(&self.cache, spec, request)
    }

    /// The command that would warm this spec.
    #[must_use]
    pub fn warm_command(&self, spec: &KernelSpec) -> String {
        self.policy.warm_command(spec)
    }
}

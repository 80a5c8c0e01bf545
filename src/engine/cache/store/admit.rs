//! As whose files a folder's entries are read, and when they have to be signed.
//!
//! Invariant: an entry is read either as this user's or root's, by owner and mode of every
//! folder on the way and of its file, or as signed by a trusted key, whoever wrote it. Where
//! no key is trusted and nothing is said, owner and mode alone decide, as the trust says.

use super::Store;
use super::entry::Whole;
use super::error::{CacheError, Fault};
use super::read::Load;
use crate::engine::build::key::CacheKey;
use crate::engine::config::CacheTrust;
use crate::engine::sign::{Admission, Require};

impl Store {
    /// What is asked of its entries, beside [`Store::with_trust`].
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// What is asked of its entries.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The folder as one in which everybody may have written: every entry must be signed.
    fn signed_view(&self) -> Self {
        Self {
            trust: CacheTrust::Anybody,
            must_be_signed: true,
            ..self.clone()
        }
    }

    /// The folder as far as it is this user's or root's.
    fn own_view(&self) -> Self {
        Self {
            trust: CacheTrust::Own,
            ..self.clone()
        }
    }

    /// The folder for whoever lists names.
    pub(super) fn names_view(&self) -> Self {
        match self.admission.in_force() {
            Require::None => self.clone(),
            Require::Others | Require::Signed => self.signed_view(),
        }
    }

    /// Looks as the rule in force says; `is_others` tells what somebody else may have
    /// written, or hidden, from a verdict.
    pub(super) fn by_rule<T>(&self, look: impl Fn(&Self) -> T, is_others: impl Fn(&T) -> bool) -> T {
        match self.admission.in_force() {
            Require::None => look(self),
            Require::Signed => look(&self.signed_view()),
            Require::Others => {
                let own = look(&self.own_view());
                if is_others(&own) {
                    look(&self.signed_view())
                } else {
                    own
                }
            }
        }
    }

    /// The same of what a look under a key found.
    pub(super) fn load_by_rule<T>(&self, look: impl Fn(&Self) -> Load<T>) -> Load<T> {
        self.by_rule(look, |found| {
            matches!(
                found,
                Load::Bad(Fault::Untrusted(_))
                    | Load::Unavailable(CacheError::Untrusted { .. } | CacheError::Link { .. })
            )
        })
    }

    /// The entry of a key as this user's or root's own; else, where a key is trusted, as
    /// signed.
    pub(super) fn own_or_signed(&self, key: &CacheKey) -> Load<Whole> {
        match self.own_view().whole_here(key) {
            Load::Found(whole) => Load::Found(whole),
            other if self.admission.in_force() == Require::None => other,
            _ => self.signed_view().whole_here(key),
        }
    }

    /// Refuses to keep what no load would take.
    pub(super) fn check_signed(&self, whole: &Whole) -> Result<(), CacheError> {
        match self.admission.in_force() {
            Require::None | Require::Others => Ok(()),
            Require::Signed => {
                let signed = whole.entry().admit(&self.admission);
                signed.map_err(CacheError::Refused)
            }
        }
    }
}

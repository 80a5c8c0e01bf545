//! A family that is one source, given as it is by a program, with its headers.
//!
//! Invariant: nothing of the source is rendered: `{{` is C++. What was given tells the
//! family from every other of its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Family, TemplateError, TemplateFile};
use crate::engine::request::header_set::SetUse;

/// What a program gives with a source.
#[derive(Debug)]
pub(crate) struct Given {
    /// Headers by the names under which the source includes them.
    pub(crate) headers: BTreeMap<String, Arc<str>>,
    /// Header sets of the program's own, which stand before those that the family names.
    pub(crate) sets: Vec<SetUse>,
    /// Compiler options, in order.
    pub(crate) options: Vec<String>,
    digest: [u8; 32],
}

impl Given {
    pub(crate) fn new(headers: BTreeMap<String, Arc<str>>, sets: Vec<SetUse>, options: Vec<String>) -> Self {
        Self {
            headers,
            sets,
            options,
            digest: [0; 32],
        }
    }

    /// What tells it from every other.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl Family {
    /// A family with these declarations, TOML as of any family, and this source.
    pub(crate) fn of_source(
        name: &str,
        declarations: &str,
        source: String,
        mut given: Given,
    ) -> Result<Self, TemplateError> {
        let file = |text: &str| TemplateFile {
            path: name.to_owned(),
            text: text.to_owned(),
        };
        let mut family = Self::parse(name, &file(declarations), &file(""))?;
        let mut hash = Sha256::new();
        let mut field = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        field(declarations);
        field(&source);
        for text in &given.options {
            field("option");
            field(text);
        }
        for (name, text) in &given.headers {
            field("header");
            field(name);
            field(text);
        }
        for set in &given.sets {
            field("set");
            field(&set.name);
            field(&set.identity);
        }
        given.digest = hash.finalize().into();
        family.source = source;
        family.given = Some(given);
        Ok(family)
    }

    /// What a program gave, where it is no family of files.
    pub(crate) fn given(&self) -> Option<&Given> {
        self.given.as_ref()
    }
}

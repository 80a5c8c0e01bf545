//! Header sets of a compile: read when it comes to one, and not for a hit.

use super::{Error, Jit};
use crate::engine::build::key::tag;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::{self, ToolchainError};
use crate::engine::cache::Manifest;
use crate::engine::request::header_set::{PinnedSet, SetName, SetUse};

impl Jit {
    /// Reads the pinned sets of a source, and fetches those that are not here.
    pub(super) fn with_header_sets(&self, mut rendered: RenderedSource) -> Result<RenderedSource, Error> {
        for used in rendered.sets.iter_mut().filter(|used| used.set.is_none()) {
            let pinned = PinnedSet::named(&used.name).filter(|pinned| pinned.identity() == used.identity);
            let pinned = pinned.ok_or_else(|| not_at_hand(&used.name, &used.identity))?;
            used.set = Some(toolchain::header_set(&self.config, pinned)?);
        }
        Ok(rendered)
    }

    /// The sets that an entry was made with: it names them alone.
    pub(super) fn header_sets_of(&self, manifest: &Manifest) -> Result<Vec<SetUse>, Error> {
        let fields = manifest.preimage.fields.iter();
        let named = fields.filter(|field| field.tag == tag::HEADER_SET);
        named
            .map(|field| {
                let jitcs = SetName {
                    name: field.name.clone(),
                    folder: None,
                };
                let family = self.registry.get(&manifest.family);
                let own = family.map_or(&[][..], |family| &family.header_sets).iter();
                let found = own.chain([&jitcs]).filter(|used| used.name == field.name);
                found
                    .filter_map(|used| self.registry.header_set(used).ok())
                    .find(|used| used.identity == field.value)
                    .ok_or_else(|| not_at_hand(&field.name, &field.value))
            })
            .collect()
    }
}

/// The C++ that names entry points of an entry, by their declared names.
pub(super) fn expressions_of(manifest: &Manifest) -> Vec<(String, String)> {
    let fields = manifest.preimage.fields.iter();
    fields
        .filter(|field| field.tag == tag::EXPRESSION)
        .map(|field| (field.name.clone(), field.value.clone()))
        .collect()
}

fn not_at_hand(set: &str, identity: &str) -> Error {
    ToolchainError::NoHeaderSet {
        set: set.to_owned(),
        identity: identity.to_owned(),
    }
    .into()
}

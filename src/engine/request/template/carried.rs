//! Families that a program carries in itself.
//!
//! Invariant: the texts are those of a folder that was read whole and found consistent, so
//! that a family has one key whether it comes from the program or from the folder.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::folder::{is_read, read};
use super::{Registry, TemplateError};
use crate::engine::request::header_set::Walk;

/// The texts of a folder of families, in the program's own image; made by
/// `jitc::include_templates!`.
#[derive(Debug, Clone, Copy)]
pub struct Templates {
    folder: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl Templates {
    /// Texts by their paths below the folder, which messages call so.
    #[must_use]
    pub const fn new(folder: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { folder, files }
    }

    /// The folder, as messages call it.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        self.folder
    }

    /// The texts by path: of `include/` those alone that are read of a folder.
    pub(super) fn files(&self) -> BTreeMap<String, String> {
        let wanted = |path: &&str| !path.starts_with("include/") || is_read(path);
        let files = self.files.iter().filter(|(path, _)| wanted(path));
        files
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect()
    }

    /// The texts of a header set by name: those below a folder of the folder.
    pub(super) fn below(&self, set: &str) -> BTreeMap<String, String> {
        let below = self.files.iter().filter_map(|(path, text)| {
            let name = path.strip_prefix(set)?.strip_prefix('/')?;
            Some((name.to_owned(), (*text).to_owned()))
        });
        below.collect()
    }
}

/// All texts of a folder of families that a program needs in its place: families, headers,
/// and the families' own header sets; and the names of its families.
///
/// # Errors
/// What cannot be read, and a family that is not consistent.
pub(crate) fn texts_of(folder: &Path) -> Result<(BTreeMap<String, String>, Vec<String>), TemplateError> {
    let mut texts = read(folder)?;
    let registry = Registry::load(Some(folder))?;
    let mut walk = Walk::below(folder);
    for set in registry.set_folders() {
        walk.tree(&folder.join(set), "it", &|name, _| !name.starts_with('.'))?;
    }
    texts.extend(walk.files);
    let own = |name: &&str| registry.place_of(&format!("{name}.cu.tera")).starts_with(folder);
    let families = registry.families().map(|family| family.name.as_str());
    let families: Vec<String> = families.filter(own).map(str::to_owned).collect();
    if families.is_empty() {
        return Err(TemplateError::Declaration {
            file: folder.display().to_string(),
            reason: "there is no family in it: expected FAMILY.toml with FAMILY.cu.tera, \
                or FAMILY/family.toml with FAMILY/kernel.cu.tera"
                .into(),
        });
    }
    Ok((texts, families))
}

/// The texts as a Rust expression, of the kind that [`Templates::new`] takes.
pub(crate) fn rust_of(texts: &BTreeMap<String, String>) -> String {
    let mut rust = String::from("&[\n");
    for (path, text) in texts {
        // Debug of a text is a Rust string literal.
        let _ = writeln!(rust, "    ({path:?}, {text:?}),");
    }
    rust.push_str("]\n");
    rust
}

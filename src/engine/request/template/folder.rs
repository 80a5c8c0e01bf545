//! The files of a folder of templates.
//!
//! Invariant: a folder is walked once, and only where families and headers may lie.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::engine::request::header_set::Walk;

/// The folder of headers.
const INCLUDE: &str = "include";
/// How the files end that are read of it.
const HEADERS: [&str; 8] = [".toml", ".cu.tera", ".cuh", ".h", ".hh", ".hpp", ".inc", ".inl"];

/// The texts of all files that a family may need, by path below the folder. Header sets
/// of its own are read when a compile needs them.
pub(super) fn read(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut walk = Walk::below(root);
    for path in walk.list(root)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else { continue };
        if !path.is_dir() {
            if [".toml", ".cu.tera"].iter().any(|end| name.ends_with(end)) {
                walk.read(&path)?;
            }
        } else if name == INCLUDE {
            walk.tree(&path, "include/", &|name, is_folder| is_folder || is_read(name))?;
        } else {
            for own in ["family.toml", "kernel.cu.tera"] {
                let own = path.join(own);
                // A link to nothing is there, and an error.
                if fs_err::symlink_metadata(&own).is_ok() {
                    walk.read(&own)?;
                }
            }
        }
    }
    Ok(walk.files)
}

/// Whether a file of this name is read of the folder of headers.
pub(super) fn is_read(name: &str) -> bool {
    HEADERS.iter().any(|end| name.ends_with(end))
}

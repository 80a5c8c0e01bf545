//! The files of a folder of templates.
//!
//! Invariant: a folder is walked once, only where families and headers may lie, and so far:
//! links that go round and folders that are something else are refused in one line.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::engine::regular_file::{MAX_SOURCE, MAX_TOML, read_text};

/// The most names below a folder of templates, `include/` and all.
const MAX_NAMES: usize = 10_000;
/// The most bytes of all files together.
const MAX_BYTES: usize = 256 << 20;
/// The most folders within each other below `include/`.
const MAX_DEPTH: usize = 16;
/// The folder of headers.
const INCLUDE: &str = "include";

/// The texts of all files that a family may need, by path below the folder.
pub(super) fn read(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut walk = Walk {
        root,
        files: BTreeMap::new(),
        names: 0,
        bytes: 0,
    };
    for path in walk.list(root)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else { continue };
        if !path.is_dir() {
            if [".toml", ".cu.tera"].iter().any(|end| name.ends_with(end)) {
                walk.read(&path)?;
            }
        } else if name == INCLUDE {
            walk.headers(&path, &mut Vec::new())?;
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

struct Walk<'a> {
    root: &'a Path,
    files: BTreeMap<String, String>,
    names: usize,
    bytes: usize,
}

impl Walk<'_> {
    fn list(&mut self, folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(refused(
                    self.root,
                    &format!("has more than {MAX_NAMES} files: expected a folder of templates"),
                ));
            }
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// Headers at every depth. `above` are the folders that this one lies in, by device
    /// and number.
    fn headers(&mut self, folder: &Path, above: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let there = fs_err::metadata(folder)?;
        let this = (there.dev(), there.ino());
        if above.contains(&this) {
            return Err(refused(folder, "is a link to a folder that it lies in"));
        }
        if above.len() >= MAX_DEPTH {
            return Err(refused(
                folder,
                &format!("lies deeper than {MAX_DEPTH} folders below {INCLUDE}/"),
            ));
        }
        above.push(this);
        for path in self.list(folder)? {
            let wanted = path.to_str().is_some_and(|name| {
                [".toml", ".cu.tera", ".cuh", ".h"]
                    .iter()
                    .any(|end| name.ends_with(end))
            });
            if path.is_dir() {
                self.headers(&path, above)?;
            } else if wanted {
                self.read(&path)?;
            }
        }
        above.pop();
        Ok(())
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let Some(name) = path.strip_prefix(self.root).ok().and_then(Path::to_str) else {
            return Ok(());
        };
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let limit = if is_toml { MAX_TOML } else { MAX_SOURCE };
        let text = read_text(path, limit)?;
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(refused(
                self.root,
                &format!("has more than {MAX_BYTES} bytes of templates"),
            ));
        }
        self.files.insert(name.to_owned(), text);
        Ok(())
    }
}

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} {what}", path.display()))
}

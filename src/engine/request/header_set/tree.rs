//! A walk through a folder of texts.
//!
//! Invariant: a folder is walked once and so far: links that go round and folders that are
//! something else are refused in one line.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::regular_file::{MAX_SOURCE, MAX_TOML, read_text};

/// The most names below a folder.
const MAX_NAMES: usize = 10_000;
/// The most bytes of all files together.
const MAX_BYTES: usize = 256 << 20;
/// The most folders within each other.
const MAX_DEPTH: usize = 16;

/// What was read below a root: texts by path, with `/` between its parts.
pub(crate) struct Walk<'a> {
    root: &'a Path,
    pub(crate) files: BTreeMap<String, String>,
    names: usize,
    bytes: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn below(root: &'a Path) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            names: 0,
            bytes: 0,
        }
    }

    /// What is in a folder, by name.
    pub(crate) fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(refused(
                    self.root,
                    &format!("has more than {MAX_NAMES} files: expected a folder of templates or headers"),
                ));
            }
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// Reads the files at every depth that are wanted: by their names, as are folders (`true`).
    /// Messages call the folder `called`.
    pub(crate) fn tree(
        &mut self,
        folder: &Path,
        called: &str,
        wanted: &dyn Fn(&str, bool) -> bool,
    ) -> io::Result<()> {
        self.descend(folder, called, wanted, &mut Vec::new())
    }

    /// `above` are the folders that this one lies in, by device and number.
    fn descend(
        &mut self,
        folder: &Path,
        called: &str,
        wanted: &dyn Fn(&str, bool) -> bool,
        above: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        let there = fs_err::metadata(folder)?;
        let this = (there.dev(), there.ino());
        if above.contains(&this) {
            return Err(refused(folder, "is a link to a folder that it lies in"));
        }
        if above.len() >= MAX_DEPTH {
            return Err(refused(
                folder,
                &format!("lies deeper than {MAX_DEPTH} folders below {called}"),
            ));
        }
        above.push(this);
        for path in self.list(folder)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let is_folder = path.is_dir();
            if !wanted(name, is_folder) {
                continue;
            }
            if is_folder {
                self.descend(&path, called, wanted, above)?;
            } else {
                self.read(&path)?;
            }
        }
        above.pop();
        Ok(())
    }

    /// Reads one file.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<()> {
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
                &format!("has more than {MAX_BYTES} bytes of texts"),
            ));
        }
        self.files.insert(name.to_owned(), text);
        Ok(())
    }
}

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} {what}", path.display()))
}

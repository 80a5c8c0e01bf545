//! Where files are looked for and kept.
//!
//! Invariant: paths are the bytes that were given, whether or not they are text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Config, Source, trust};

impl Config {
    /// Where NVRTC is, if it was said: a file or a folder.
    #[must_use]
    pub fn nvrtc(&self) -> Option<PathBuf> {
        self.path("nvrtc")
    }

    /// The folder with templates that add to, or override, the embedded ones.
    #[must_use]
    pub fn templates(&self) -> Option<PathBuf> {
        self.path("templates")
    }

    /// The program that compiles in processes of its own, if it was said.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        self.path("program")
    }

    /// The receipt outside which nothing is loaded, if one was named.
    #[must_use]
    pub fn require_receipt(&self) -> Option<PathBuf> {
        self.path("require_receipt")
    }

    /// The file that compiles are recorded in, if one was named.
    #[must_use]
    pub fn trace(&self) -> Option<PathBuf> {
        self.path("trace")
    }

    /// The folder of the cache that is written to: as said, else the
    /// repository's own when the working folder lies in one, else
    /// `$XDG_CACHE_HOME/jitc`. `None` where there is not even a home folder.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        self.path("cache_dir").or_else(|| Some(self.usual_cache_dir()?.0))
    }

    /// Where the cache is if nobody says it.
    pub(super) fn usual_cache_dir(&self) -> Option<(PathBuf, Source)> {
        let own = self.repository();
        let own = own.map(|root| (root.join("cache"), Source::WorkingFolder));
        own.or_else(|| Some((self.xdg("XDG_CACHE_HOME", ".cache")?, Source::Default)))
    }

    /// Folders that are only read from, in the order in which they are asked:
    /// `--cache-ro`, else `JITC_CACHE_RO` (separated as in `PATH`), else
    /// `cache_ro` in the config file.
    #[must_use]
    pub fn cache_ro(&self) -> Vec<PathBuf> {
        if !self.flags.cache_ro.is_empty() {
            return self.flags.cache_ro.clone();
        }
        match self.raw("cache_ro") {
            Some(raw) if matches!(raw.source, Source::ConfigFile { .. }) => self
                .file
                .as_ref()
                .map_or_else(Vec::new, |file| file.paths("cache_ro")),
            Some(raw) => split_paths(&raw.value).collect(),
            None => Vec::new(),
        }
    }

    /// The folder that managed toolchains are installed into.
    #[must_use]
    pub fn toolchain_dir(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_DATA_HOME", ".local/share")?.join("toolchain"))
    }

    /// `CUDA_HOME` and `CUDA_PATH`, where set: name and folder.
    #[must_use]
    pub fn cuda_homes(&self) -> Vec<(&'static str, PathBuf)> {
        ["CUDA_HOME", "CUDA_PATH"]
            .into_iter()
            .filter_map(|name| Some((name, self.env.path(name)?)))
            .collect()
    }

    /// The folders of `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn library_path(&self) -> Vec<PathBuf> {
        let path = self.env.bytes("LD_LIBRARY_PATH").unwrap_or_default();
        split_paths(path).collect()
    }

    /// Roots of the active Python environments.
    #[must_use]
    pub fn python_prefixes(&self) -> Vec<PathBuf> {
        ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(|name| self.env.path(name))
            .collect()
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let raw = self.raw(name)?;
        let path = PathBuf::from(raw.value);
        Some(match (&raw.source, &self.file) {
            // Relative to the file that says it, not to where one happens to stand.
            (Source::ConfigFile { .. }, Some(file)) => file.folder().join(path),
            _ => path,
        })
    }

    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let base = match self.env.path(variable) {
            // The XDG specification has relative paths ignored.
            Some(path) if path.is_absolute() => path,
            _ => self.env.path("HOME")?.join(below_home),
        };
        Some(base.join("jitc"))
    }

    /// The repository that the working folder lies in, if it is this project's, and nobody
    /// else's doing: anybody could lay out a folder that looks like it.
    fn repository(&self) -> Option<PathBuf> {
        let looks_like_it = |dir: &&Path| {
            dir.join("cache/CACHEDIR.TAG").is_file()
                && dir.join("templates").is_dir()
                && fs_err::read_to_string(dir.join("Cargo.toml"))
                    .is_ok_and(|text| text.lines().any(|line| line.trim() == r#"name = "jitc""#))
        };
        let root = self.working_dir.as_ref()?.ancestors().find(looks_like_it)?;
        let ours = matches!(trust::why_folder_not_ours(root), Ok(None));
        ours.then(|| root.to_path_buf())
    }
}

/// The paths of a list that is separated as in `PATH`.
fn split_paths(list: &OsStr) -> impl Iterator<Item = PathBuf> {
    let parts = list.as_bytes().split(|byte| *byte == b':');
    parts
        .filter(|part| !part.is_empty())
        .map(|part| OsStr::from_bytes(part).into())
}

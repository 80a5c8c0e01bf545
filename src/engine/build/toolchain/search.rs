//! Where NVRTC is looked for, strongest place first: what was named; the managed
//! folder; `CUDA_HOME`, `CUDA_PATH`; the loader's path; the active Python
//! environments.
//!
//! Invariant: a place is looked at only when no stronger one has an NVRTC, so
//! that a usual start touches one folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::contents::Reading;
use super::identity::{identity_of, stamp_of};
use super::managed::{MANAGED, managed};
use super::pin::pin;
use super::{PINNED_VERSION, Toolchain, ToolchainError};
use crate::engine::config::Config;

/// The oldest NVRTC that will do: it knows every arch that jitc makes, and the
/// option that turns its own disk cache off.
pub const OLDEST: (u32, u32) = (12, 9);

/// A place that was looked at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// Why it was looked at.
    pub origin: String,
    /// The folder, or the file that was named.
    pub place: PathBuf,
    /// What is there.
    pub found: Found,
}

/// What a place holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No libnvrtc with its builtins.
    Nothing,
    /// An NVRTC before [`OLDEST`]: its version.
    TooOld(String),
    /// libnvrtc and libnvrtc-builtins.
    Nvrtc(PathBuf, PathBuf),
}

const NAMED: &str = "named";

/// Every place, looked at one by one as the iterator goes on.
pub fn candidates(config: &Config) -> impl Iterator<Item = Candidate> {
    places(config).map(|(origin, place)| Candidate {
        found: look(&place),
        origin: origin.to_owned(),
        place,
    })
}

/// The strongest NVRTC at hand. `None`: there is none yet.
pub fn find(config: &Config) -> Result<Option<Toolchain>, ToolchainError> {
    find_reading(config, false)
}

/// The same, with every byte of its files read, whatever is known of them.
pub fn find_afresh(config: &Config) -> Result<Option<Toolchain>, ToolchainError> {
    find_reading(config, true)
}

fn find_reading(config: &Config, afresh: bool) -> Result<Option<Toolchain>, ToolchainError> {
    let root = config.toolchain_dir();
    for Candidate { origin, place, found } in candidates(config) {
        if let (MANAGED, Some(root), Ok(pin)) = (origin.as_str(), &root, pin()) {
            match managed(root, pin, afresh)? {
                Some(toolchain) => return Ok(Some(toolchain)),
                None => continue,
            }
        }
        match found {
            Found::Nvrtc(nvrtc, builtins) => {
                let stamp = root.as_ref().map(|root| stamp_of(root, &nvrtc, &builtins));
                let reading = if afresh { Reading::Afresh } else { Reading::Seldom };
                return Ok(Some(Toolchain {
                    identity: identity_of(&nvrtc, &builtins, reading(stamp.as_deref()))?,
                    nvrtc,
                    builtins,
                    origin,
                }));
            }
            Found::TooOld(version) if origin == NAMED => {
                return Err(ToolchainError::TooOld { path: place, version });
            }
            Found::Nothing if origin == NAMED => return Err(ToolchainError::NotThere { path: place }),
            _ => {}
        }
    }
    Ok(None)
}

fn places(config: &Config) -> impl Iterator<Item = (&'static str, PathBuf)> {
    let named = config.nvrtc().map(|place| (NAMED, place));
    let managed = config
        .toolchain_dir()
        .map(|root| (MANAGED, root.join(PINNED_VERSION)));
    let homes = config.cuda_homes().into_iter().flat_map(|(name, home)| {
        let below = [
            "lib64",
            "lib",
            "targets/x86_64-linux/lib",
            "targets/sbsa-linux/lib",
        ];
        below.map(move |below| (name, home.join(below)))
    });
    let library_path = config
        .library_path()
        .into_iter()
        .map(|folder| ("LD_LIBRARY_PATH", folder));
    let loader = std::iter::once_with(loader_folders)
        .flatten()
        .map(|folder| ("the loader's path", folder));
    let usual = ["/usr/local/cuda/lib64", "/usr/lib64"].map(|folder| ("the usual folders", folder.into()));
    let python = config
        .python_prefixes()
        .into_iter()
        .flat_map(|prefix| python_folders(&prefix))
        .map(|folder| ("Python environment", folder));
    named
        .into_iter()
        .chain(managed)
        .chain(homes)
        .chain(library_path)
        .chain(loader)
        .chain(usual)
        .chain(python)
}

/// The folders that the loader's own cache names for libnvrtc.
fn loader_folders() -> Vec<PathBuf> {
    // Not on every user's PATH.
    let output = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .into_iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok());
    let Some(output) = output.filter(|o| o.status.success()) else {
        return Vec::new();
    };
    nvrtc_folders(&String::from_utf8_lossy(&output.stdout))
}

/// From the lines of `ldconfig -p`: `\tlibnvrtc.so.13 (libc6,x86-64) => /folder/libnvrtc.so.13`.
fn nvrtc_folders(listing: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for line in listing
        .lines()
        .filter(|l| l.trim_start().starts_with("libnvrtc.so."))
    {
        let file = line.split_once("=> ").map(|(_, file)| Path::new(file.trim()));
        if let Some(folder) = file.and_then(Path::parent)
            && !folders.iter().any(|known| known == folder)
        {
            folders.push(folder.to_path_buf());
        }
    }
    folders
}

fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let versions = fs_err::read_dir(prefix.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    versions
        .map(|version| version.path().join("site-packages/nvidia/cu13/lib"))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// What is in a folder, or at a file and beside it.
fn look(place: &Path) -> Found {
    let Some((nvrtc, builtins)) = libraries_in(place) else {
        return Found::Nothing;
    };
    let version = builtins_version(&builtins.file_name().unwrap_or_default().to_string_lossy());
    match version {
        Some(version) if version < OLDEST => Found::TooOld(format!("{}.{}", version.0, version.1)),
        _ => Found::Nvrtc(nvrtc, builtins),
    }
}

/// `(13, 0)` of `libnvrtc-builtins.so.13.0`.
fn builtins_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("libnvrtc-builtins.so.")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// libnvrtc and the builtins that it will ask for.
pub(super) fn libraries_in(place: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = if place.is_file() { place.parent()? } else { place };
    let names: Vec<String> = fs_err::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let nvrtc = if place.is_file() {
        place.to_path_buf()
    } else {
        let name = ["libnvrtc.so.13", "libnvrtc.so.12"]
            .into_iter()
            .find(|n| names.iter().any(|have| have == n))?;
        folder.join(name)
    };
    // The file that the soname links to has the whole version in its name; where
    // it is no link, the major version is all that is known.
    let real = fs_err::canonicalize(&nvrtc).ok()?;
    let numbers: Vec<u32> = (real.file_name()?.to_str()?)
        .strip_prefix("libnvrtc.so.")?
        .split('.')
        .map_while(|n| n.parse().ok())
        .collect();
    let fits = |version: (u32, u32)| {
        numbers.first() == Some(&version.0) && numbers.get(1).is_none_or(|minor| *minor == version.1)
    };
    // libnvrtc asks by soname, which has two numbers.
    let builtins = names
        .iter()
        .filter(|n| n.split('.').count() == 4)
        .filter_map(|n| Some((builtins_version(n)?, n)))
        .filter(|(version, _)| fits(*version))
        .max()?
        .1;
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Some((absolute(nvrtc), absolute(folder.join(builtins))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in names {
            fs_err::write(dir.path().join(name), name).expect("write");
        }
        dir
    }

    fn found(dir: &tempfile::TempDir) -> Option<(String, String)> {
        let name = |path: PathBuf| path.file_name().expect("name").to_string_lossy().into_owned();
        match look(dir.path()) {
            Found::Nvrtc(nvrtc, builtins) => Some((name(nvrtc), name(builtins))),
            _ => None,
        }
    }

    #[test]
    fn libnvrtc_counts_only_with_its_builtins_beside_it() {
        assert_eq!(look(folder(&["libnvrtc.so.13"]).path()), Found::Nothing);
        assert_eq!(
            look(folder(&["libnvrtc.so.13", "libnvrtc-builtins.so.12.9"]).path()),
            Found::Nothing
        );
        let both = folder(&["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"]);
        assert_eq!(
            found(&both),
            Some(("libnvrtc.so.13".into(), "libnvrtc-builtins.so.13.0".into()))
        );
    }

    #[test]
    fn of_several_builtins_the_one_that_libnvrtc_asks_for_is_taken() {
        let dir = folder(&[
            "libnvrtc.so.13.0.88",
            "libnvrtc-builtins.so.13.0",
            "libnvrtc-builtins.so.13.0.88",
            "libnvrtc-builtins.so.13.1",
            "libnvrtc-builtins.alt.so.13.0",
        ]);
        std::os::unix::fs::symlink("libnvrtc.so.13.0.88", dir.path().join("libnvrtc.so.13")).expect("link");
        assert_eq!(
            found(&dir),
            Some(("libnvrtc.so.13".into(), "libnvrtc-builtins.so.13.0".into()))
        );
    }

    #[test]
    fn an_nvrtc_that_does_not_know_every_arch_is_passed_over() {
        let old = folder(&["libnvrtc.so.12", "libnvrtc-builtins.so.12.8"]);
        assert_eq!(look(old.path()), Found::TooOld("12.8".into()));
        let oldest = folder(&["libnvrtc.so.12", "libnvrtc-builtins.so.12.9"]);
        assert!(found(&oldest).is_some());
    }

    #[test]
    fn the_loaders_listing_names_folders() {
        let listing = "3 libs found in cache `/etc/ld.so.cache'\n\
            \tlibnvrtc.so.13 (libc6,x86-64) => /opt/cuda/lib64/libnvrtc.so.13\n\
            \tlibnvrtc.so.12 (libc6,x86-64) => /opt/cuda/lib64/libnvrtc.so.12\n\
            \tlibz.so.1 (libc6,x86-64) => /lib/libz.so.1\n";
        assert_eq!(nvrtc_folders(listing), [PathBuf::from("/opt/cuda/lib64")]);
    }
}

//! The pinned header sets: fetched like NVRTC, kept as one file each.
//!
//! Invariant: what is returned from here has the pinned digest, which every load works out
//! anew from the bytes; and a compile is given headers of this user's and root's alone.
//!
//! A set lies in `headers/<name>/<version>`, as the compiler is given it (see
//! [`HeaderSet`]): it is read whole or not at all.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fs_err::os::unix::fs::OpenOptionsExt;

use super::contents::sha256_of;
use super::held::is_ending;
use super::install::{Asked, WAIT_LIMIT};
use super::lock::{Claim, claim};
use super::managed::{FETCHING, UNPACKING, collect, make, work};
use super::pip::{Pip, Requirement};
use super::{ToolchainError, failure, trust};
use crate::engine::config::Config;
use crate::engine::request::header_set::{HeaderSet, PINNED_SETS, PinnedSet};

/// The folder of header sets, beside those of NVRTC.
pub(super) const HEADERS: &str = "headers";

/// Where the wheels have their headers. Those of cub, thrust and cuda/ lie one folder
/// deeper, and are included from there.
const INCLUDE: &str = "nvidia/cu13/include/";
const CCCL: &str = "cccl/";

/// The wheels of a set; of each one for `x86_64` and one for aarch64, with the same headers.
struct Wheels<'a> {
    set: &'a PinnedSet,
    wheels: &'a [Requirement<'a>],
}

const WHEELS: [Wheels<'static>; 2] = [
    Wheels {
        set: &PINNED_SETS[0],
        wheels: &[
            Requirement {
                name: "nvidia-cuda-runtime",
                version: "13.0.88",
                sha256: &[
                    "422a38f7c739ecbdd3a4b6ec7ed0a1d74db43d8e9bc26685f3d845638922b178",
                    "8ba16a33998ee3ee2bf11c8f13e36e3ff86a1d6ad165ffeee863d6eabd0b5f67",
                ],
            },
            Requirement {
                name: "nvidia-cuda-crt",
                version: "13.0.88",
                sha256: &[
                    "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
                    "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003",
                ],
            },
            Requirement {
                name: "nvidia-cuda-cccl",
                version: "13.0.85",
                sha256: &[
                    "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
                    "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c",
                ],
            },
        ],
    },
    Wheels {
        set: &PINNED_SETS[1],
        wheels: &[Requirement {
            name: "nvidia-curand",
            version: "10.4.0.35",
            sha256: &[
                "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
                "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
            ],
        }],
    },
];

/// Sets that this process has read, by digest.
static READ: Mutex<BTreeMap<&str, Arc<HeaderSet>>> = Mutex::new(BTreeMap::new());

/// A pinned set for a compile: read once a process, and fetched if it is not here. That is
/// tried once a process, and once by processes that want it at the same time.
pub fn header_set(config: &Config, pinned: &'static PinnedSet) -> Result<Arc<HeaderSet>, ToolchainError> {
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(set) = read.get(pinned.digest) {
        return Ok(Arc::clone(set));
    }
    let set = obtain(
        &place(config, pinned)?,
        wheels_of(pinned),
        &Pip::default(),
        Asked::ByCompile,
        config.offline()?,
    )?;
    let set = Arc::new(set);
    read.insert(pinned.digest, Arc::clone(&set));
    Ok(set)
}

/// Fetches a pinned set and gives its file. What is there already is read whole, and
/// replaced where it is not what is pinned.
pub fn install_header_set(config: &Config, pinned: &'static PinnedSet) -> Result<PathBuf, ToolchainError> {
    let place = place(config, pinned)?;
    obtain(
        &place,
        wheels_of(pinned),
        &Pip::default(),
        Asked::ByName,
        config.offline()?,
    )?;
    Ok(place.file())
}

/// Installs sets from wheels that are here already: neither Python nor a network is
/// needed. Wheels that belong to a set have to come together.
pub fn install_header_wheels(config: &Config, paths: &[PathBuf]) -> Result<Vec<PathBuf>, ToolchainError> {
    let mut by_set: BTreeMap<&str, Vec<(&Requirement<'_>, &Path)>> = BTreeMap::new();
    for path in paths {
        let actual = sha256_of(path)?;
        let fits = |wheel: &&Requirement<'_>| wheel.sha256.contains(&actual.as_str());
        let of = WHEELS
            .iter()
            .find_map(|of| Some((of.set.name, of.wheels.iter().find(fits)?)));
        let Some((set, wheel)) = of else {
            return Err(ToolchainError::UnknownWheel {
                path: path.clone(),
                actual,
            });
        };
        by_set.entry(set).or_default().push((wheel, path));
    }
    let mut files = Vec::new();
    for of in WHEELS.iter().filter(|of| by_set.contains_key(of.set.name)) {
        let here = &by_set[of.set.name];
        let missing = of
            .wheels
            .iter()
            .filter(|wheel| here.iter().all(|(known, _)| known != wheel));
        let missing: Vec<String> = missing
            .map(|wheel| format!("{} {}", wheel.name, wheel.version))
            .collect();
        if !missing.is_empty() {
            return Err(ToolchainError::MissingWheels {
                set: of.set.name,
                missing: missing.join(", "),
            });
        }
        let place = place(config, of.set)?;
        place.make()?;
        let wheels: Vec<PathBuf> = here.iter().map(|(_, path)| path.to_path_buf()).collect();
        place.put(&unpack(of.set, &wheels)?, UNPACKING)?;
        failure::forget(&place.folder);
        files.push(place.file());
    }
    Ok(files)
}

/// Whether a file is one of the wheels that header sets are made of.
#[must_use]
pub fn is_header_wheel(path: &Path) -> bool {
    sha256_of(path).is_ok_and(|sha256| {
        let mut wheels = WHEELS.iter().flat_map(|of| of.wheels);
        wheels.any(|wheel| wheel.sha256.contains(&sha256.as_str()))
    })
}

/// Where a pinned set is, or would be, and whether it is there.
#[must_use]
pub fn header_set_file(config: &Config, pinned: &'static PinnedSet) -> Option<(PathBuf, bool)> {
    let file = place(config, pinned).ok()?.file();
    let there = file.is_file();
    Some((file, there))
}

fn wheels_of(pinned: &PinnedSet) -> &'static [Requirement<'static>] {
    let of = WHEELS.iter().find(|of| of.set.name == pinned.name);
    of.map_or(&[], |of| of.wheels)
}

/// The folder of one set.
struct Place {
    root: PathBuf,
    folder: PathBuf,
    pinned: &'static PinnedSet,
}

fn place(config: &Config, pinned: &'static PinnedSet) -> Result<Place, ToolchainError> {
    let root = std::path::absolute(config.toolchain_dir().ok_or(ToolchainError::NoFolder)?)?;
    Ok(Place::below(root, pinned))
}

impl Place {
    fn below(root: PathBuf, pinned: &'static PinnedSet) -> Self {
        let folder = root.join(HEADERS).join(pinned.name);
        Self { root, folder, pinned }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(self.pinned.version)
    }

    /// The folders from the outermost one.
    fn folders(&self) -> [PathBuf; 3] {
        [self.root.clone(), self.root.join(HEADERS), self.folder.clone()]
    }

    fn make(&self) -> Result<(), ToolchainError> {
        self.folders().iter().try_for_each(|folder| make(folder))
    }

    /// The set, if it is here and what it should be.
    fn held(&self) -> Result<Option<HeaderSet>, ToolchainError> {
        let file = self.file();
        if !file.is_file() {
            return Ok(None);
        }
        for path in self.folders().iter().chain([&file]) {
            trust::judge_path(path)?;
        }
        let changed = |actual: String| ToolchainError::Changed {
            path: file.clone(),
            actual,
            expected: self.pinned.digest.to_owned(),
        };
        let set = HeaderSet::from_bytes(fs_err::read(&file)?).map_err(|e| changed(format!("none ({e})")))?;
        if set.digest() == self.pinned.digest {
            Ok(Some(set))
        } else {
            Err(changed(set.digest().to_owned()))
        }
    }

    /// Puts the set's file there, whole.
    fn put(&self, set: &HeaderSet, prefix: &str) -> Result<(), ToolchainError> {
        use std::io::Write;
        let work = work(&self.folder, prefix)?;
        let new = work.path().join("set");
        let mut options = fs_err::OpenOptions::new();
        // Whatever the umask: what others may write to is not used.
        let mut file = options.write(true).create_new(true).mode(0o644).open(&new)?;
        file.write_all(set.bytes())?;
        file.sync_all()?;
        fs_err::rename(&new, self.file())?;
        Ok(())
    }
}

fn obtain(
    place: &Place,
    wheels: &[Requirement<'_>],
    pip: &Pip,
    asked: Asked,
    offline: bool,
) -> Result<HeaderSet, ToolchainError> {
    let by_name = asked == Asked::ByName;
    let (folder, set) = (&place.folder, place.pinned.name);
    let failed = |reason: String| ToolchainError::FetchHeaders { set, reason };
    let since = if by_name {
        for path in place
            .folders()
            .iter()
            .chain([&place.file()])
            .filter(|path| path.exists())
        {
            // What stays open is replaced, or refused.
            let _ = trust::close_to_others(path);
        }
        SystemTime::now()
    } else {
        failure::process_started()
    };
    let there = || match place.held() {
        // It is about to be replaced.
        Err(ToolchainError::Changed { .. } | ToolchainError::Untrusted { .. }) if by_name => Ok(None),
        other => other,
    };
    if let Some(there) = there()? {
        return Ok(there);
    }
    if !by_name && let Some(reason) = failure::own(folder) {
        return Err(failed(reason));
    }
    if offline {
        return Err(ToolchainError::OfflineHeaders {
            set,
            file: place.file().display().to_string(),
        });
    }
    place.make()?;
    let lock = match claim(folder, WAIT_LIMIT)? {
        Claim::Held(lock) => Some(lock),
        Claim::Unsupported => None,
        Claim::Taken => return Err(ToolchainError::Busy { path: folder.clone() }),
    };
    // What a process did that was waited for.
    if let Some(there) = there()? {
        return Ok(there);
    }
    if let Some(reason) = failure::told(folder, since) {
        failure::keep(folder, &reason);
        return Err(failed(reason));
    }
    collect(folder, lock.is_some());
    let fetched = fetch(place, wheels, pip);
    match &fetched {
        Ok(_) => failure::forget(folder),
        Err(ToolchainError::FetchHeaders { reason, .. }) if !is_ending() => {
            failure::keep(folder, reason);
            failure::tell(folder, reason);
        }
        Err(_) => {}
    }
    fetched
}

fn fetch(place: &Place, wheels: &[Requirement<'_>], pip: &Pip) -> Result<HeaderSet, ToolchainError> {
    let work = work(&place.folder, FETCHING)?;
    let downloaded = pip.download(&work, wheels);
    if is_ending() {
        return Err(ToolchainError::Ending);
    }
    let set = place.pinned.name;
    let paths = downloaded.map_err(|reason| ToolchainError::FetchHeaders { set, reason })?;
    for path in &paths {
        let actual = sha256_of(path)?;
        if wheels
            .iter()
            .all(|wheel| !wheel.sha256.contains(&actual.as_str()))
        {
            return Err(ToolchainError::UnknownWheel {
                path: path.clone(),
                actual,
            });
        }
    }
    let set = unpack(place.pinned, &paths)?;
    place.put(&set, FETCHING)?;
    Ok(set)
}

/// The set that is made of the headers of these wheels.
fn unpack(pinned: &PinnedSet, wheels: &[PathBuf]) -> Result<HeaderSet, ToolchainError> {
    let mut texts = BTreeMap::new();
    for wheel in wheels {
        let bad = |reason: String| ToolchainError::Unpack {
            path: wheel.clone(),
            reason,
        };
        let mut archive = zip::ZipArchive::new(fs_err::File::open(wheel)?).map_err(|e| bad(e.to_string()))?;
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).map_err(|e| bad(e.to_string()))?;
            let path = file.name().map_err(|e| bad(e.to_string()))?.into_owned();
            let Some(name) = path.strip_prefix(INCLUDE).filter(|name| !name.is_empty()) else {
                continue;
            };
            if name.ends_with('/') {
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text)
                .map_err(|e| bad(format!("{name}: {e}")))?;
            texts.insert(name.strip_prefix(CCCL).unwrap_or(name).to_owned(), text);
        }
    }
    let set = HeaderSet::from_texts(&texts).map_err(|e| ToolchainError::Unpack {
        path: wheels.first().cloned().unwrap_or_default(),
        reason: e.to_string(),
    })?;
    if set.digest() == pinned.digest {
        return Ok(set);
    }
    Err(ToolchainError::Hash {
        path: PathBuf::from(format!("the header set `{}` of these wheels", pinned.name)),
        actual: set.digest().to_owned(),
        expected: pinned.digest.to_owned(),
    })
}

#[cfg(test)]
mod tests;

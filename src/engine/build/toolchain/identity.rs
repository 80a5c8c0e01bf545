//! What two libraries are: their ELF build-ids, or the SHA-256 of their bytes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use object::{Object, ReadCache};
use sha2::{Digest, Sha256};

use super::ToolchainError;
use crate::engine::request::target::ToolchainIdentity;

/// Path, size, mtime (s, ns), inode: what may not have changed for a remembered
/// identity to hold.
type Stamp = (PathBuf, u64, i64, i64, u64);

static KNOWN: Mutex<Option<HashMap<Stamp, String>>> = Mutex::new(None);

/// The identity of the compiler in these two files. Remembered in the process.
pub fn identify(nvrtc: &Path, builtins: &Path) -> Result<ToolchainIdentity, ToolchainError> {
    Ok(ToolchainIdentity {
        version: version_of(nvrtc, builtins),
        nvrtc: remembered(nvrtc)?,
        builtins: remembered(builtins)?,
    })
}

/// The managed folder is named by the full version; elsewhere the builtins' file
/// name says the first two numbers.
fn version_of(nvrtc: &Path, builtins: &Path) -> String {
    let folder = nvrtc.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    if let Some(name) =
        folder.filter(|n| n.split('.').count() == 3 && n.split('.').all(|p| p.parse::<u32>().is_ok()))
    {
        return name.to_owned();
    }
    builtins
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("libnvrtc-builtins.so."))
        .unwrap_or("unknown")
        .to_owned()
}

fn remembered(path: &Path) -> Result<String, ToolchainError> {
    let meta = fs_err::metadata(path)?;
    let stamp = (
        path.to_path_buf(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ino(),
    );
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(identity) = known.get(&stamp) {
        return Ok(identity.clone());
    }
    let identity = read(path)?;
    known.insert(stamp, identity.clone());
    Ok(identity)
}

fn read(path: &Path) -> Result<String, ToolchainError> {
    let file = fs_err::File::open(path)?;
    let cache = ReadCache::new(file);
    let id = object::File::parse(&cache)
        .ok()
        .and_then(|elf| elf.build_id().ok().flatten().map(hex::encode));
    if let Some(id) = id {
        return Ok(format!("build-id:{id}"));
    }
    let mut hash = Sha256::new();
    std::io::copy(&mut fs_err::File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}

/// Feeds a hash from anything that copies bytes.
pub(super) struct HashWriter<'a>(pub(super) &'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

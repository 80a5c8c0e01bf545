//! Files of secret keys.
//!
//! Invariant: a secret key is read from where nobody but its owner can read it, or from a
//! descriptor that the caller opened, and written only to a new file of mode 0600.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt;

use zeroize::Zeroizing;

use super::key::{KeyError, SecretKey};
use crate::engine::regular_file;

/// No file of a key is longer.
const LIMIT: u64 = 4096;
/// What anybody but the owner may do.
const OTHERS: u32 = 0o077;

/// The secret key of a file, which belongs to this user or root and which nobody else may
/// read.
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyError> {
    let file = regular_file::open(path)?;
    let found = file.metadata()?;
    let exposed = |why: String| KeyError::Exposed {
        path: path.to_path_buf(),
        why,
    };
    if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
        return Err(exposed(format!("it belongs to user {}", found.uid())));
    }
    if found.mode() & OTHERS != 0 {
        let mode = found.mode() & 0o777;
        return Err(exposed(format!("others may use it (mode {mode:03o})")));
    }
    read_secret_from(file)
}

/// The secret key that a descriptor or a pipe gives.
pub fn read_secret_from(from: impl Read) -> Result<SecretKey, KeyError> {
    // Never grown, which would leave a copy behind.
    let room = usize::try_from(LIMIT).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(room));
    from.take(LIMIT).read_to_string(&mut text)?;
    text.parse()
}

/// Writes a secret key into a new file that this user alone may read.
pub fn write_secret(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut file = fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_key_that_others_may_read_is_refused_and_none_is_written_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("key");
        let key = SecretKey::generate("fleet-1").expect("a key");
        write_secret(&path, &key).expect("written");
        let mode = fs_err::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read_secret(&path).expect("read").public(), key.public());
        assert!(write_secret(&path, &key).is_err());
        for mode in [0o640, 0o604, 0o644, 0o620] {
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let error = read_secret(&path).expect_err("refused").to_string();
            assert!(error.contains("chmod 600") && !error.contains('\n'), "{error}");
        }
        let text = key.to_text();
        let from = read_secret_from(text.as_bytes()).expect("read");
        assert_eq!(from.public(), key.public());
    }
}

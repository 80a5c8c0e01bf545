//! Whether a file that nobody named is this user's own word.
//!
//! Invariant: it is only where nobody but this user and root could have written it, or
//! put another in its place.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Write permission of the group and of everybody.
const OTHERS_WRITE: u32 = 0o022;

/// In a folder with this bit, only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// Why somebody else may have written a file that was found at `path`; `None`: it is this
/// user's or root's alone. `opened` is what was read.
///
/// The rule: the file, the link if one stands there, and the folder are owned by this
/// user or root, and nobody else may write to the file or the folder (write permission of
/// the group counts as somebody else's). The folders above, through which its paths are
/// found, are owned by this user or root too, and nobody else may write to them unless they
/// are sticky, as `/tmp` is. Of a link, the same holds for where it leads.
pub(crate) fn why_not_ours(path: &Path, opened: &Metadata) -> io::Result<Option<String>> {
    let link = fs_err::symlink_metadata(path)?;
    let writable = |mode: u32| mode & OTHERS_WRITE != 0;
    for found in [&link, opened] {
        if let Some(owner) = somebody_else(found.uid()) {
            return Ok(Some(format!("belongs to user {owner}")));
        }
    }
    if writable(opened.mode()) {
        return Ok(Some("can be written to by others".into()));
    }
    let leads_to = fs_err::canonicalize(path)?;
    for place in [path, leads_to.as_path()] {
        if let Some(folder) = place.parent()
            && let Some(reason) = why_folder_not_ours(folder)?
        {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// The same of a folder and those above it.
pub(super) fn why_folder_not_ours(folder: &Path) -> io::Result<Option<String>> {
    // An empty path is the working folder.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let folder = fs_err::canonicalize(folder)?;
    for (above, place) in folder.ancestors().enumerate() {
        let found = fs_err::metadata(place)?;
        if let Some(owner) = somebody_else(found.uid()) {
            return Ok(Some(format!("lies below {}, of user {owner}", place.display())));
        }
        let safe = found.mode() & OTHERS_WRITE == 0 || above > 0 && found.mode() & STICKY != 0;
        if !safe {
            return Ok(Some(format!(
                "lies below {}, which others can write to",
                place.display()
            )));
        }
    }
    Ok(None)
}

/// The owner, if it is neither this user nor root.
fn somebody_else(owner: u32) -> Option<u32> {
    (!is_trusted(owner, rustix::process::geteuid().as_raw())).then_some(owner)
}

/// Whether a file of this owner may say what this user runs: the user's own, or root's.
fn is_trusted(owner: u32, own: u32) -> bool {
    owner == own || owner == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_this_users_and_roots_files_are_trusted() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000));
        assert!(!is_trusted(1000, 0), "root obeys nobody else");
    }

    fn mode(path: &Path, mode: u32) {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// Above it lies the folder for temporary files, which is sticky.
    #[test]
    fn a_file_or_folder_that_others_can_write_to_is_not_ours_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inner = dir.path().join("inner");
        fs_err::create_dir(&inner).expect("folder");
        let file = inner.join("f");
        fs_err::write(&file, "").expect("written");
        let reason =
            || why_not_ours(&file, &fs_err::metadata(&file).expect("there").clone()).expect("looked");
        mode(&file, 0o644);
        mode(&inner, 0o755);
        assert_eq!(reason(), None);
        for bits in [0o664, 0o646] {
            mode(&file, bits);
            assert_eq!(reason().as_deref(), Some("can be written to by others"));
        }
        mode(&file, 0o600);
        for bits in [0o777, 0o1777, 0o775] {
            mode(&inner, bits);
            assert!(
                reason().is_some_and(|r| r.ends_with("inner, which others can write to")),
                "{bits:o}"
            );
        }
        mode(&inner, 0o755);
        mode(dir.path(), 0o777);
        assert!(reason().is_some_and(|r| r.ends_with("which others can write to")));
        mode(dir.path(), 0o1777);
        assert_eq!(reason(), None, "sticky");
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads_too() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (open, own) = (dir.path().join("open"), dir.path().join("own"));
        fs_err::create_dir(&open).expect("folder");
        fs_err::create_dir(&own).expect("folder");
        fs_err::write(open.join("f"), "").expect("written");
        mode(&open.join("f"), 0o600);
        mode(&own, 0o700);
        let link = own.join("f");
        fs_err::os::unix::fs::symlink(open.join("f"), &link).expect("link");
        let reason = || why_not_ours(&link, &fs_err::metadata(&link).expect("there")).expect("looked");
        mode(&open, 0o700);
        assert_eq!(reason(), None);
        mode(&open, 0o777);
        assert!(reason().is_some());
    }
}

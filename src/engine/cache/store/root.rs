//! Which folders may become a cache, and how a root is opened for writing.
//!
//! Invariant: a folder that was there keeps its mode, and what is somebody's folder of
//! other things never becomes a cache: only a new, an empty or a tagged one does.

use rustix::io::Errno;

use super::dir::Dir;
use super::error::CacheError;
use super::failed::FAILED;
use super::inspect::{is_shard, names};
use super::trust::Modes;
use super::usage::USAGE;
use super::{LOCKS, OLD_VERSION, QUARANTINE, STAGING, Store, TEXTS, VERSION, io_error, unique};

/// The file that marks a folder as a cache, for jitc and for programs that make backups.
const TAG: &str = "CACHEDIR.TAG";
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
     # This folder is a cache made by jitc.\n";
/// What a tag of ours says, whatever else it says.
const TAG_WORDS: &str = "made by jitc";
/// No tag is longer.
const TAG_LIMIT: u64 = 4096;
/// The record of measurements, which may be there before the first entry.
const TUNED: &str = "tuned.json";
/// What file systems put into the root of a volume: such a folder is empty.
const OF_THE_VOLUME: [&str; 2] = ["lost+found", ".snapshot"];

impl Store {
    /// Opens the root for writing, made if it is missing.
    pub(super) fn open_root(&self) -> Result<Dir, CacheError> {
        let io = |errno| io_error("create", self.root.clone(), errno);
        self.check_writable()?;
        let root = Dir::create_root(&self.root, Modes::of(self.trust)).map_err(io)?;
        self.admit(&root, || self.root.clone())?;
        if !has_tag(&root).map_err(io)? {
            self.check_adoptable(&root)?;
            tag(&root).map_err(io)?;
        }
        Ok(root)
    }

    /// Whether the folder can be used as it is, and its version folder and shards with it.
    /// Makes and changes nothing; what is not there yet is fine.
    pub fn standing(&self) -> Result<(), CacheError> {
        // What is only read from is used for what is signed, whoever's it is.
        if self.writable {
            self.stands()
        } else {
            self.names_view().stands()
        }
    }

    fn stands(&self) -> Result<(), CacheError> {
        let root = match self.root_dir() {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(io_error("open", self.root.clone(), errno)),
        };
        self.admit(&root, || self.root.clone())?;
        if self.writable && !has_tag(&root).map_err(|e| io_error("read", self.root.join(TAG), e))? {
            self.check_adoptable(&root)?;
        }
        if let Some(version) = self.open_version()? {
            for shard in names(&version).into_iter().filter(|name| is_shard(name)) {
                self.open_shard(&shard)?;
            }
        }
        Ok(())
    }

    /// Whether an untagged folder may become a cache.
    pub(super) fn check_adoptable(&self, root: &Dir) -> Result<(), CacheError> {
        let io = |errno| io_error("read", self.root.clone(), errno);
        let mut foreign = None;
        for name in root.names().map_err(io)? {
            match name.to_str() {
                // Somebody else's process adopts it at this moment.
                Some(TAG) if has_tag(root).map_err(io)? => return Ok(()),
                Some(VERSION | OLD_VERSION | FAILED | TUNED | USAGE) => {}
                Some(name) if OF_THE_VOLUME.contains(&name) || is_new_tag(name) => {}
                _ => foreign = Some(name),
            }
        }
        match foreign {
            Some(name) if !holds_entries(root) => Err(CacheError::NotACache {
                path: self.root.clone(),
                holds: name.to_string_lossy().into_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// Whether it is tagged as a cache of ours.
pub(super) fn has_tag(root: &Dir) -> rustix::io::Result<bool> {
    match root.read(TAG, TAG_LIMIT) {
        Ok(file) => Ok(String::from_utf8_lossy(&file.bytes).contains(TAG_WORDS)),
        Err(Errno::NOENT | Errno::LOOP | Errno::FBIG | Errno::ACCESS) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a version folder is one of ours, made before roots were tagged.
fn holds_entries(root: &Dir) -> bool {
    let inner = [LOCKS, STAGING, QUARANTINE, TEXTS];
    let ours = |name: &String| inner.contains(&name.as_str()) || is_shard(name);
    [VERSION, OLD_VERSION].iter().any(|version| {
        let folder = root.open(version).or_else(|_| root.follow(version));
        folder.is_ok_and(|folder| names(&folder).iter().any(ours))
    })
}

/// Tags a root, whole or not at all; another's tag stays.
fn tag(root: &Dir) -> rustix::io::Result<()> {
    let staged = format!(".{TAG}.{}", unique());
    let written = root.write_new(&staged, TAG_TEXT.as_bytes());
    match written.and_then(|()| root.rename(&staged, root, TAG)) {
        Ok(()) => root.sync(),
        Err(errno) => {
            let _ = root.remove(&staged);
            if errno == Errno::EXIST { Ok(()) } else { Err(errno) }
        }
    }
}

/// A tag that is being written, or whose writer died.
fn is_new_tag(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| rest.starts_with(TAG))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::entry::Whole;
    use super::super::test_fixtures;
    use super::*;

    fn publish(store: &Store) -> Result<(), CacheError> {
        let entry = Whole::new(&test_fixtures::subject_of(0), &test_fixtures::artifact());
        store.publish(&entry).map(drop)
    }

    #[test]
    fn a_folder_of_other_things_is_refused_in_one_sentence_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs_err::write(dir.path().join("thesis.tex"), "x").expect("write");
        let error = publish(&Store::new(dir.path())).expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("thesis.tex") && text.contains("empty or new folder"),
            "{text}"
        );
        assert!(!text.contains('\n'));
        assert_eq!(fs_err::read_dir(dir.path()).expect("folder").count(), 1);
    }

    #[test]
    fn the_tag_of_another_program_makes_no_cache_of_ours() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs_err::write(
            dir.path().join(TAG),
            "Signature: 8a477f597d28d172789f06886806bc55\n# cargo",
        )
        .expect("write");
        assert!(matches!(
            publish(&Store::new(dir.path())),
            Err(CacheError::NotACache { .. })
        ));
    }

    #[test]
    fn a_new_an_empty_and_an_untagged_cache_are_adopted_and_tagged() {
        let dir = tempfile::tempdir().expect("tempdir");
        let fresh = dir.path().join("fresh");
        publish(&Store::new(&fresh)).expect("published");
        assert!(has_tag(&Store::new(&fresh).root_dir().expect("root")).expect("tag"));
        // Made before roots were tagged, with a file of the user's beside.
        fs_err::remove_file(fresh.join(TAG)).expect("remove");
        fs_err::write(fresh.join("notes.txt"), "x").expect("write");
        publish(&Store::new(&fresh)).expect("published");
        assert!(fresh.join(TAG).is_file());
        let volume = dir.path().join("volume");
        fs_err::create_dir_all(volume.join("lost+found")).expect("create");
        publish(&Store::new(&volume)).expect("published");
    }

    #[test]
    fn a_folder_that_was_there_keeps_its_mode() {
        let dir = tempfile::tempdir().expect("tempdir");
        for mode in [0o1777, 0o2775, 0o777, 0o755, 0o700] {
            let root = dir.path().join(format!("{mode:o}"));
            fs_err::create_dir(&root).expect("create");
            fs_err::set_permissions(&root, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let _ = publish(&Store::new(&root));
            let found = fs_err::metadata(&root).expect("root").permissions().mode();
            assert_eq!(found & 0o7777, mode, "{mode:o}");
        }
    }
}

//! Reading one entry of a folder: open, read header, manifest and code, verify.
//!
//! Invariant: what cannot be read for want of rights, descriptors or memory is no
//! evidence against an entry; only its bytes, its kind and its owner are. A reader takes no
//! lock: a file keeps its bytes while it is open, whatever becomes of its name.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::dir::Dir;
use super::entry::{Entry, Notes, Whole, now_unix_ms};
use super::error::{CacheError, Fault};
use super::layout::{HEADER_LENGTH, Head, Header, Kind};
use super::manifest::Manifest;
use super::trust::judge;
use super::{Store, TEXTS, VERSION, file_name, io_error};
use crate::engine::build::key::CacheKey;
use crate::engine::sign::Statement;

/// A hit stamps its entry as used if the last stamp is older than this.
const STAMP_INTERVAL: Duration = Duration::from_hours(1);
/// Header and manifest of most entries fit into this: one read.
const FIRST_READ: usize = 16 << 10;

/// What a look under a key found.
#[derive(Debug)]
pub enum Load<T = Entry> {
    /// A verified entry.
    Found(Box<T>),
    /// No entry for this key.
    Absent,
    /// Something that is no entry for this key.
    Bad(Fault),
    /// The tier could not be read.
    Unavailable(CacheError),
}

pub(super) enum ReadError {
    Fault(Fault),
    /// No evidence against the entry: no rights, no descriptors, no memory.
    Errno(Errno),
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// An opened entry, verified as far as its code.
struct Opened {
    file: OwnedFd,
    header: Header,
    manifest: Manifest,
    bytes: Vec<u8>,
    notes: Notes,
    stat: Stat,
}

/// An opened file, verified as far as its code, whose manifest was not parsed.
pub(super) struct OpenedFile {
    pub(super) file: OwnedFd,
    pub(super) header: Header,
    /// The manifest's.
    pub(super) bytes: Vec<u8>,
    pub(super) notes: Notes,
    pub(super) stat: Stat,
}

impl Store {
    /// Reads and verifies manifest and code of a key, and marks the entry as used.
    #[must_use]
    pub fn load(&self, key: &CacheKey) -> Load {
        self.load_by_rule(|view| {
            view.look(key, |shard, opened| {
                let stat = opened.stat;
                let entry = entry_of(opened)?;
                view.stamp(shard, key, &stat);
                Ok(entry)
            })
        })
    }

    /// As [`Store::load`], without a mark.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Load {
        self.load_by_rule(|view| view.look(key, |_, opened| entry_of(opened)))
    }

    /// Reads and verifies all of an entry, without a mark.
    #[must_use]
    pub fn whole(&self, key: &CacheKey) -> Load<Whole> {
        self.load_by_rule(|view| view.whole_here(key))
    }

    /// All of an entry, by owner and mode as this view has them.
    pub(super) fn whole_here(&self, key: &CacheKey) -> Load<Whole> {
        let version = match self.open_version() {
            Ok(Some(version)) => version,
            Ok(None) => return Load::Absent,
            Err(e) => return Load::Unavailable(e),
        };
        // Its headers are looked at one by one: where there are none, it may be missing.
        let texts = self.open_linked(&version, TEXTS, || self.root.join(VERSION).join(TEXTS));
        let texts = match texts {
            Ok(texts) => texts,
            Err(e) => return Load::Unavailable(e),
        };
        self.look(key, |_, opened| {
            let header = opened.header;
            let source = read_at(&opened.file, header.source_at(), header.source)?;
            let log = read_at(&opened.file, header.source_at() + header.source, header.log)?;
            let text = |record: &_| match &texts {
                Some(folder) => self.read_text(folder, record),
                None => Err(Fault::Missing(format!("header {}", record.name))),
            };
            Ok(Whole::of(entry_of(opened)?, source, log, text)?)
        })
    }

    fn look<T>(&self, key: &CacheKey, read: impl FnOnce(&Dir, Opened) -> Result<T, ReadError>) -> Load<T> {
        self.look_as(key, |shard| read(shard, self.open_entry(shard, key)?))
    }

    /// Looks into the shard of a key.
    pub(super) fn look_as<T>(
        &self,
        key: &CacheKey,
        read: impl FnOnce(&Dir) -> Result<T, ReadError>,
    ) -> Load<T> {
        let shard = match self.open_shard(&key.hex()[..2]) {
            Ok(Some(shard)) => shard,
            Ok(None) => return Load::Absent,
            Err(e) => return Load::Unavailable(e),
        };
        match read(&shard) {
            Ok(found) => Load::Found(Box::new(found)),
            Err(ReadError::Fault(fault)) => Load::Bad(fault),
            // Some network file systems lose a file that was removed while it was open.
            Err(ReadError::Errno(Errno::NOENT | Errno::STALE)) => Load::Absent,
            Err(ReadError::Errno(e)) => Load::Unavailable(self.io("read", key, e)),
        }
    }

    /// Opens an entry and verifies what comes before its code.
    fn open_entry(&self, shard: &Dir, key: &CacheKey) -> Result<Opened, ReadError> {
        let opened = self.open_kind(shard, key, Kind::Cubin)?;
        let (header, manifest) = (opened.header, Manifest::of_key(key, &opened.bytes)?);
        let parts = [&manifest.code, &manifest.source, &manifest.log].map(|part| part.length);
        if manifest.kind != header.kind || parts != [header.code, header.source, header.log] {
            return Err(Fault::Unbound("lengths").into());
        }
        Ok(Opened {
            header,
            manifest,
            notes: opened.notes,
            bytes: opened.bytes,
            file: opened.file,
            stat: opened.stat,
        })
    }

    /// Opens a file of a kind of entries and verifies all before its code but what the
    /// manifest says.
    pub(super) fn open_kind(&self, shard: &Dir, key: &CacheKey, kind: Kind) -> Result<OpenedFile, ReadError> {
        let (file, stat) = shard.open_file(&file_name(key)).map_err(|e| match e {
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => Fault::NotRegular.into(),
            other => ReadError::Errno(other),
        })?;
        judge(&stat, self.trust).map_err(Fault::Untrusted)?;
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let first = length.min(FIRST_READ as u64);
        let mut head = read_at(&file, 0, first)?;
        let header = Header::from_bytes(&head, length)?;
        if header.key != *key {
            return Err(Fault::Key(header.key).into());
        }
        if header.code_at() > first {
            head.extend(read_at(&file, first, header.code_at() - first)?);
        }
        let verified = Head::verify(header, &head)?;
        match (kind, header.kind) {
            (Kind::Cubin, other) if other != kind => return Err(Fault::Kind(other.name()).into()),
            (_, other) if other != kind => return Err(Fault::Unbound("kind").into()),
            _ => {}
        }
        let notes = Notes::from_bytes(verified.notes)?;
        if self.must_be_signed {
            let statement = Statement::entry(key.as_bytes(), &header.digest);
            let signed = self.admission.verify(&statement, &notes.signatures);
            signed.map_err(Fault::Signature)?;
        }
        Ok(OpenedFile {
            header,
            notes,
            bytes: verified.manifest.to_vec(),
            file,
            stat,
        })
    }

    /// Manifest and notes of an entry, verified; and what the file system says of it.
    pub(super) fn read_head(
        &self,
        shard: &Dir,
        key: &CacheKey,
    ) -> Result<(Manifest, Notes, Stat), ReadError> {
        let opened = self.open_entry(shard, key)?;
        Ok((opened.manifest, opened.notes, opened.stat))
    }

    /// Opens `v2`; `None` if there is none.
    pub(super) fn open_version(&self) -> Result<Option<Dir>, CacheError> {
        let root = match self.root_dir() {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error("open", self.root.clone(), errno)),
        };
        self.admit(&root, || self.root.clone())?;
        self.open_linked(&root, VERSION, || self.root.join(VERSION))
    }

    /// Opens a shard; `None` if there is none.
    pub(super) fn open_shard(&self, shard: &str) -> Result<Option<Dir>, CacheError> {
        match self.open_version()? {
            Some(version) => self.open_linked(&version, shard, || self.root.join(VERSION).join(shard)),
            None => Ok(None),
        }
    }

    /// Marks an entry as used, at most once an hour; a mark from the future is renewed.
    pub(super) fn stamp(&self, shard: &Dir, key: &CacheKey, file: &Stat) {
        let now = now_unix_ms() / 1000;
        let last = u64::try_from(file.st_mtime).unwrap_or(0);
        if self.writable && (last > now || now - last >= STAMP_INTERVAL.as_secs()) {
            // Recency is a hint: without it the entry is pruned sooner.
            let _ = shard.stamp(&file_name(key));
        }
    }
}

fn entry_of(opened: Opened) -> Result<Entry, ReadError> {
    let header = opened.header;
    let code = read_at(&opened.file, header.code_at(), header.code)?;
    Ok(Entry::with(opened.manifest, opened.bytes, opened.notes, code)?)
}

/// These bytes of a file, all of them: one that ends early is a fault.
pub(super) fn read_at(file: impl AsFd, at: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    let room = usize::try_from(length).map_err(|_| ReadError::Errno(Errno::FBIG))?;
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(room);
    reserved.map_err(|_| ReadError::Errno(Errno::NOMEM))?;
    while bytes.len() < room {
        let from = at + bytes.len() as u64;
        match rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut bytes), from) {
            Ok(0) | Err(Errno::IO) => return Err(Fault::Unreadable.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(ReadError::Errno(e)),
        }
    }
    bytes.truncate(room);
    Ok(bytes)
}

const _: () = assert!(FIRST_READ >= HEADER_LENGTH, "the first read holds the header");

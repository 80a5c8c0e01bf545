//! Texts of headers, each kept once for all entries that name its digest.
//!
//! Invariant: a text is published before the first entry that names it, is verified
//! whenever it is read, and goes only when it is an hour old and no entry names it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::dir::Dir;
use super::entry::{Texts, now_unix_ms};
use super::error::{CacheError, Fault};
use super::inspect::names;
use super::layout::ENTRY_LIMIT;
use super::lock;
use super::manifest::{HeaderText, Manifest};
use super::trust::judge;
use super::{STAGING, Store, TEXTS, unique};

/// A text that no entry names is kept this long: its entry may be on its way.
const GRACE: Duration = Duration::from_hours(1);
/// A sweep is short; a writer who finds one waits for it, but not for ever.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

impl Store {
    /// Sees to it that every header of an entry is kept. The folder that is returned is
    /// locked against sweeps until it is closed: by then the entry is to be published.
    pub(super) fn keep_texts(
        &self,
        version: &Dir,
        manifest: &Manifest,
        texts: &Texts,
    ) -> Result<Dir, CacheError> {
        let folder = self.ensure(version, TEXTS)?;
        for _ in 0..LOOKS {
            match lock::try_shared(&folder) {
                Ok(false) => std::thread::sleep(PAUSE),
                _ => break,
            }
        }
        let staging = self.ensure(version, STAGING)?;
        for (record, (_, text)) in manifest.headers.iter().zip(&texts.headers) {
            let name = &record.sha256;
            if self.read_text(&folder, record).is_ok() {
                // Young again, for a sweep where there are no locks.
                let _ = folder.stamp(name);
                continue;
            }
            let staged = format!("{}.{}", &name[..16.min(name.len())], unique());
            let keep = || {
                staging.write_new(&staged, text.as_bytes())?;
                // Over whatever bad thing may lie there.
                match staging.replace(&staged, &folder, name) {
                    Err(Errno::ISDIR) => {
                        folder.remove(name)?;
                        staging.replace(&staged, &folder, name)
                    }
                    other => other,
                }
            };
            if let Err(errno) = keep() {
                let _ = staging.remove(&staged);
                return Err(self.io("write", &manifest.key, errno));
            }
        }
        folder.sync().map_err(|e| self.io("sync", &manifest.key, e))?;
        Ok(folder)
    }

    /// The text of a header, read and verified.
    pub(super) fn read_text(&self, folder: &Dir, record: &HeaderText) -> Result<Arc<str>, Fault> {
        let part = || format!("header {}", record.name);
        if record.sha256.len() != 64 || !record.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Fault::Unparsable(format!("{} has no digest", part())));
        }
        let file = folder
            .read(&record.sha256, record.length.min(ENTRY_LIMIT))
            .map_err(|e| match e {
                Errno::NOENT => Fault::Missing(part()),
                Errno::FBIG => Fault::TooLong(part()),
                Errno::LOOP | Errno::NXIO => Fault::NotRegular,
                _ => Fault::Unreadable,
            })?;
        judge(&file.stat, self.trust).map_err(Fault::Untrusted)?;
        record.verify(&file.bytes)?;
        match String::from_utf8(file.bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(Fault::Unparsable(format!("{} is not UTF-8", part()))),
        }
    }

    /// Removes texts that no entry names and that are older than the grace; with `all`
    /// whatever no entry names.
    pub(super) fn sweep_texts(&self, version: &Dir, all: bool) -> Result<(), CacheError> {
        let Ok(folder) = version.open(TEXTS) else {
            return Ok(());
        };
        // Somebody publishes: the next sweep will do.
        if matches!(lock::try_exclusive(&folder), Ok(false)) {
            return Ok(());
        }
        let _held = lock::Release::later(&folder);
        let now = now_unix_ms() / 1000;
        let is_old = |name: &String| {
            let stamp = folder.stat_of(name).map_or(0, |stat| stat.st_mtime);
            now.abs_diff(u64::try_from(stamp).unwrap_or(0)) >= GRACE.as_secs()
        };
        let mut unnamed: BTreeSet<String> = names(&folder).into_iter().collect();
        unnamed.retain(|name| all || is_old(name));
        // Entries share their texts: mostly a few shards name all of them.
        for shard in self.shards()? {
            if unnamed.is_empty() {
                return Ok(());
            }
            for key in self.keys_of(&shard) {
                let headers = self.manifest_here(&key).map(|manifest| manifest.headers);
                for header in headers.into_iter().flatten() {
                    unnamed.remove(&header.sha256);
                }
            }
        }
        for name in unnamed {
            // What cannot be removed is tried again by the next sweep.
            let _ = folder.remove(&name);
        }
        Ok(())
    }
}

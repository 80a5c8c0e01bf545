//! The folder of the cache that is written to.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Fact;
use crate::engine::cache::{CacheError, Store};
use crate::engine::config::Config;
use crate::engine::jit::Jit;

/// Folders that are passed over: the same sentence as at run time.
pub(super) fn passed_over(jit: &Jit) -> Vec<Fact> {
    let stores = jit.cache().tiers().iter().filter_map(|tier| tier.store());
    let refused = stores.filter_map(|store| store.standing().err());
    let fact = |why: CacheError| {
        let why = why.to_string();
        let (text, fix) = why.split_once("; ").unwrap_or((&why, "name another folder"));
        Fact::missing("cache", text, fix)
    };
    refused.map(fact).collect()
}

/// Looks, and makes nothing: the folder appears with the first entry.
pub(super) fn fact(config: &Config) -> Fact {
    let Some(dir) = config.cache_dir() else {
        return Fact::missing(
            "cache",
            "no folder",
            "set HOME, JITC_CACHE_DIR or --cache-dir; without one every start compiles",
        );
    };
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
    let state = match fs_err::metadata(&dir) {
        Ok(meta) => {
            let own = meta.uid() == rustix::process::geteuid().as_raw();
            let owner = if own {
                "yours".into()
            } else {
                format!("of user {}", meta.uid())
            };
            format!("mode {:04o}, {owner}", meta.mode() & 0o7777)
        }
        Err(_) => "not there yet".into(),
    };
    let free = rustix::fs::statvfs(existing).map_or_else(
        |_| String::new(),
        |s| format!(", {} GiB free", s.f_bavail.saturating_mul(s.f_frsize) >> 30),
    );
    let old = match Store::read_only(&dir).old_entries() {
        0 => String::new(),
        count => {
            format!("; {count} entries of an older format, ignored: `jitc cache clean --old` removes them")
        }
    };
    let text = format!("{} ({state}{free}){old}", dir.display());
    if writable {
        Fact::good("cache", text)
    } else {
        Fact::missing(
            "cache",
            format!("{text}: {} cannot be written", existing.display()),
            "make it writable, or set JITC_CACHE_DIR or --cache-dir",
        )
    }
}

//! Which entries of a cache somebody means, and in which order.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};

use super::carry::bundle::{self, BundleError};
use super::carry::signed::Signer;
use super::lookup::Cache;
use super::store::entry::{Whole, now_unix_ms};
use super::store::error::{CacheError, Fault, FindError};
use super::store::inspect::{Record, Summary};
use super::store::read::Load;
use super::tier::TierName;
use crate::engine::build::key::CacheKey;
use crate::engine::request::constant;
use crate::engine::request::matrix::matches_glob;
use crate::engine::request::template::Registry;
use crate::engine::sign::TrustedKeys;
use crate::engine::suggest::did_you_mean;

/// An entry of a tier.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Listed {
    /// Whose it is.
    pub tier: TierName,
    /// What its manifest says.
    pub record: Record,
}

impl Listed {
    /// The entry for programs: what docs/CACHE.md lists.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        match &record.summary {
            Ok(s) => {
                json!({"key": record.key, "tier": self.tier, "family": s.family, "constants": s.constants,
                "arch": s.arch, "toolchain": s.toolchain, "jitc": s.jitc, "resources": s.resources,
                "compile_us": s.compile_us, "cubin_bytes": s.cubin_bytes(), "bytes": record.bytes,
                "created_unix_ms": s.created_unix_ms, "used_unix_ms": record.used_unix_ms})
            }
            Err(fault) => json!({"key": record.key, "tier": self.tier, "bytes": record.bytes,
                "used_unix_ms": record.used_unix_ms, "bad": fault.to_string()}),
        }
    }
}

/// What an entry must be to be meant; what is empty or `None` admits all. Globs have `*`
/// and `?`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Query {
    /// Globs of families, former names among them.
    pub families: Vec<String>,
    /// Globs of architectures.
    pub archs: Vec<String>,
    /// Constants by name, with a glob of their value; all must fit.
    pub constants: Vec<(String, String)>,
    /// Globs of tiers.
    pub tiers: Vec<String>,
    /// The least bytes of the entry's file.
    pub min_bytes: Option<u64>,
    /// The most bytes of the entry's file.
    pub max_bytes: Option<u64>,
    /// Last used longer ago than this.
    pub older_than: Option<Duration>,
    /// Last used no longer ago than this.
    pub newer_than: Option<Duration>,
}

/// The entries of a cache, divided by a [`Query`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Selected {
    /// Those that are meant.
    pub meant: Vec<Listed>,
    /// All others.
    pub others: Vec<Listed>,
    /// Tiers whose folder could not be read, and why.
    pub unreadable: Vec<(TierName, CacheError)>,
}

/// What was passed over on the way through a cache.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Passed {
    /// Entries that are not meant.
    pub count: u64,
    /// Families and archs of those.
    pub kinds: BTreeSet<String>,
    /// Tiers whose folder could not be read, and why.
    pub unreadable: Vec<(TierName, CacheError)>,
}

impl Query {
    /// Divides the entries of all folders of a cache.
    #[must_use]
    pub fn select(&self, cache: &Cache, registry: &Registry) -> Selected {
        let now = now_unix_ms();
        let mut selected = Selected::default();
        for tier in cache.tiers() {
            let Some(store) = tier.store() else { continue };
            match store.records() {
                Ok(records) => {
                    for record in records {
                        let tier = tier.name().clone();
                        let one = Listed { tier, record };
                        if self.admits(&one, now, registry) {
                            selected.meant.push(one);
                        } else {
                            selected.others.push(one);
                        }
                    }
                }
                Err(error) => selected.unreadable.push((tier.name().clone(), error)),
            }
        }
        selected
    }

    /// Divides the entries of a bundle, each verified, as those of a tier named `bundle`; nothing
    /// is kept.
    ///
    /// # Errors
    /// It is not a bundle, or something in it is bad.
    pub fn of_bundle(&self, input: &mut impl Read, registry: &Registry) -> Result<Selected, BundleError> {
        let now = now_unix_ms();
        let mut selected = Selected::default();
        bundle::read(input, |whole| {
            let one = Listed {
                tier: TierName::new("bundle"),
                record: Record::of(&whole),
            };
            if self.admits(&one, now, registry) {
                selected.meant.push(one);
            } else {
                selected.others.push(one);
            }
            Ok(())
        })?;
        Ok(selected)
    }

    /// Tells of the entries that are meant in the order of their keys, a shard at a time:
    /// what is held in memory does not grow with the cache. Ends where it is told to.
    pub fn each(
        &self,
        cache: &Cache,
        registry: &Registry,
        tell: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Passed {
        let now = now_unix_ms();
        let mut passed = Passed::default();
        let mut shards = BTreeSet::new();
        let mut stores = Vec::new();
        for tier in cache.tiers() {
            let Some(store) = tier.store() else { continue };
            match store.shards() {
                Ok(names) => {
                    shards.extend(names);
                    stores.push((tier.name(), store));
                }
                Err(error) => passed.unreadable.push((tier.name().clone(), error)),
            }
        }
        for shard in shards {
            let mut entries: Vec<Listed> = Vec::new();
            for (tier, store) in &stores {
                let records = store.records_of(&shard).into_iter();
                entries.extend(records.map(|record| Listed {
                    tier: (*tier).clone(),
                    record,
                }));
            }
            entries.sort_by_key(|one| one.record.key);
            for one in entries {
                if !self.admits(&one, now, registry) {
                    passed.count += 1;
                    if let Ok(summary) = &one.record.summary {
                        passed
                            .kinds
                            .insert(format!("{} {}", summary.family, summary.arch));
                    }
                } else if tell(one).is_break() {
                    return passed;
                }
            }
        }
        passed
    }

    fn admits(&self, one: &Listed, now_ms: u64, registry: &Registry) -> bool {
        let any = |globs: &[String], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| matches_glob(glob, text))
        };
        let unused = Duration::from_millis(now_ms.saturating_sub(one.record.used_unix_ms));
        let says = match &one.record.summary {
            Ok(summary) => {
                (any(&self.families, &summary.family) || self.formerly(summary, registry))
                    && any(&self.archs, &summary.arch.to_string())
                    && self.constants.iter().all(|(n, glob)| has(summary, n, glob))
            }
            // Nothing is known of a bad one: it is meant where nothing was said of these.
            Err(_) => self.families.is_empty() && self.archs.is_empty() && self.constants.is_empty(),
        };
        says && any(&self.tiers, one.tier.as_str())
            && self.min_bytes.is_none_or(|least| one.record.bytes >= least)
            && self.max_bytes.is_none_or(|most| one.record.bytes <= most)
            && self.older_than.is_none_or(|age| unused > age)
            && self.newer_than.is_none_or(|age| unused <= age)
    }

    /// What to say of a constant in the query that no entry has, with the nearest name;
    /// nothing where each is known.
    #[must_use]
    pub fn unknown_name(&self, entries: &[Listed]) -> String {
        let summaries = || entries.iter().filter_map(|one| one.record.summary.as_ref().ok());
        let known: BTreeSet<&str> = summaries()
            .flat_map(|s| s.constants.keys().map(String::as_str))
            .collect();
        let unknown = self
            .constants
            .iter()
            .find(|(name, _)| !known.contains(name.as_str()));
        unknown.map_or_else(String::new, |(name, _)| {
            let hint = did_you_mean(name, known);
            format!(": no entry has a constant `{name}`{hint}")
        })
    }

    /// Whether it is meant by a former name, which stands for some of its constants.
    fn formerly(&self, summary: &Summary, registry: &Registry) -> bool {
        let Ok(family) = registry.get(&summary.family) else {
            return false;
        };
        family.former_names.iter().any(|former| {
            let stands = |(name, value): (&String, &constant::Value)| {
                summary.constants.get(name) == Some(&value.to_json())
            };
            self.families.iter().any(|glob| matches_glob(glob, &former.name))
                && former.constants.iter().all(stands)
        })
    }
}

fn has(summary: &Summary, name: &str, glob: &str) -> bool {
    let value = summary.constants.get(name);
    value.is_some_and(|value| matches_glob(glob, &plain(value)))
}

impl Cache {
    /// The name of the trusted key that signed the entry of a tier, or why none did; `None`
    /// where it is not good.
    #[must_use]
    pub fn signer_of(&self, one: &Listed, trusted: &TrustedKeys) -> Option<Signer> {
        let mut tiers = self.tiers().iter();
        match tiers.find(|t| *t.name() == one.tier)?.peek(&one.record.key) {
            Load::Found(entry) => {
                let signer = trusted.verify(&entry.statement(), &entry.notes().signatures);
                Some(signer.map(|key| key.name().to_owned()))
            }
            Load::Bad(Fault::Signature(fault)) => Some(Err(fault)),
            _ => None,
        }
    }

    /// The one key of all folders that starts with these digits. What one folder cannot give
    /// another may: `unreadable` is told of it.
    ///
    /// # Errors
    /// No key starts so, several do, or these are no digits of a key.
    pub fn find(&self, prefix: &str, unreadable: &mut dyn FnMut(&CacheError)) -> Result<CacheKey, FindError> {
        let mut found: Vec<CacheKey> = Vec::new();
        for store in self.tiers().iter().filter_map(|tier| tier.store()) {
            match store.find(prefix) {
                Ok(key) => found.push(key),
                Err(FindError::Ambiguous { keys, .. }) => found.extend(keys),
                Err(FindError::None(_)) => {}
                Err(FindError::Cache(error)) => unreadable(&error),
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [] => Err(FindError::None(prefix.to_owned())),
            [key] => Ok(*key),
            _ => Err(FindError::Ambiguous {
                prefix: prefix.to_owned(),
                keys: found,
            }),
        }
    }

    /// The entry that a request would be given, with its texts, and the tier that has it.
    ///
    /// # Errors
    /// No tier has it, or the last one that does cannot give it.
    pub fn find_whole(&self, key: &CacheKey) -> Result<(Whole, TierName), FindError> {
        let mut wrong = FindError::None(key.hex());
        for tier in self.tiers() {
            match tier.whole(key) {
                Load::Found(whole) => return Ok((*whole, tier.name().clone())),
                Load::Bad(fault) => wrong = FindError::Bad { key: *key, fault },
                Load::Unavailable(error) => wrong = error.into(),
                Load::Absent => {}
            }
        }
        Err(wrong)
    }
}

impl Summary {
    /// The constants that differ from the family's defaults, as people write them; all, if
    /// the registry does not know the family.
    #[must_use]
    pub fn variant(&self, registry: &Registry) -> String {
        let family = registry.get(&self.family).ok();
        let family = family.or_else(|| registry.formerly(&self.family).map(|(family, _)| family));
        let differs = |name: &str, value: &Value| {
            let known = family.and_then(|f| f.constants.get(name));
            known.is_none_or(|constant| constant.default.to_json() != *value)
        };
        let constants = self.constants.iter();
        let set: Vec<_> = constants
            .filter(|(name, value)| differs(name, value))
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect();
        if set.is_empty() {
            "defaults".to_owned()
        } else {
            set.join(" ")
        }
    }
}

/// A constant's value as a flag would give it.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a list of entries is ordered by, the least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The key.
    #[default]
    Key,
    /// The family's name.
    Family,
    /// The architecture's number.
    Arch,
    /// Bytes of the file.
    Size,
    /// When it was made.
    Created,
    /// When it was last used.
    Used,
    /// The most registers that an entry point uses.
    Registers,
    /// Spilled bytes of all entry points.
    Spills,
    /// Time in the compiler.
    Compile,
    /// The tier's name.
    Tier,
}

impl Order {
    /// Every order by its name.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("key", Self::Key),
        ("family", Self::Family),
        ("arch", Self::Arch),
        ("size", Self::Size),
        ("created", Self::Created),
        ("used", Self::Used),
        ("registers", Self::Registers),
        ("spills", Self::Spills),
        ("compile", Self::Compile),
        ("tier", Self::Tier),
    ];

    /// Sorts; bad entries, of which nothing is known, come first, and equal ones by key.
    pub fn sort(self, entries: &mut [Listed]) {
        let number = |one: &Listed, of: fn(&Summary) -> u64| one.record.summary.as_ref().map_or(0, of);
        let compare = |a: &Listed, b: &Listed| -> Ordering {
            let numbers = |of: fn(&Summary) -> u64| number(a, of).cmp(&number(b, of));
            match self {
                Self::Key => Ordering::Equal,
                Self::Family => family_of(a).cmp(family_of(b)),
                Self::Arch => numbers(|s| u64::from(s.arch.number())),
                Self::Size => a.record.bytes.cmp(&b.record.bytes),
                Self::Created => numbers(|s| s.created_unix_ms),
                Self::Used => a.record.used_unix_ms.cmp(&b.record.used_unix_ms),
                Self::Registers => numbers(Summary::registers),
                Self::Spills => numbers(Summary::spill_bytes),
                Self::Compile => numbers(|s| s.compile_us),
                Self::Tier => a.tier.cmp(&b.tier),
            }
        };
        entries.sort_by(|a, b| compare(a, b).then(a.record.key.cmp(&b.record.key)));
    }
}

fn family_of(one: &Listed) -> &str {
    one.record.summary.as_ref().map_or("", |summary| &summary.family)
}

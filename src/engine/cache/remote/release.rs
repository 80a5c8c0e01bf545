//! Whole releases: a bundle by its digest, and a name that is moved last.
//!
//! Invariant: a name leads to a bundle that is there whole, and what is pulled has the
//! digest that the name says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::blobs::{Done, Put, Trouble};
use super::{Inner, Remote};
use crate::engine::cache::store::error::CacheError;

/// How long one request may take: nobody who starts waits for it.
const PATIENCE: Duration = Duration::from_mins(5);
/// No bundle is longer.
pub(super) const BUNDLE_LIMIT: u64 = 1 << 30;
/// The file of a name is that of a digest.
const NAME_LIMIT: u64 = 128;

/// What is pushed and pulled: a name, or the digest of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// What people call it.
    Name(String),
    /// The hex SHA-256 of the bundle.
    Digest(String),
}

impl Release {
    /// Reads a name, which a digest is not.
    ///
    /// # Errors
    /// What would be right, in one line.
    pub fn name(text: &str) -> Result<String, String> {
        match text.parse()? {
            Self::Name(name) => Ok(name),
            Self::Digest(_) => Err("a digest is what comes out: expected a name".to_owned()),
        }
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(digest) = text.strip_prefix("sha256:") {
            let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if digest.len() == 64 && digest.chars().all(is_hex) {
                return Ok(Self::Digest(digest.to_owned()));
            }
            return Err("expected sha256: and 64 lower-case hex digits".to_owned());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && text.len() <= 100 && text.chars().all(is_plain) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(
            "expected a name of at most 100 letters, digits and ._-, which begins with a letter or digit, or \
             sha256: and a digest"
                .to_owned(),
        )
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
        }
    }
}

impl Remote {
    /// Puts a bundle there, and then lets the name lead to it; gives its digest, or, in a
    /// registry, that of the manifest.
    ///
    /// # Errors
    /// The store did not take it.
    pub fn push_bundle(&self, name: &str, bundle: Vec<u8>) -> Result<String, CacheError> {
        self.0.push_bundle(name, bundle)
    }

    /// The bundle of a release; `None`: the store has none of this name or digest.
    ///
    /// # Errors
    /// It could not be asked, or gave something else.
    pub fn pull_bundle(&self, release: &Release) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.pull_bundle(release)
    }
}

impl Inner {
    fn push_bundle(&self, name: &str, bundle: Vec<u8>) -> Result<String, CacheError> {
        if bundle.len() as u64 > BUNDLE_LIMIT {
            let reason = format!("{} bytes are more than a bundle may have", bundle.len());
            return Err(CacheError::Tier(reason));
        }
        let digest = hex::encode(Sha256::digest(&bundle));
        let path = path_of(&digest);
        self.request(|blobs| {
            if let Some(releases) = blobs.releases() {
                return releases.push(name, &bundle, PATIENCE);
            }
            // Of this digest it is these bytes, unless somebody tampered with them.
            if blobs.put(&path, bundle.clone(), Put::IfAbsent, PATIENCE)? == Done::WasThere {
                let there = match blobs.get(&path, BUNDLE_LIMIT, PATIENCE) {
                    Err(Trouble::TooLong(_)) => None,
                    other => other?,
                };
                if there.as_ref() != Some(&bundle) {
                    blobs.put(&path, bundle, Put::Replace, PATIENCE)?;
                }
            }
            let line = format!("{digest}\n").into_bytes();
            blobs.put(&format!("v2/names/{name}"), line, Put::Replace, PATIENCE)?;
            Ok(digest)
        })
    }

    fn pull_bundle(&self, release: &Release) -> Result<Option<Vec<u8>>, CacheError> {
        let in_its_way = self.request(|blobs| {
            let releases = blobs.releases();
            releases
                .map(|releases| releases.pull(release, PATIENCE))
                .transpose()
        })?;
        if let Some(pulled) = in_its_way {
            return Ok(pulled);
        }
        let digest = match release {
            Release::Digest(digest) => digest.clone(),
            Release::Name(name) => {
                let path = format!("v2/names/{name}");
                let Some(line) = self.request(|blobs| blobs.get(&path, NAME_LIMIT, PATIENCE))? else {
                    return Ok(None);
                };
                let line = String::from_utf8_lossy(&line);
                match format!("sha256:{}", line.trim_end()).parse() {
                    Ok(Release::Digest(digest)) => digest,
                    _ => {
                        return Err(CacheError::Tier(format!(
                            "what lies under the name {name} is not a digest"
                        )));
                    }
                }
            }
        };
        let path = path_of(&digest);
        let bundle = self.request(|blobs| blobs.get(&path, BUNDLE_LIMIT, PATIENCE))?;
        match bundle {
            Some(bundle) if hex::encode(Sha256::digest(&bundle)) != digest => Err(CacheError::Tier(
                "the bundle does not fit its digest: it was altered, or cut short".to_owned(),
            )),
            None if matches!(release, Release::Name(_)) => Err(CacheError::Tier(
                "the name is there, and its bundle is not: was it removed?".to_owned(),
            )),
            bundle => Ok(bundle),
        }
    }
}

fn path_of(digest: &str) -> String {
    format!("v2/bundles/{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_plain_name_or_a_digest() {
        let read = |text: &str| text.parse::<Release>();
        assert_eq!(read("rel-1.2"), Ok(Release::Name("rel-1.2".into())));
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(read(&digest).expect("a digest").to_string(), digest);
        for bad in [
            "",
            ".",
            "..",
            "-x",
            "a/b",
            "../x",
            "a b",
            "sha256:0a",
            "sha256:XX",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

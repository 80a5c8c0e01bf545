//! Keys as text, `name-N:base64`, and what the two halves do.
//!
//! Invariant: a secret key is shown by nothing but [`SecretKey::to_text`] and wiped from
//! memory when it is dropped, and a public one
//! verifies strictly: of one statement and key there is one signature.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::statement::Statement;

/// Bytes of a key's identity, which a signature names.
pub(super) const ID_LENGTH: usize = 8;
/// No name is longer.
const NAME_LIMIT: usize = 64;

/// Why something is no key, or not one to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is none.
    #[error(
        "`{0}` is not a key's name: expected letters, digits, `.`, `_` and `-`, a hyphen and a number, such as fleet-1"
    )]
    Name(String),
    /// It is no text of a key.
    #[error("a key is written NAME-N:BASE64, as `jitc sign keygen` prints it")]
    Form,
    /// Its bytes are no public key.
    #[error("{0}: these are not the bytes of a public key")]
    NotPublic(String),
    /// A secret key where a public one belongs: everybody can read that place.
    #[error("{0}: this is a secret key, which nobody else may see: make a new one, and name its public key")]
    Secret(String),
    /// Its bytes are no secret key.
    #[error("{0}: these are not the bytes of a secret key")]
    NotSecret(String),
    /// Two keys of one name: a signature could not say by which it is.
    #[error("two keys are called {0}: give each its own number")]
    TwoOfOneName(String),
    /// The file of a secret key that others may read, or another wrote.
    #[error("{}: {why}: run chmod 600 on it, as its owner", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with owner or mode.
        why: String,
    },
    /// It cannot be read or written; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Who may be trusted: a name with a number, and an Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

/// Who signs: a name with a number, and an Ed25519 key pair.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl PublicKey {
    /// Its name with its number, `fleet-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of the SHA-256 of its bytes: tells keys of one name apart, and
    /// authenticates nothing.
    pub(super) fn id(&self) -> [u8; ID_LENGTH] {
        let digest: [u8; 32] = Sha256::digest(self.key.as_bytes()).into();
        *digest.first_chunk().unwrap_or(&[0; ID_LENGTH])
    }

    /// Whether this key signed the statement so.
    pub(super) fn verifies(&self, statement: &Statement, signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.key.verify_strict(statement.as_bytes(), &signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parts(text)?;
        if bytes.len() == 64 {
            return Err(KeyError::Secret(name));
        }
        let key = <[u8; 32]>::try_from(bytes)
            .ok()
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .filter(|key| !key.is_weak());
        match key {
            Some(key) => Ok(Self { name, key }),
            None => Err(KeyError::NotPublic(name)),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, Base64::encode_string(self.key.as_bytes()))
    }
}

impl SecretKey {
    /// A new key of this name, from the system's own randomness.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        check_name(name)?;
        let mut seed = Zeroizing::new([0; 32]);
        let mut filled = 0;
        while filled < seed.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            let random = rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut seed[filled..], flags));
            filled += random.map_err(std::io::Error::from)?;
        }
        Ok(Self {
            name: name.to_owned(),
            key: SigningKey::from_bytes(&seed),
        })
    }

    /// The half that others may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// Signs a statement: `name-N:base64` of the key's identity and the signature.
    #[must_use]
    pub fn sign(&self, statement: &Statement) -> String {
        let signature = self.key.sign(statement.as_bytes()).to_bytes();
        let bytes = [&self.public().id()[..], &signature].concat();
        format!("{}:{}", self.name, Base64::encode_string(&bytes))
    }

    /// The secret as text, for a file that nobody else can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let base64 = Zeroizing::new(Base64::encode_string(&*pair));
        Zeroizing::new(format!("{}:{}", self.name, *base64))
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parts(text)?;
        let bytes = Zeroizing::new(bytes);
        let pair = <&[u8; 64]>::try_from(bytes.as_slice()).ok();
        let key = pair.and_then(|pair| SigningKey::from_keypair_bytes(pair).ok());
        match key {
            Some(key) => Ok(Self { name, key }),
            None => Err(KeyError::NotSecret(name)),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Name and bytes of a key or a signature.
pub(super) fn parts(text: &str) -> Result<(String, Vec<u8>), KeyError> {
    let (name, bytes) = text.trim().split_once(':').ok_or(KeyError::Form)?;
    check_name(name)?;
    let bytes = Base64::decode_vec(bytes).map_err(|_| KeyError::Form)?;
    Ok((name.to_owned(), bytes))
}

/// The number is what rotation counts up.
fn check_name(name: &str) -> Result<(), KeyError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good = name.len() <= NAME_LIMIT
        && name.bytes().all(plain)
        && name.rsplit_once('-').is_some_and(|(word, number)| {
            !word.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        });
    if good {
        Ok(())
    } else {
        let shown: String = name
            .chars()
            .take(NAME_LIMIT)
            .flat_map(char::escape_debug)
            .collect();
        Err(KeyError::Name(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_neither_half_as_the_other() {
        let secret = SecretKey::generate("fleet-1").expect("a key");
        let public = secret.public();
        let again: PublicKey = public.to_string().parse().expect("public");
        assert_eq!(again, public);
        let read: SecretKey = secret.to_text().parse().expect("secret");
        assert_eq!(read.public(), public);
        assert!(matches!(
            secret.to_text().parse::<PublicKey>(),
            Err(KeyError::Secret(_))
        ));
        assert!(matches!(
            public.to_string().parse::<SecretKey>(),
            Err(KeyError::NotSecret(_))
        ));
        let shown = format!("{secret:?}");
        assert!(shown.contains("fleet-1") && !shown.contains(&secret.to_text()[8..20]));
    }

    #[test]
    fn a_name_ends_in_a_number_and_is_plain() {
        for name in ["fleet-1", "ci.example_2-0", "a-b-12"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = format!("{}-1", "n".repeat(64));
        for name in [
            "",
            "fleet",
            "-1",
            "fleet-",
            "fleet-x",
            "a b-1",
            "\u{1b}[2J-1",
            &long,
        ] {
            let error = check_name(name).expect_err(name).to_string();
            assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_key_whose_signatures_fit_everything_is_none() {
        // The identity of the curve, a point of small order.
        let mut weak = [0; 32];
        weak[0] = 1;
        let text = format!("weak-1:{}", Base64::encode_string(&weak));
        assert!(matches!(text.parse::<PublicKey>(), Err(KeyError::NotPublic(_))));
        for text in ["fleet-1", "fleet-1:", "fleet-1:AAAA", "fleet-1:not base64"] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }
}

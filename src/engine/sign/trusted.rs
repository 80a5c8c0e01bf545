//! The keys that are trusted, and what they say of a statement.
//!
//! Invariant: one good signature of a trusted key suffices, and nothing else does. To rotate
//! is to list two keys for a while, to revoke is to list a key no more.

use std::fmt;
use std::str::FromStr;

use super::key::{ID_LENGTH, KeyError, PublicKey, SecretKey, parts};
use super::statement::Statement;

/// More signatures than this are looked at by nobody: each costs time.
pub const MAX_SIGNATURES: usize = 16;

/// Why something is not taken as signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFault {
    /// No signature at all.
    #[error("it is not signed")]
    Missing,
    /// By keys that are not trusted, or no longer.
    #[error("it is signed by {0}, which is not trusted here")]
    Unknown(String),
    /// By another key of a trusted key's name.
    #[error("it is signed by a key that is called {0} and is not the trusted one")]
    WrongKey(String),
    /// A trusted key's signature of something else.
    #[error("its signature by {0} is of something else")]
    Bad(String),
    /// Something that is no signature.
    #[error("its signature cannot be understood")]
    Malformed,
    /// More than an honest one has.
    #[error("it has more than {MAX_SIGNATURES} signatures")]
    TooMany,
}

/// The keys that are trusted; none, and nothing is asked to be signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// These keys.
    ///
    /// # Errors
    /// Two of one name.
    pub fn new(keys: Vec<PublicKey>) -> Result<Self, KeyError> {
        for (n, key) in keys.iter().enumerate() {
            if keys[..n]
                .iter()
                .any(|other| other.name() == key.name() && other != key)
            {
                return Err(KeyError::TwoOfOneName(key.name().to_owned()));
            }
        }
        Ok(Self(keys))
    }

    /// Whether no key is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.0
    }

    /// The trusted key that signed a statement, as one of these signatures shows.
    pub fn verify(&self, statement: &Statement, signatures: &[String]) -> Result<&PublicKey, SignatureFault> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(SignatureFault::TooMany);
        }
        let mut told = SignatureFault::Missing;
        for signature in signatures {
            match self.verify_one(statement, signature) {
                Ok(key) => return Ok(key),
                Err(fault) if weight(&fault) > weight(&told) => told = fault,
                Err(_) => {}
            }
        }
        Err(told)
    }

    fn verify_one(&self, statement: &Statement, signature: &str) -> Result<&PublicKey, SignatureFault> {
        let (name, bytes) = parts(signature).map_err(|_| SignatureFault::Malformed)?;
        let (id, signed) = bytes
            .split_first_chunk::<ID_LENGTH>()
            .ok_or(SignatureFault::Malformed)?;
        let signed = signed.try_into().map_err(|_| SignatureFault::Malformed)?;
        let Some(key) = self.0.iter().find(|key| key.name() == name) else {
            return Err(SignatureFault::Unknown(name));
        };
        if key.id() != *id {
            Err(SignatureFault::WrongKey(name))
        } else if key.verifies(statement, signed) {
            Ok(key)
        } else {
            Err(SignatureFault::Bad(name))
        }
    }
}

/// Signs a statement beside these signatures, instead of an earlier one of the key's name.
pub fn add_signature(
    signatures: &mut Vec<String>,
    key: &SecretKey,
    statement: &Statement,
) -> Result<(), SignatureFault> {
    let (signature, public) = (key.sign(statement), key.public());
    let by_it = |text: &str| parts(text).is_ok_and(|(name, _)| name == public.name());
    signatures.retain(|text| !by_it(text));
    if signatures.len() >= MAX_SIGNATURES {
        return Err(SignatureFault::TooMany);
    }
    signatures.push(signature);
    Ok(())
}

/// Of several that do not count, the most telling is told.
fn weight(fault: &SignatureFault) -> u8 {
    match fault {
        SignatureFault::Missing => 0,
        SignatureFault::Unknown(_) => 1,
        SignatureFault::Malformed | SignatureFault::TooMany => 2,
        SignatureFault::WrongKey(_) => 3,
        SignatureFault::Bad(_) => 4,
    }
}

impl FromStr for TrustedKeys {
    type Err = KeyError;

    /// Public keys, separated by commas or blanks.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let keys = words.filter(|word| !word.is_empty()).map(str::parse);
        Self::new(keys.collect::<Result<_, _>>()?)
    }
}

/// As it is read.
impl fmt::Display for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, key) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{key}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SecretKey;
    use super::*;

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(name).expect("a key")
    }

    fn trust(keys: &[&SecretKey]) -> TrustedKeys {
        TrustedKeys::new(keys.iter().map(|key| key.public()).collect()).expect("keys")
    }

    fn statement(n: u8) -> Statement {
        Statement::entry(&[n; 32], &[7; 32])
    }

    #[test]
    fn each_way_not_to_be_signed_has_its_own_fault() {
        let (ours, other, same_name) = (key("fleet-1"), key("other-1"), key("fleet-1"));
        let trusted = trust(&[&ours]);
        let verify = |signatures: &[String]| trusted.verify(&statement(1), signatures).map(drop);
        let name = || "fleet-1".to_owned();
        assert_eq!(verify(&[]), Err(SignatureFault::Missing));
        let unknown = other.sign(&statement(1));
        assert_eq!(
            verify(std::slice::from_ref(&unknown)),
            Err(SignatureFault::Unknown("other-1".into()))
        );
        let wrong = same_name.sign(&statement(1));
        assert_eq!(
            verify(&[unknown.clone(), wrong]),
            Err(SignatureFault::WrongKey(name()))
        );
        let bad = ours.sign(&statement(2));
        assert_eq!(
            verify(std::slice::from_ref(&bad)),
            Err(SignatureFault::Bad(name()))
        );
        for garbled in ["", "fleet-1", "fleet-1:AAAA", "fleet-1:===="] {
            assert_eq!(verify(&[garbled.to_owned()]), Err(SignatureFault::Malformed));
        }
        assert_eq!(verify(&vec![bad.clone(); 17]), Err(SignatureFault::TooMany));
        let good = ours.sign(&statement(1));
        assert_eq!(verify(&[bad, unknown, good]), Ok(()));
    }

    #[test]
    fn a_signature_of_an_entry_is_none_of_a_receipt_with_the_same_bytes() {
        let ours = key("fleet-1");
        let signed = [ours.sign(&Statement::receipt(&[1; 32]))];
        let trusted = trust(&[&ours]);
        assert!(trusted.verify(&Statement::receipt(&[1; 32]), &signed).is_ok());
        assert!(
            trusted
                .verify(&Statement::entry(&[1; 32], &[1; 32]), &signed)
                .is_err()
        );
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_found() {
        use base64ct::{Base64, Encoding};
        let ours = key("fleet-1");
        let (name, bytes) = parts(&ours.sign(&statement(1))).expect("a signature");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let text = format!("{name}:{}", Base64::encode_string(&flipped));
            assert!(
                trust(&[&ours]).verify(&statement(1), &[text]).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn keys_rotate_and_are_revoked_by_the_list() {
        let (old, new) = (key("fleet-1"), key("fleet-2"));
        let by_old = [old.sign(&statement(1))];
        let by_both = [old.sign(&statement(1)), new.sign(&statement(1))];
        let both = trust(&[&old, &new]);
        assert!(both.verify(&statement(1), &by_old).is_ok());
        let new_alone = trust(&[&new]);
        assert!(new_alone.verify(&statement(1), &by_both).is_ok());
        assert_eq!(
            new_alone.verify(&statement(1), &by_old).map(drop),
            Err(SignatureFault::Unknown("fleet-1".into()))
        );
    }

    #[test]
    fn a_list_is_read_as_it_is_written_and_two_of_one_name_are_refused() {
        let (one, two) = (key("fleet-1"), key("fleet-2"));
        let both = trust(&[&one, &two]);
        assert_eq!(both.to_string().parse::<TrustedKeys>().expect("keys"), both);
        let spaced = format!(" {} \n {} ", one.public(), two.public());
        assert_eq!(spaced.parse::<TrustedKeys>().expect("keys"), both);
        let again = format!("{0},{0}", one.public());
        assert!(again.parse::<TrustedKeys>().is_ok());
        let clash = format!("{},{}", one.public(), key("fleet-1").public());
        assert!(matches!(
            clash.parse::<TrustedKeys>(),
            Err(KeyError::TwoOfOneName(_))
        ));
    }
}

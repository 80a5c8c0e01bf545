//! Which tiers have to be signed, by whom.
//!
//! Invariant: once a key is trusted, nothing that somebody else may have written is taken
//! unsigned, unless it is said for that tier.

use crate::engine::refused::Refused;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::statement::Statement;
use super::trusted::{SignatureFault, TrustedKeys};

/// Whether what a tier has must be signed by a trusted key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Require {
    /// Never: owner and mode of the files decide.
    None,
    /// Once a key is trusted, what is not this user's or root's.
    #[default]
    Others,
    /// Always.
    Signed,
}

/// What may have to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Bundles, embedded ones and what is imported.
    Bundle,
    /// Folders that are only read from.
    ReadOnly,
    /// The folder that is written to.
    User,
    /// Tiers that a program adds.
    Other,
    /// Receipts.
    Receipt,
}

impl Place {
    const ALL: [Self; 5] = [
        Self::Bundle,
        Self::ReadOnly,
        Self::User,
        Self::Other,
        Self::Receipt,
    ];

    /// Its word in the setting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::ReadOnly => "read_only",
            Self::User => "user",
            Self::Other => "other",
            Self::Receipt => "receipt",
        }
    }
}

/// The rule of each place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requirements([Require; Place::ALL.len()]);

impl Requirements {
    /// The rule of a place.
    #[must_use]
    pub fn of(&self, place: Place) -> Require {
        self.0[place as usize]
    }

    /// The same with another rule of a place.
    #[must_use]
    pub fn with(mut self, place: Place, require: Require) -> Self {
        self.0[place as usize] = require;
        self
    }

    /// Whether a place must always be signed, which takes a trusted key.
    #[must_use]
    pub fn demand_a_key(&self) -> bool {
        self.0.contains(&Require::Signed)
    }
}

impl FromStr for Requirements {
    type Err = Refused;

    /// `none` or `signed`, for all places or, as `user=none,read_only=signed`, for some.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let expected = || {
            let places = Place::ALL.map(Place::name).join(", ");
            format!("expected none or signed, or a list such as user=none,read_only=signed, of {places}")
        };
        let rule = |word: &str| match word.trim() {
            "none" => Ok(Require::None),
            "signed" => Ok(Require::Signed),
            _ => Err(expected()),
        };
        if !text.contains('=') {
            return Ok(Self([rule(text)?; Place::ALL.len()]));
        }
        let mut requirements = Self::default();
        let mut said = Vec::new();
        for pair in text.split(',') {
            let (name, word) = pair.split_once('=').ok_or_else(expected)?;
            let place = Place::ALL.into_iter().find(|place| place.name() == name.trim());
            let place = place.filter(|place| !said.contains(place)).ok_or_else(expected)?;
            said.push(place);
            requirements = requirements.with(place, rule(word)?);
        }
        Ok(requirements)
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |place| match self.of(place) {
            Require::None => Some("none"),
            Require::Others => None,
            Require::Signed => Some("signed"),
        };
        let said = Place::ALL
            .into_iter()
            .filter_map(|place| Some(format!("{}={}", place.name(), word(place)?)));
        f.write_str(&said.collect::<Vec<_>>().join(","))
    }
}

/// The trusted keys, and the rule of each place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signing {
    keys: Arc<TrustedKeys>,
    requirements: Requirements,
}

impl Signing {
    /// These keys, under these rules.
    #[must_use]
    pub fn new(keys: TrustedKeys, requirements: Requirements) -> Self {
        Self {
            keys: Arc::new(keys),
            requirements,
        }
    }

    /// The trusted keys.
    #[must_use]
    pub fn keys(&self) -> &TrustedKeys {
        &self.keys
    }

    /// What is asked of a place.
    #[must_use]
    pub fn of(&self, place: Place) -> Admission {
        Admission {
            keys: Arc::clone(&self.keys),
            require: self.requirements.of(place),
        }
    }
}

/// What is asked of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    keys: Arc<TrustedKeys>,
    require: Require,
}

/// Nothing: no key is trusted.
impl Default for Admission {
    fn default() -> Self {
        Signing::default().of(Place::Other)
    }
}

impl Admission {
    /// The rule that is in force: without a trusted key nothing of others is asked to be
    /// signed.
    #[must_use]
    pub fn in_force(&self) -> Require {
        match self.require {
            Require::Others if self.keys.is_empty() => Require::None,
            rule => rule,
        }
    }

    /// Whether a trusted key signed this.
    pub fn verify(&self, statement: &Statement, signatures: &[String]) -> Result<(), SignatureFault> {
        self.keys.verify(statement, signatures).map(drop)
    }

    /// The same where nobody can say whose it is: then it counts as somebody else's.
    pub fn admit(&self, statement: &Statement, signatures: &[String]) -> Result<(), SignatureFault> {
        match self.in_force() {
            Require::None => Ok(()),
            Require::Others | Require::Signed => self.verify(statement, signatures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SecretKey;
    use super::*;

    #[test]
    fn rules_are_read_for_all_places_or_for_some() {
        let read = |text: &str| text.parse::<Requirements>();
        let all = read("signed").expect("rules");
        assert!(Place::ALL.iter().all(|place| all.of(*place) == Require::Signed));
        let some = read("user=none, read_only=signed").expect("rules");
        assert_eq!(some.of(Place::User), Require::None);
        assert_eq!(some.of(Place::ReadOnly), Require::Signed);
        assert_eq!(some.of(Place::Bundle), Require::Others);
        assert_eq!(some.to_string().parse(), Ok(some));
        for text in [
            "",
            "yes",
            "user=maybe",
            "users=none",
            "user=none,user=signed",
            "user=none,",
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with("expected none or signed"), "{error}");
        }
    }

    #[test]
    fn without_a_trusted_key_nothing_is_asked_unless_it_is_said() {
        let statement = Statement::entry(&[1; 32], &[2; 32]);
        let key = SecretKey::generate("fleet-1").expect("a key");
        let none = Signing::default();
        assert!(none.of(Place::Bundle).admit(&statement, &[]).is_ok());
        let keys = TrustedKeys::new(vec![key.public()]).expect("keys");
        let some = Signing::new(keys, Requirements::default().with(Place::User, Require::None));
        assert!(some.of(Place::User).admit(&statement, &[]).is_ok());
        let bundle = some.of(Place::Bundle);
        assert_eq!(bundle.admit(&statement, &[]), Err(SignatureFault::Missing));
        assert_eq!(bundle.admit(&statement, &[key.sign(&statement)]), Ok(()));
        let signed = Signing::new(TrustedKeys::default(), "signed".parse().expect("rules"));
        assert!(
            signed
                .of(Place::User)
                .admit(&statement, &[key.sign(&statement)])
                .is_err()
        );
    }
}

//! Why a request is no kernel: what was wrong, where it was written, what would be right.

use super::MAX_VARIANTS;
use crate::engine::config::Source;
use crate::engine::request::target::Arch;

/// Why a request is no kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A constant's value is illegal.
    #[error("{family}: {constant} ({origin}): {reason}")]
    Value {
        /// The family.
        family: String,
        /// The constant.
        constant: String,
        /// Where the value was written.
        origin: Source,
        /// What was wrong and what is legal.
        reason: String,
    },
    /// A constant's value is legal in none of the families that declare it.
    #[error("{constant} ({origin}): {reason}")]
    LegalNowhere {
        /// The constant.
        constant: String,
        /// Where the value was written.
        origin: Source,
        /// What was wrong, and what is legal in which family.
        reason: String,
    },
    /// Constants that no family takes together.
    #[error("{0}")]
    NoFamily(String),
    /// More variants than are made at once.
    #[error(
        "{what}: {count} variants are requested: at most {MAX_VARIANTS} are made at once; name fewer values"
    )]
    TooMany {
        /// The family, or the part of a matrix.
        what: String,
        /// How many, counted and not made.
        count: u64,
    },
    /// Nobody declares this constant.
    #[error("unknown constant `{constant}` ({origin}){hint}")]
    UnknownConstant {
        /// The name that nobody declares.
        constant: String,
        /// Where it was written.
        origin: Source,
        /// A suggestion, or nothing.
        hint: String,
    },
    /// Constants that do not go together.
    #[error("{family}: constraint `{rule}` does not hold for {values}: {because}")]
    Constraint {
        /// The family.
        family: String,
        /// The rule.
        rule: String,
        /// The values that it speaks of, with their sources.
        values: String,
        /// Why the rule is there.
        because: String,
    },
    /// A derived constant could not be worked out.
    #[error("{family}: {reason}")]
    Derived {
        /// The family.
        family: String,
        /// What went wrong.
        reason: String,
    },
    /// An arch that lacks what the family needs.
    #[error("{family}: {arch} is too old: expected {oldest} or newer")]
    TooOld {
        /// The family.
        family: String,
        /// What was asked for.
        arch: Arch,
        /// The oldest that will do.
        oldest: Arch,
    },
    /// A preset that the family does not have.
    #[error("{family}: preset ({origin}): {reason}")]
    Preset {
        /// The family.
        family: String,
        /// Where it was written.
        origin: Source,
        /// What was wrong and what there is.
        reason: String,
    },
    /// A preset on the command line that none of the families meant has.
    #[error("preset ({origin}): {reason}")]
    NoPreset {
        /// Where it was written.
        origin: Source,
        /// What was wrong, and which families have it or one of nearly that name.
        reason: String,
    },
    /// A constant that says otherwise than the former name of the family.
    #[error(
        "{family}: {constant} = {value} ({origin}) contradicts `{name}`, the former name of `{family}` with {meaning}"
    )]
    FormerName {
        /// The family.
        family: String,
        /// The constant.
        constant: String,
        /// What was asked for.
        value: String,
        /// Where it was written.
        origin: Box<Source>,
        /// The former name.
        name: Box<str>,
        /// What that stands for.
        meaning: Box<str>,
    },
    /// An arch that is none.
    #[error("arch ({origin}): {reason}")]
    Arch {
        /// Where it was written.
        origin: Source,
        /// What was wrong.
        reason: crate::engine::request::target::ArchError,
    },
}

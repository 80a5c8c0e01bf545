//! Families: sources, headers, declared constants, legal values, constraints.
//!
//! Invariant: a [`Family`] that exists is consistent. Its source uses only
//! declared names, its defaults are legal, its expressions parse and its entry
//! points' launch geometry refers to known names; all of that is checked when it
//! is read, not when somebody first needs it.

mod carried;
mod constants;
mod dispatch;
mod entry;
mod entry_text;
mod family;
mod fill;
mod findings;
mod folder;
mod given;
mod headers;
mod legal;
mod measure;
mod names;
mod neutral;
mod options;
mod parameter_file;
mod parameter_text;
mod parameters;
mod regions;
mod registry;

pub use carried::Templates;
pub(crate) use carried::{rust_of, texts_of};
pub use constants::Constant;
pub(crate) use constants::variable_of;
pub use dispatch::{Choosing, DEVICE_FACTS, Dispatch, DispatchRule, MAX_OUTCOMES};
pub(crate) use entry::fits;
pub use entry::{Axis, Entry, Size};
pub use family::{Constraint, Derived, Family, TemplateFile};
pub use fill::{Fill, FillKind};
pub(crate) use given::Given;
pub use legal::Legal;
pub use measure::{MAX_CANDIDATES, Measured, Search};
pub use names::{FormerName, NOTICE, NamedFamily, Preset};
pub use neutral::MAX_GENERAL;
pub(crate) use options::literals;
pub use options::{CompilerOptions, Define};
pub(crate) use parameter_text::declared;
pub use parameters::{
    Access, Dim, Element, MAX_PARAMETERS, MAX_SIZES, Optional, PARAMS_HEADER, Parameter, ParameterKind,
    ParameterList, Place, Rule,
};
pub use registry::Registry;

/// What is wrong with a family, or with asking for one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file could not be read.
    #[error("templates: {0}")]
    Read(#[from] std::io::Error),
    /// A family's file says something that it cannot.
    #[error("{file}: {reason}")]
    Declaration {
        /// The file, as users know it.
        file: String,
        /// What was wrong and what would be right.
        reason: String,
    },
    /// Nobody declares this family.
    #[error("unknown family `{name}`{hint}: known are {known}")]
    UnknownFamily {
        /// What was asked for.
        name: String,
        /// A suggestion, or nothing.
        hint: String,
        /// Every family.
        known: String,
    },
}

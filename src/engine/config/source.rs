//! A value as text, and where it was written.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag, as written on the command line.
    Flag(String),
    /// A variable of the real environment.
    Variable(String),
    /// A line of the environment file.
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A line of `jitc.toml`.
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A line of a matrix or a trace, which the message names.
    Line(usize),
    /// It was found in or above the working folder.
    WorkingFolder,
    /// A preset, which whoever named it asked for.
    Preset(String),
    /// A former name of a family, which stands for it.
    FormerName(String),
    /// Set by the program that embeds the library.
    Api,
    /// Nobody wrote it: the declared default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Of a program that embeds this, such as a keyword of Python.
            Self::Flag(word) if !word.starts_with('-') => write!(f, "argument {word}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::EnvFile { path, line } => {
                write!(f, "environment file {}, line {line}", path.display())
            }
            Self::ConfigFile { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Line(line) => write!(f, "line {line}"),
            Self::WorkingFolder => f.write_str("found from the working folder"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::FormerName(name) => write!(f, "the name {name}"),
            Self::Api => f.write_str("the embedding program"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as text, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The text. A list is separated by commas.
    pub value: String,
    /// Where it was written.
    pub source: Source,
}

/// A value byte for byte, and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) value: OsString,
    pub(super) source: Source,
}

impl From<Setting> for Raw {
    fn from(setting: Setting) -> Self {
        Self {
            value: setting.value.into(),
            source: setting.source,
        }
    }
}

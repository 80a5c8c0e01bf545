//! What can be wrong with settings.

use std::fmt;
use std::path::PathBuf;

use super::Source;

/// What went wrong while reading settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that was named could not be read.
    #[error("{what}: {source}")]
    Read {
        /// Which setting named it.
        what: String,
        /// The error, which names the path.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was wrong and what would be right.
        reason: String,
    },
    /// A variable of this program is not what it should be.
    #[error("environment variable {name} {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// What was wrong and what would be right.
        reason: String,
    },
    /// The working folder's config file may be somebody else's word, and has a policy,
    /// which is not passed over.
    #[error("{0}")]
    Policy(PassedOver),
    /// A setting has a value that it cannot have.
    #[error("{name} = `{value}` ({origin}): {expected}")]
    Value {
        /// The setting.
        name: String,
        /// What was written.
        value: String,
        /// Where it was written.
        origin: Source,
        /// What would be right.
        expected: String,
    },
}

/// Settings of a config file that nobody named which are not obeyed, since somebody else
/// may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// The file.
    pub path: PathBuf,
    /// Why it is not obeyed: `belongs to user 1000`.
    pub reason: String,
    /// The settings, and the line of each.
    pub settings: Vec<(String, usize)>,
}

/// One line: the file, why, which settings, and how to have them.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let settings = self.settings.iter();
        let settings: Vec<String> = settings
            .map(|(name, line)| format!("{name} (line {line})"))
            .collect();
        write!(
            f,
            "{path} {}, so these settings are not obeyed: {}; name the file to obey it \
             (--config {path}, or JITC_CONFIG={path})",
            self.reason,
            settings.join(", ")
        )
    }
}

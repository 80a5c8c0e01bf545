//! The one table of settings: what they are called, and where they may be written.
//!
//! Invariant: a name of this table cannot be that of a constant, whose flag and
//! variable would be the setting's own: [`why_reserved`] says so when a family is read.

/// A setting, or a flag of the program, by its name in `jitc.toml`'s spelling.
#[derive(Debug, Clone, Copy)]
pub struct KnownSetting {
    /// Its name, `cache_dir`. Its flag, if it has one, is `--cache-dir`.
    pub name: &'static str,
    /// Whether `jitc.toml` may set it.
    pub in_file: bool,
    /// Whether a variable sets it: `JITC_` and the name in capitals.
    pub variable: bool,
}

const fn known(name: &'static str, in_file: bool, variable: bool) -> KnownSetting {
    KnownSetting {
        name,
        in_file,
        variable,
    }
}

/// Every setting, every flag that all verbs take, and what means one thing in all that do.
pub const SETTINGS: &[KnownSetting] = &[
    known("arch", true, true),
    known("cache_dir", true, true),
    known("cache_max_entries", true, true),
    known("cache_max_size", true, true),
    known("cache_ro", true, true),
    known("cache_trust", true, true),
    known("color", false, false),
    known("compile_memory", true, true),
    known("compile_timeout", true, true),
    known("config", false, true),
    known("constants", true, false),
    known("env_file", true, true),
    known("help", false, false),
    known("jobs", true, true),
    known("json", false, false),
    known("layers", false, true),
    known("lock_timeout", true, true),
    known("miss", true, true),
    known("nvrtc", true, true),
    known("offline", true, true),
    known("path", false, true),
    known("preset", true, true),
    known("program", false, true),
    known("quiet", false, false),
    known("require_receipt", true, true),
    known("set", false, false),
    known("templates", true, true),
    known("tokens", false, false),
    known("trace", true, true),
    known("verbose", false, false),
    known("version", false, false),
];

/// Names that `jitc.toml` may have at its top level.
pub(super) fn in_file() -> impl Iterator<Item = &'static str> + Clone {
    SETTINGS.iter().filter(|s| s.in_file).map(|s| s.name)
}

/// Why a constant cannot have this name, if it cannot.
#[must_use]
pub fn why_reserved(name: &str) -> Option<String> {
    // Flags and variables do not tell `cache_dir` from `Cache_Dir`.
    let setting = SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name))?;
    let what = if setting.in_file || setting.variable {
        "a setting"
    } else {
        "a flag"
    };
    Some(format!(
        "is the name of {what}, and cannot be that of a constant: choose another"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_listed_once_and_in_order() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn a_setting_in_other_letters_is_reserved_too() {
        assert!(why_reserved("Cache_Dir").is_some());
        assert!(why_reserved("cache_dirs").is_none());
    }
}

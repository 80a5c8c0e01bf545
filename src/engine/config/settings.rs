//! The one table of settings: what they are called, where they may be written, and what
//! they may do.
//!
//! Invariant: a name of this table cannot be that of a constant, whose flag and
//! variable would be the setting's own: [`why_reserved`] says so when a family is read.

/// What a setting may do, which decides who may say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It neither runs nor redirects anything: a file that nobody named may say it.
    Harmless,
    /// It names what is run, read or written, or how much of it.
    Acts,
    /// It forbids something: whoever passes it over allows that.
    Policy,
}

/// A setting, or a flag of the program, by its name in `jitc.toml`'s spelling.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct KnownSetting {
    /// Its name, `cache_dir`. Its flag, if it has one, is `--cache-dir`.
    pub name: &'static str,
    /// Whether `jitc.toml` may set it.
    pub in_file: bool,
    /// Whether a variable sets it: `JITC_` and the name in capitals.
    pub variable: bool,
    /// Whether its value is a path, which may be any bytes.
    pub is_path: bool,
    /// What it may do.
    pub effect: Effect,
    /// What holds where nobody says it, for people; empty where that is nothing.
    pub default: &'static str,
}

impl KnownSetting {
    const fn in_file(mut self) -> Self {
        self.in_file = true;
        self
    }

    const fn variable(mut self) -> Self {
        self.variable = true;
        self
    }

    const fn path(mut self) -> Self {
        self.is_path = true;
        self
    }

    const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    const fn default(mut self, words: &'static str) -> Self {
        self.default = words;
        self
    }

    /// The variable that sets it, `JITC_CACHE_DIR`, whether or not one does.
    #[must_use]
    pub fn variable_name(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase())
    }
}

/// What the names of this program's variables begin with.
pub const PREFIX: &str = "JITC_";

const fn known(name: &'static str) -> KnownSetting {
    KnownSetting {
        name,
        in_file: false,
        variable: false,
        is_path: false,
        effect: Effect::Acts,
        default: "",
    }
}

/// Every setting, every flag that all verbs take, and what means one thing in all that do.
#[rustfmt::skip]
pub const SETTINGS: &[KnownSetting] = &[
    known("arch").in_file().variable().effect(Effect::Harmless).default("of the GPUs that are here, else of all supported ones"),
    known("arch_match").in_file().variable().default("exact"),
    known("cache_dir").in_file().variable().path(),
    known("cache_max_entries").in_file().variable().default("50000"),
    known("cache_max_size").in_file().variable().default("4GiB"),
    known("cache_ro").in_file().variable().path(),
    known("cache_trust").in_file().variable().default("0"),
    known("color").in_file().effect(Effect::Harmless).default("auto"),
    known("compile_memory").in_file().variable().default("8GiB"),
    known("compile_timeout").in_file().variable().default("5m"),
    known("config").variable().path(),
    known("constants").in_file().effect(Effect::Harmless),
    known("env_file").in_file().variable().path(),
    known("help"),
    known("jobs").in_file().variable().effect(Effect::Harmless).default("cores, as far as memory allows"),
    known("json"),
    known("layers").variable().default("all"),
    known("lock_timeout").in_file().variable().default("as long as its holder may compile, and 10 s"),
    known("miss").in_file().variable().effect(Effect::Policy).default("compile"),
    known("nvrtc").in_file().variable().path().default("looked for, else fetched"),
    known("offline").in_file().variable().effect(Effect::Policy).default("false"),
    known("path").variable().default("auto"),
    known("preset").in_file().variable().effect(Effect::Harmless),
    known("profile").in_file().variable().default("false"),
    known("program").variable().path().default("looked for"),
    known("quiet"),
    known("remote").in_file().variable(),
    known("require").in_file().variable().effect(Effect::Policy).default("once a key is trusted, what is not this user's or root's"),
    known("require_receipt").in_file().variable().path().effect(Effect::Policy),
    known("set"),
    known("templates").in_file().variable().path().default("the built-in families"),
    known("tokens"),
    known("toolchain").in_file().variable().default("found; where nothing may be compiled or a bundle is embedded, of those first"),
    known("trace").in_file().variable().path(),
    known("trace_hits").in_file().variable().default("false"),
    known("trusted_keys").in_file().variable().effect(Effect::Policy),
    known("verbose"),
    known("version"),
];

/// Variables of others that are listened to.
pub const OTHERS: &[&str] = &[
    "CONDA_PREFIX",
    "CUDA_HOME",
    "CUDA_PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "NVRTC_APPEND_FLAGS",
    "NVRTC_PREPEND_FLAGS",
    "RUST_LOG",
    "VIRTUAL_ENV",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
];

/// The setting of this name.
#[must_use]
pub fn setting(name: &str) -> Option<&'static KnownSetting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting of this variable, `JITC_CACHE_DIR`.
#[must_use]
pub fn of_variable(variable: &str) -> Option<&'static KnownSetting> {
    let by_variable = |s: &&KnownSetting| s.variable && s.variable_name() == variable;
    SETTINGS.iter().find(by_variable)
}

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

    #[test]
    fn a_file_that_nobody_named_says_only_these() {
        let harmless = SETTINGS.iter().filter(|s| s.effect == Effect::Harmless);
        let names: Vec<&str> = harmless.map(|s| s.name).collect();
        assert_eq!(names, ["arch", "color", "constants", "jobs", "preset"]);
        let policies = SETTINGS.iter().filter(|s| s.effect == Effect::Policy);
        let names: Vec<&str> = policies.map(|s| s.name).collect();
        assert_eq!(
            names,
            ["miss", "offline", "require", "require_receipt", "trusted_keys"]
        );
    }
}

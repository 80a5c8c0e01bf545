//! Settings of the cache: its tiers and bounds, and what a miss may do.
//!
//! Invariant: a value that cannot be is an error that says where it was written;
//! none falls back to a default.

use crate::engine::refused::Refused;
use std::time::Duration;

use super::{Config, ConfigError, Setting, Source};
use crate::engine::sign::{KeyError, Requirements, TrustedKeys};

/// What a request may do where no tier has its kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissPolicy {
    /// Compile.
    #[default]
    Compile,
    /// Compile, and warn of it.
    Warn,
    /// Compile, and launch a more general variant meanwhile, where one is prepared and its
    /// family says that it gives the same bits. Asked for by
    /// [`Jit::load_behind`](../jit/struct.Jit.html#method.load_behind); elsewhere as
    /// [`Compile`](Self::Compile).
    Behind,
    /// Nothing: the request fails with the command that would warm its kernel.
    Forbid,
}

/// Which archs' code answers a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchMatch {
    /// That of the requested arch.
    #[default]
    Exact,
    /// Where that is missing, also that of another arch which every such GPU runs, unless
    /// the family says that its bits depend on the arch.
    Compatible,
    /// The same, and where there is none the PTX of an older virtual arch, such as
    /// `compute_90`, which the driver compiles: where compiling is allowed.
    Ptx,
}

/// Whose files the folders of the cache may hold, beside this user's and root's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheTrust {
    /// Nobody's; root's group may write, as images are made so.
    #[default]
    Own,
    /// Those of the groups of this process, which fill one cache together.
    Group,
    /// Anybody's.
    Anybody,
}

impl From<bool> for CacheTrust {
    fn from(anybody: bool) -> Self {
        if anybody { Self::Anybody } else { Self::Own }
    }
}

impl std::fmt::Display for CacheTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Own => "0",
            Self::Group => "group",
            Self::Anybody => "1",
        })
    }
}

impl Config {
    /// Which archs' code answers a request.
    pub fn arch_match(&self) -> Result<ArchMatch, ConfigError> {
        let setting = self.text("arch_match");
        let found = self::parsed("arch_match", setting, |text| match text {
            "exact" => Ok(ArchMatch::Exact),
            "compatible" => Ok(ArchMatch::Compatible),
            "ptx" => Ok(ArchMatch::Ptx),
            _ => Err("expected exact, compatible or ptx".into()),
        });
        Ok(found?.unwrap_or_default())
    }

    /// Whose files to load, beside this user's and root's.
    pub fn cache_trust(&self) -> Result<CacheTrust, ConfigError> {
        let setting = self.text("cache_trust");
        let trust = self::parsed("cache_trust", setting, |text| match text {
            "0" | "false" | "no" | "off" => Ok(CacheTrust::Own),
            "1" | "true" | "yes" | "on" => Ok(CacheTrust::Anybody),
            "group" => Ok(CacheTrust::Group),
            _ => Err("expected 0, 1 or group".into()),
        });
        Ok(trust?.unwrap_or_default())
    }

    /// The keys whose signatures are trusted.
    pub fn trusted_keys(&self) -> Result<TrustedKeys, ConfigError> {
        let Some(Setting { value, source }) = self.text("trusted_keys") else {
            return Ok(TrustedKeys::default());
        };
        value.parse().map_err(|error| {
            // A secret that was written there by mistake is not shown.
            let shown = match value.split_once(':') {
                Some((name, _)) => format!("{name}:..."),
                None => "...".to_owned(),
            };
            bad_value("trusted_keys", shown, source, KeyError::to_string(&error))
        })
    }

    /// What must be signed by a trusted key.
    pub fn require(&self) -> Result<Requirements, ConfigError> {
        let setting = self.text("require");
        Ok(self::parsed("require", setting, str::parse)?.unwrap_or_default())
    }

    /// The most bytes that the user's folder may hold, if it was said.
    pub fn cache_max_size(&self) -> Result<Option<u64>, ConfigError> {
        let setting = self.text("cache_max_size");
        self::parsed("cache_max_size", setting, parse_bytes)
    }

    /// The most entries that it may hold, if it was said.
    pub fn cache_max_entries(&self) -> Result<Option<u64>, ConfigError> {
        let setting = self.text("cache_max_entries");
        let whole = |text: &str| text.parse().map_err(|_| "expected a whole number".into());
        self::parsed("cache_max_entries", setting, whole)
    }

    /// How long to wait for another builder of the same key, if it was said.
    pub fn lock_timeout(&self) -> Result<Option<Duration>, ConfigError> {
        let setting = self.text("lock_timeout");
        self::parsed("lock_timeout", setting, parse_age)
    }

    /// Whether a trace has requests that were hits, too.
    pub fn trace_hits(&self) -> Result<bool, ConfigError> {
        self.switch("trace_hits")
    }

    /// What a miss may do.
    pub fn miss(&self) -> Result<MissPolicy, ConfigError> {
        let setting = self.text("miss");
        let policy = self::parsed("miss", setting, |text| match text {
            "compile" => Ok(MissPolicy::Compile),
            "warn" => Ok(MissPolicy::Warn),
            "behind" => Ok(MissPolicy::Behind),
            "forbid" => Ok(MissPolicy::Forbid),
            _ => Err("expected compile, warn, behind or forbid".into()),
        });
        Ok(policy?.unwrap_or_default())
    }
}

pub(super) fn parsed<T>(
    name: &str,
    setting: Option<Setting>,
    parse: impl Fn(&str) -> Result<T, Refused>,
) -> Result<Option<T>, ConfigError> {
    let Some(Setting { value, source }) = setting else {
        return Ok(None);
    };
    match parse(&value) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(expected) => Err(bad_value(name, value, source, expected.into())),
    }
}

pub(super) fn bad_value(name: &str, value: String, origin: Source, expected: String) -> ConfigError {
    ConfigError::Value {
        name: name.into(),
        value,
        origin,
        expected,
    }
}

/// A number of bytes with its unit: `4096B`, `64KiB`, `512 MB`, `4G`; nought needs none. Units
/// are powers of 1024 unless they end in a plain `B` after a letter (`MB` is 1,000,000).
pub fn parse_bytes(text: &str) -> Result<u64, Refused> {
    let expected = || Refused::from("expected a size with its unit, such as 4096B, 64KiB, 512MB or 4GiB");
    let (number, unit) = split_unit(text).ok_or_else(expected)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" if number == 0 => 1,
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(expected()),
    };
    number.checked_mul(factor).ok_or_else(expected)
}

/// A span of time with its unit: `90s`, `15m`, `12h`, `30d`, `4w`; nought needs none.
pub fn parse_age(text: &str) -> Result<Duration, Refused> {
    let expected =
        || Refused::from("expected a span of time with its unit, such as 90s, 15m, 12h, 30d or 4w");
    let (number, unit) = split_unit(text).ok_or_else(expected)?;
    let seconds: u64 = match unit {
        "" if number == 0 => 1,
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(expected()),
    };
    let seconds = number.checked_mul(seconds).ok_or_else(expected)?;
    Ok(Duration::from_secs(seconds))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Environment, Flags};
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let env: Environment = pairs.iter().copied().collect();
        Config::load(Flags::default(), env).expect("config")
    }

    #[test]
    fn sizes_and_ages_are_read_with_their_units() {
        assert_eq!(parse_bytes("4096B"), Ok(4096));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("512 MB"), Ok(512_000_000));
        assert_eq!(parse_bytes("4G"), Ok(4 << 30));
        assert_eq!(parse_age("0"), Ok(Duration::ZERO));
        assert_eq!(parse_age("30d"), Ok(Duration::from_hours(720)));
        for bad in [
            "",
            "x",
            "-1",
            "4096",
            "4 parsecs",
            "99999999999999999999",
            "18446744073709551615w",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_that_is_none_is_refused_with_its_origin() {
        assert_eq!(config(&[]).miss().expect("policy"), MissPolicy::Compile);
        let forbid = config(&[("JITC_MISS", "forbid")]);
        assert_eq!(forbid.miss().expect("policy"), MissPolicy::Forbid);
        let error = config(&[("JITC_MISS", "never")]).miss().expect_err("refused");
        assert_eq!(
            error.to_string(),
            "miss = `never` (environment variable JITC_MISS): expected compile, warn, behind or forbid"
        );
    }

    #[test]
    fn whom_the_cache_trusts_is_one_of_three_words() {
        let trust = |text: &str| config(&[("JITC_CACHE_TRUST", text)]).cache_trust();
        assert_eq!(config(&[]).cache_trust().expect("trust"), CacheTrust::Own);
        for (text, wanted) in [
            ("0", CacheTrust::Own),
            ("false", CacheTrust::Own),
            ("group", CacheTrust::Group),
            ("1", CacheTrust::Anybody),
            ("on", CacheTrust::Anybody),
        ] {
            assert_eq!(trust(text).expect("trust"), wanted, "{text}");
        }
        let error = trust("all").expect_err("refused").to_string();
        assert!(error.ends_with("expected 0, 1 or group"), "{error}");
    }

    #[test]
    fn an_arch_match_that_is_none_is_refused_with_its_origin() {
        assert_eq!(config(&[]).arch_match().expect("match"), ArchMatch::Exact);
        let compatible = config(&[("JITC_ARCH_MATCH", "compatible")]);
        assert_eq!(compatible.arch_match().expect("match"), ArchMatch::Compatible);
        let error = config(&[("JITC_ARCH_MATCH", "any")])
            .check_values()
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            "arch_match = `any` (environment variable JITC_ARCH_MATCH): expected exact, compatible or ptx"
        );
    }

    #[test]
    fn a_key_or_a_rule_that_is_none_is_refused_and_a_secret_is_not_shown() {
        use crate::engine::sign::SecretKey;
        let key = SecretKey::generate("fleet-1").expect("a key");
        let public = config(&[("JITC_TRUSTED_KEYS", &key.public().to_string())]);
        assert_eq!(public.trusted_keys().expect("keys").keys(), [key.public()]);
        let secret = config(&[("JITC_TRUSTED_KEYS", &key.to_text())]);
        let error = secret.check_values().expect_err("refused").to_string();
        assert!(error.contains("this is a secret key"), "{error}");
        assert!(!error.contains(&key.to_text()[8..24]), "{error}");
        let bare = key.to_text()[8..].to_owned();
        let error = config(&[("JITC_TRUSTED_KEYS", &bare)]).check_values();
        assert!(!error.expect_err("refused").to_string().contains(&bare[..16]));
        let error = config(&[("JITC_REQUIRE", "sined")])
            .check_values()
            .expect_err("refused");
        assert!(error.to_string().contains("expected none or signed"), "{error}");
    }

    #[test]
    fn read_only_folders_keep_their_order() {
        let folders = config(&[("JITC_CACHE_RO", "/a:/b::/c")]).cache_ro();
        assert_eq!(folders, ["/a", "/b", "/c"].map(PathBuf::from));
    }
}

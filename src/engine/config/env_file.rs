//! The environment file: `KEY=VALUE` lines for processes that lose their
//! environment on the way (engine subprocesses do).
//!
//! Invariant: set-if-absent. The real environment always wins, and only names
//! that somebody asks for (declared ones) are ever taken. The file is read whole, or
//! refused: no line of it is dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::settings::PREFIX;
use super::{ConfigError, Setting, Source, text_file};

/// A parsed environment file.
#[derive(Debug, Clone, Default)]
pub struct EnvFile {
    path: PathBuf,
    values: BTreeMap<String, (usize, String)>,
}

impl EnvFile {
    /// Reads and parses the file: regular, at most 1 MiB, UTF-8 with or without a byte
    /// order mark.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let (text, _) = text_file::read(path).map_err(|source| ConfigError::Read {
            what: "environment file".into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Parses `KEY=VALUE` lines, split at the first `=`; blanks around both are left out,
    /// and an `export ` before the name is allowed. Blank lines and lines that start with
    /// `#` are skipped. Of a repeated name the last line counts. An empty value counts as
    /// unset; of a `JITC_` variable it is an error, and so are quotes around one, which
    /// would be part of the value.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        // Not `str::lines`: a carriage return elsewhere than at the end of a line would
        // hide what follows it.
        for (index, line) in text.split('\n').enumerate() {
            let refused = |reason: String| ConfigError::Syntax {
                path: path.to_path_buf(),
                line: index + 1,
                reason,
            };
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.contains(['\r', '\0']) {
                return Err(refused(
                    "expected lines that end in a line feed, and no NUL".into(),
                ));
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let assignment = line.strip_prefix("export ").unwrap_or(line);
            let parts = assignment
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()));
            let Some((name, value)) = parts.filter(|(name, _)| is_name(name)) else {
                return Err(refused(format!(
                    "expected KEY=VALUE, found `{}`",
                    line.escape_debug()
                )));
            };
            if name.starts_with(PREFIX) {
                if value.is_empty() {
                    return Err(refused(format!(
                        "{name} is empty: give it a value, or take the line out"
                    )));
                }
                if value.starts_with(['"', '\'']) {
                    return Err(refused(format!(
                        "{name}: quotes would be part of the value: leave them out"
                    )));
                }
            }
            values.insert(name.to_owned(), (index + 1, value.to_owned()));
        }
        values.retain(|_, (_, value)| !value.is_empty());
        Ok(Self {
            path: path.to_path_buf(),
            values,
        })
    }

    /// The value of this name, and its line.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Setting> {
        let (line, value) = self.values.get(name)?;
        Some(Setting {
            value: value.clone(),
            source: self.at(*line),
        })
    }

    /// This program's variables in it, and where they stand.
    pub(super) fn own(&self) -> impl Iterator<Item = (String, Source)> {
        let own = self.values.iter().filter(|(name, _)| name.starts_with(PREFIX));
        own.map(|(name, (line, _))| (name.clone(), self.at(*line)))
    }

    fn at(&self, line: usize) -> Source {
        Source::EnvFile {
            path: self.path.clone(),
            line,
        }
    }
}

/// Whether this may be the name of a variable: printable ASCII without blanks. Anything
/// else is a slip of an editor, such as a byte order mark in the middle of a file.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<EnvFile, ConfigError> {
        EnvFile::parse(Path::new("ENV"), text)
    }

    #[test]
    fn a_line_that_is_not_taken_as_it_stands_is_refused_with_its_number() {
        for (text, said) in [
            ("A=1\nnonsense\n", "ENV:2: expected KEY=VALUE, found `nonsense`"),
            ("=1\n", "ENV:1: expected KEY=VALUE, found `=1`"),
            (
                "A=1\n\u{feff}B=2\n",
                "ENV:2: expected KEY=VALUE, found `\\u{feff}B=2`",
            ),
            ("A B=1\n", "ENV:1: expected KEY=VALUE, found `A B=1`"),
            ("export\n", "ENV:1: expected KEY=VALUE, found `export`"),
            (
                "A=1\rB=2\n",
                "ENV:1: expected lines that end in a line feed, and no NUL",
            ),
            (
                "A=\0\n",
                "ENV:1: expected lines that end in a line feed, and no NUL",
            ),
            (
                "\nJITC_MISS=\n",
                "ENV:2: JITC_MISS is empty: give it a value, or take the line out",
            ),
            (
                "JITC_MISS='forbid'\n",
                "ENV:1: JITC_MISS: quotes would be part of the value: leave them out",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), said);
        }
    }

    #[test]
    fn what_others_write_stands_as_it_is() {
        let file = parse("# c\r\n\r\n  export A = x=y \r\nB='q'\nC=\nD=1\nD=\nE=ü").expect("parsed");
        let value = |name: &str| file.get(name).map(|s| s.value);
        assert_eq!(value("A").as_deref(), Some("x=y"));
        assert_eq!(value("B").as_deref(), Some("'q'"));
        assert_eq!((value("C"), value("D")), (None, None));
        assert_eq!(value("E").as_deref(), Some("ü"));
    }

    /// Bytes that files of this kind have, whole lines of them, and anything else.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "(export )?[A-Z]{1,2}[ ]?=[ ]?[a-z0-9]{0,3}".prop_map(String::into_bytes),
            3 => "JITC_[A-C]=[a-z0-9]{1,3}".prop_map(String::into_bytes),
            1 => "#[a-z= ]{0,5}".prop_map(String::into_bytes),
            1 => "[a-z]{0,3}".prop_map(String::into_bytes),
            1 => Just(vec![0xef, 0xbb, 0xbf]),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        let end = prop_oneof![6 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..]), 1 => Just(&b"\r"[..]), 1 => Just(&b""[..])];
        let lines = proptest::collection::vec((piece, end), 0..8);
        lines.prop_map(|lines| {
            lines
                .into_iter()
                .flat_map(|(piece, end)| [&piece, end].concat())
                .collect()
        })
    }

    proptest! {
        /// Whatever the bytes: a file that is taken has every assignment that stands in it,
        /// counted here line by line, byte by byte.
        #[test]
        fn a_file_is_taken_whole_or_refused(bytes in bytes()) {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("ENV");
            fs_err::write(&path, &bytes).expect("written");
            let Ok(file) = EnvFile::read(&path) else { return Ok(()) };
            let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let mut expected = BTreeMap::new();
            for line in body.split(|byte| *byte == b'\n') {
                let line = std::str::from_utf8(line).expect("a file that is taken is text").trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let (name, value) = line.split_once('=').expect("a line that is taken is an assignment");
                let name = name.strip_prefix("export ").unwrap_or(name).trim();
                prop_assert!(!line.contains('\r') && !name.is_empty());
                expected.insert(name.to_owned(), value.trim().to_owned());
            }
            expected.retain(|_, value| !value.is_empty());
            let found: BTreeMap<String, String> =
                file.values.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

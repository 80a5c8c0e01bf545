//! A matrix: which variants to warm, written down once.
//!
//! Invariant: what a matrix asks for is either in its expansion or counted as
//! left out by a constraint; a name or value that fits nothing is an error that gives its
//! line. Settings hold where a block says nothing; a flag that says what a block says too
//! is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::engine::config::text_file::{self, line_of};
use crate::engine::config::{Config, Setting, Source, scalar};
use crate::engine::regular_file::{MAX_TOML, read_text_or_input};
use crate::engine::request::select::warm_all;
use crate::engine::request::spec::{KernelSpec, SpecError, check_names, of_settings, parse_archs};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Constant, Family, NamedFamily, Registry};
use crate::engine::suggest::did_you_mean;

/// Why a matrix cannot be expanded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is wrong, or fits nothing.
    #[error("line {line}: {reason}")]
    Line {
        /// Line, from 1.
        line: usize,
        /// What was wrong, and what would be right.
        reason: String,
    },
    /// A value is wrong, of the matrix or of the settings; the message says where.
    #[error(transparent)]
    Spec(Box<SpecError>),
}

impl From<SpecError> for MatrixError {
    fn from(error: SpecError) -> Self {
        Self::Spec(Box::new(error))
    }
}

/// What a matrix asks for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Expansion {
    /// Every variant, in the order of the file.
    pub specs: Vec<KernelSpec>,
    /// Combinations that a family's constraints do not allow.
    pub skipped: usize,
}

/// A parsed matrix.
#[derive(Debug)]
pub struct Matrix {
    blocks: Vec<Block>,
}

/// One `[[warm]]`.
#[derive(Debug, Default)]
struct Block {
    line: usize,
    families: Vec<Word>,
    archs: Option<Vec<Word>>,
    /// By the name that was written.
    constants: BTreeMap<String, (usize, Vec<Word>)>,
}

/// A value and its line.
#[derive(Debug, Clone)]
struct Word {
    line: usize,
    text: String,
}

impl Matrix {
    /// Reads a matrix from a file: regular, at most 1 MiB, UTF-8 with or without a byte
    /// order mark; or from standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, MatrixError> {
        if path.as_os_str() == "-" {
            return Self::parse(&read_text_or_input(path, MAX_TOML)?);
        }
        Self::parse(&text_file::read(path)?.0)
    }

    /// Parses a matrix; docs/CACHE.md shows one.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            bad(line_of(text, at), e.message())
        })?;
        let mut blocks = Vec::new();
        for (key, value) in table.get_ref() {
            let line = line_of(text, key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("warm", DeValue::Array(tables)) => {
                    for table in tables {
                        blocks.push(Block::parse(text, table)?);
                    }
                }
                ("warm", _) => return Err(bad(line, "expected [[warm]]")),
                (name, _) => return Err(unknown(line, name, &["warm"])),
            }
        }
        if blocks.is_empty() {
            return Err(bad(1, "expected at least one [[warm]]"));
        }
        Ok(Self { blocks })
    }

    /// Every variant that it asks for, each once: over the constants and the preset of the
    /// settings. Where a block names no arch, those of the settings hold, else `usual`.
    ///
    /// # Errors
    /// A name or value that fits nothing, and a flag that says what a block says too, or
    /// that none of its families knows.
    pub fn expand(
        &self,
        registry: &Registry,
        config: &Config,
        usual: impl FnOnce() -> Vec<Arch>,
    ) -> Result<Expansion, MatrixError> {
        let archs = match config.arch() {
            Some(setting) => parse_archs(&setting)?,
            None => usual(),
        };
        let mut all: Vec<NamedFamily> = Vec::new();
        let mut expansion = Expansion {
            specs: Vec::new(),
            skipped: 0,
        };
        let blocks: Vec<(&Block, Vec<NamedFamily>)> = self
            .blocks
            .iter()
            .map(|block| Ok((block, block.families(registry)?)))
            .collect::<Result<_, MatrixError>>()?;
        for (_, families) in &blocks {
            all.extend(families.iter().cloned());
        }
        // Flags are about these families; the file's constants may be other families'.
        check_names(registry.families(), config)?;
        let mut meant: Vec<&Arc<Family>> = all.iter().map(NamedFamily::family).collect();
        meant.sort_unstable_by_key(|family| &family.name);
        meant.dedup_by_key(|family| &family.name);
        registry.check_preset(&meant, config)?;
        if let Some(flag) = config.flag_constants().iter().find(|flag| {
            !all.iter()
                .any(|family| family.family().constants.contains_key(&flag.name))
        }) {
            return Err(SpecError::UnknownConstant {
                constant: flag.name.clone(),
                origin: Source::Flag(flag.flag.clone()),
                hint: ": no family of the matrix declares it".to_owned(),
            }
            .into());
        }
        for (block, families) in &blocks {
            block.expand(families, config, &archs, &mut expansion)?;
        }
        Ok(expansion)
    }
}

impl Block {
    fn parse(text: &str, table: &Spanned<DeValue<'_>>) -> Result<Self, MatrixError> {
        let mut block = Self {
            line: line_of(text, table.span().start),
            ..Self::default()
        };
        let DeValue::Table(fields) = table.get_ref() else {
            return Err(bad(block.line, "expected [[warm]]"));
        };
        for (key, value) in fields {
            let line = line_of(text, key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("families", _) => block.families = words(text, key.get_ref(), value)?,
                ("archs", _) => block.archs = Some(words(text, key.get_ref(), value)?),
                ("constants", DeValue::Table(constants)) => {
                    for (key, value) in constants {
                        let line = line_of(text, key.span().start);
                        let words = words(text, key.get_ref(), value)?;
                        block.constants.insert(key.get_ref().to_string(), (line, words));
                    }
                }
                ("constants", _) => return Err(bad(line, "`constants` is a table: [warm.constants]")),
                (name, _) => return Err(unknown(line, name, &["families", "archs", "constants"])),
            }
        }
        if block.families.is_empty() {
            return Err(bad(
                block.line,
                "`families` is missing: name them, or a glob such as \"*\"",
            ));
        }
        Ok(block)
    }

    fn families(&self, registry: &Registry) -> Result<Vec<NamedFamily>, MatrixError> {
        let mut families: Vec<NamedFamily> = Vec::new();
        for Word { line, text: glob } in &self.families {
            let wanted = registry.fitting(|name| matches_glob(glob, name));
            if wanted.is_empty() {
                let known: Vec<_> = registry.families().map(|f| f.name.as_str()).collect();
                let known = known.join(", ");
                return Err(bad(
                    *line,
                    format!("no family is called `{glob}`: there are {known}"),
                ));
            }
            families.extend(wanted);
        }
        Ok(families)
    }

    fn expand(
        &self,
        families: &[NamedFamily],
        config: &Config,
        archs: &[Arch],
        out: &mut Expansion,
    ) -> Result<(), MatrixError> {
        let archs = match (&self.archs, config.arch().map(|setting| setting.source)) {
            (Some(own), Some(Source::Flag(flag))) => {
                let line = own.first().map_or(self.line, |word| word.line);
                return Err(said_twice(line, "archs", &flag));
            }
            (Some(own), _) => selected_archs(own)?,
            (None, _) => archs.to_vec(),
        };
        for (name, (line, _)) in &self.constants {
            let declared = families.iter().filter_map(|f| f.family().constant(name));
            let present: Vec<&str> = declared.map(|constant| constant.name.as_str()).collect();
            if present.is_empty() {
                return Err(bad(
                    *line,
                    format!("none of its families declares a constant `{name}`"),
                ));
            }
            let flags = config.flag_constants().iter();
            if let Some(flag) = flags.rev().find(|flag| present.contains(&flag.name.as_str())) {
                return Err(said_twice(*line, name, &flag.flag));
            }
        }
        let before = out.specs.len();
        for named in families {
            let values = self.values(named, config)?;
            let written = |constant: &Constant| values.get(&constant.name).cloned();
            let already = out.specs.len() + out.skipped;
            let expanded = KernelSpec::expand_over(named, config, &written, &archs, already);
            let (specs, skipped) = expanded.map_err(|error| match error {
                SpecError::TooMany { .. } => bad(self.line, error.to_string()),
                error => error.into(),
            })?;
            out.specs.extend(specs);
            out.skipped += skipped;
        }
        if out.specs.len() == before {
            return Err(bad(
                self.line,
                "its families' constraints allow none of its combinations",
            ));
        }
        Ok(())
    }

    /// This block's values for the constants of a family, by present name; constants of its
    /// other families are left to those. What is declared `warm_all`, and set neither here
    /// nor by settings, has all of its values.
    fn values(
        &self,
        named: &NamedFamily,
        config: &Config,
    ) -> Result<BTreeMap<String, Vec<Setting>>, MatrixError> {
        let lacks = |name: &str| named.former_name().is_some_and(|f| f.lacked.contains(name));
        let mut values = BTreeMap::new();
        for (name, (_, words)) in &self.constants {
            let constant = named.family().constant(name);
            let Some(constant) = constant.filter(|constant| !lacks(&constant.name)) else {
                continue;
            };
            let mut texts = Vec::new();
            for Word { line, text } in words {
                let at_line = |value: String| Setting {
                    value,
                    source: Source::Line(*line),
                };
                if !text.contains(['*', '?']) {
                    texts.push(at_line(text.clone()));
                    continue;
                }
                let all = constant.legal.listed().ok_or_else(|| {
                    bad(
                        *line,
                        format!("{name}: `{text}`: a range has no list to choose from"),
                    )
                })?;
                let before = texts.len();
                let fitting = all.into_iter().filter(|value| matches_glob(text, value));
                texts.extend(fitting.map(at_line));
                if texts.len() == before {
                    return Err(bad(
                        *line,
                        format!("{name}: `{text}` fits none of {}", constant.legal),
                    ));
                }
            }
            values.insert(constant.name.clone(), texts);
        }
        let others = warm_all(named, |constant| {
            values.contains_key(&constant.name) || of_settings(constant, config).is_some()
        });
        values.extend(others);
        Ok(values)
    }
}

fn bad(line: usize, reason: impl Into<String>) -> MatrixError {
    MatrixError::Line {
        line,
        reason: reason.into(),
    }
}

fn unknown(line: usize, name: &str, known: &[&str]) -> MatrixError {
    let hint = did_you_mean(name, known.iter().copied());
    bad(
        line,
        format!("unknown name `{name}`{hint}: known are {}", known.join(", ")),
    )
}

fn said_twice(line: usize, name: &str, flag: &str) -> MatrixError {
    bad(
        line,
        format!("{name} is set here and by flag {flag}: leave one of them out"),
    )
}

/// A value, or a list of values.
fn words(text: &str, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Word>, MatrixError> {
    let items = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    };
    let line = |value: &Spanned<DeValue<'_>>| line_of(text, value.span().start);
    if items.is_empty() {
        return Err(bad(
            line(value),
            format!("`{name}` is an empty list: name a value, or leave it out"),
        ));
    }
    let word = |item: &Spanned<DeValue<'_>>| {
        let text = scalar(item).ok_or_else(|| {
            bad(
                line(item),
                format!("`{name}` takes a number, a text, true or false, or an array of these"),
            )
        })?;
        Ok(Word {
            line: line(item),
            text,
        })
    };
    items.into_iter().map(word).collect()
}

fn selected_archs(words: &[Word]) -> Result<Vec<Arch>, MatrixError> {
    let mut archs = Vec::new();
    for Word { line, text } in words {
        if text.contains(['*', '?']) {
            let before = archs.len();
            let tested = Arch::TESTED.into_iter();
            archs.extend(tested.filter(|arch| matches_glob(text, &arch.to_string())));
            if archs.len() == before {
                return Err(bad(*line, format!("no architecture fits `{text}`")));
            }
        } else {
            archs.push(text.parse::<Arch>().map_err(|e| bad(*line, e.to_string()))?);
        }
    }
    Ok(archs)
}

/// Whether a text fits a pattern in which `*` stands for any run of characters
/// and `?` for any one.
#[must_use]
pub fn matches_glob(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    // Where the last `*` stands, and how far its run reaches.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reach)) => {
                    g = at + 1;
                    t = reach + 1;
                    star = Some((at, reach + 1));
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests;

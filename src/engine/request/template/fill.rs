//! What a parameter's memory, or a scalar, holds where a family is measured by its
//! declaration.
//!
//! Invariant: nothing of it is in a key or in what the compiler sees.

use crate::engine::refused::Refused;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::request::dtype::Dtype;
use crate::engine::suggest::did_you_mean;

/// The words of a fill.
const WORDS: [&str; 5] = ["uniform", "normal", "zeros", "ones", "iota"];

/// What elements are filled with, and from which seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fill {
    /// What with.
    pub kind: FillKind,
    /// The seed of its numbers; without one, that of the measurement.
    pub seed: Option<u64>,
}

/// What elements are filled with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FillKind {
    /// Uniform numbers: of floating-point types from the first up to the second, of whole
    /// numbers both included.
    Uniform(f64, f64),
    /// Normal numbers of this mean and this standard deviation.
    Normal(f64, f64),
    /// The same number everywhere.
    Value(f64),
    /// 0, 1, 2 and so on, modulo what the type holds.
    Iota,
    /// The elements of a `.npy` file.
    File(String),
}

/// A fill as TOML, or a flag, has it.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, uniform, normal, zeros, ones, iota, a FILE.npy, or a table of kind and seed"
)]
pub(super) enum FillFile {
    Number(f64),
    Word(String),
    Table(TableFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableFile {
    kind: Option<String>,
    file: Option<String>,
    value: Option<f64>,
    range: Option<[f64; 2]>,
    mean: Option<f64>,
    deviation: Option<f64>,
    seed: Option<u64>,
}

impl FillFile {
    pub(super) fn check(self) -> Result<Fill, String> {
        let table = match self {
            Self::Number(number) => {
                return Ok(Fill {
                    kind: FillKind::Value(finite("value", number)?),
                    seed: None,
                });
            }
            Self::Word(word) => TableFile {
                kind: (!is_file(&word)).then(|| word.clone()),
                file: is_file(&word).then_some(word),
                value: None,
                range: None,
                mean: None,
                deviation: None,
                seed: None,
            },
            Self::Table(table) => table,
        };
        table.check()
    }
}

fn is_file(word: &str) -> bool {
    std::path::Path::new(word)
        .extension()
        .is_some_and(|end| end == "npy")
}

fn finite(what: &str, number: f64) -> Result<f64, String> {
    let finite = number.is_finite().then_some(number);
    finite.ok_or_else(|| format!("`{what}` is {number}: expected a finite number"))
}

impl TableFile {
    fn check(self) -> Result<Fill, String> {
        let kind = match (&self.kind, &self.file, self.value) {
            (Some(kind), None, None) => kind.as_str(),
            (None, Some(_), None) => "file",
            (None, None, Some(_)) => "value",
            _ => return Err("expected one of `kind`, `file` and `value`".into()),
        };
        for (key, given, of) in [
            ("range", self.range.is_some(), "uniform"),
            ("mean", self.mean.is_some(), "normal"),
            ("deviation", self.deviation.is_some(), "normal"),
        ] {
            if given && kind != of {
                return Err(format!("`{key}` is of kind = \"{of}\""));
            }
        }
        if self.seed.is_some() && !matches!(kind, "uniform" | "normal") {
            return Err("`seed` is of random numbers: kind = \"uniform\" or \"normal\"".into());
        }
        let kind = match kind {
            "uniform" => {
                let [low, high] = self.range.unwrap_or([-1.0, 1.0]);
                let (low, high) = (finite("range", low)?, finite("range", high)?);
                if low > high {
                    return Err(format!("`range` begins at {low}, which is above {high}"));
                }
                FillKind::Uniform(low, high)
            }
            "normal" => {
                let deviation = finite("deviation", self.deviation.unwrap_or(1.0))?;
                if deviation < 0.0 {
                    return Err(format!("`deviation` is {deviation}: expected at least 0"));
                }
                FillKind::Normal(finite("mean", self.mean.unwrap_or(0.0))?, deviation)
            }
            "zeros" => FillKind::Value(0.0),
            "ones" => FillKind::Value(1.0),
            "iota" => FillKind::Iota,
            "value" => FillKind::Value(finite("value", self.value.unwrap_or(0.0))?),
            "file" => {
                let file = self.file.unwrap_or_default();
                if !is_file(&file) {
                    return Err(format!("`{file}` is not a .npy file"));
                }
                FillKind::File(file)
            }
            other => {
                let hint = did_you_mean(other, WORDS);
                return Err(format!(
                    "`{other}` is not a fill{hint}: expected a number, {}, or a FILE.npy",
                    WORDS.join(", ")
                ));
            }
        };
        Ok(Fill {
            kind,
            seed: self.seed,
        })
    }
}

impl std::str::FromStr for Fill {
    type Err = Refused;

    /// A fill as people write it on a command line: as in TOML, words without quotes.
    fn from_str(text: &str) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        struct One {
            fill: FillFile,
        }
        let text = text.trim();
        let file = match text.parse() {
            Ok(number) => FillFile::Number(number),
            Err(_) if text.starts_with('{') => {
                let one: Result<One, _> = toml::from_str(&format!("fill = {text}"));
                one.map_err(|e| e.message().to_owned())?.fill
            }
            Err(_) => FillFile::Word(text.to_owned()),
        };
        Ok(file.check()?)
    }
}

impl Fill {
    /// What elements of a type hold where nobody says: normal numbers; of whole numbers,
    /// which may be indices, zeros; of powers of two, ones.
    #[must_use]
    pub fn usual(dtype: Dtype) -> Self {
        let kind = match dtype {
            Dtype::E8m0 => FillKind::Value(1.0),
            other if other.is_integer() || other == Dtype::Bool => FillKind::Value(0.0),
            _ => FillKind::Normal(0.0, 1.0),
        };
        Self { kind, seed: None }
    }

    /// Whether elements of a type can be filled so; the text says why not.
    pub fn check(&self, dtype: Dtype) -> Result<(), Refused> {
        let whole = dtype.is_integer() || dtype == Dtype::Bool;
        match self.kind {
            FillKind::Normal(..) if whole => Err(Refused::new(format_args!(
                "{dtype} has no normal numbers: expected uniform with a `range`, zeros, ones, iota, a number or a FILE.npy"
            ))),
            FillKind::Uniform(low, high) if whole && (low.fract() != 0.0 || high.fract() != 0.0) => {
                Err(format!("`range` of {dtype} is of whole numbers, not {low} to {high}").into())
            }
            FillKind::Value(value) if whole && value.fract() != 0.0 => {
                Err(format!("{value} is not a whole number, and {dtype} is of these").into())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FillKind::Uniform(low, high) => write!(f, "uniform from {low} to {high}")?,
            FillKind::Normal(mean, deviation) => write!(f, "normal, {mean} +- {deviation}")?,
            FillKind::Value(value) => write!(f, "{value}")?,
            FillKind::Iota => f.write_str("iota")?,
            FillKind::File(file) => f.write_str(file)?,
        }
        self.seed.map_or(Ok(()), |seed| write!(f, ", seed {seed}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<Fill, String> {
        Ok(text.parse::<Fill>()?)
    }

    #[test]
    fn a_fill_is_a_word_a_number_a_file_or_a_table() {
        for (text, kind) in [
            ("uniform", FillKind::Uniform(-1.0, 1.0)),
            ("normal", FillKind::Normal(0.0, 1.0)),
            ("zeros", FillKind::Value(0.0)),
            ("ones", FillKind::Value(1.0)),
            ("iota", FillKind::Iota),
            ("-2.5e3", FillKind::Value(-2500.0)),
            ("w/x.npy", FillKind::File("w/x.npy".into())),
            (
                "{ kind = 'uniform', range = [0, 7] }",
                FillKind::Uniform(0.0, 7.0),
            ),
            (
                "{ kind = 'normal', deviation = 0.02, seed = 3 }",
                FillKind::Normal(0.0, 0.02),
            ),
            ("{ file = 'x.npy' }", FillKind::File("x.npy".into())),
            ("{ value = 3 }", FillKind::Value(3.0)),
        ] {
            assert_eq!(fill(text).expect(text).kind, kind, "{text}");
        }
        assert_eq!(fill("{ kind = 'normal', seed = 3 }").expect("fill").seed, Some(3));
    }

    #[test]
    fn what_is_no_fill_is_one_clear_line() {
        for (text, words) in [
            (
                "nomral",
                "`nomral` is not a fill (did you mean `normal`?): expected a number, uniform",
            ),
            ("nan", "`value` is NaN: expected a finite number"),
            ("{ kind = 'zeros', seed = 1 }", "`seed` is of random numbers"),
            (
                "{ kind = 'normal', range = [0, 1] }",
                "`range` is of kind = \"uniform\"",
            ),
            (
                "{ kind = 'uniform', range = [2, 1] }",
                "`range` begins at 2, which is above 1",
            ),
            (
                "{ kind = 'normal', deviation = -1 }",
                "`deviation` is -1: expected at least 0",
            ),
            ("{ file = 'x.bin' }", "`x.bin` is not a .npy file"),
            ("{ seed = 1 }", "expected one of `kind`, `file` and `value`"),
            ("{ knid = 'normal' }", "expected"),
        ] {
            let reason = fill(text).expect_err(text);
            assert!(
                reason.contains(words) && reason.lines().count() == 1,
                "{text}: {reason}"
            );
        }
    }

    #[test]
    fn whole_numbers_have_no_normal_ones_and_nothing_between() {
        let refused = |text: &str| {
            let refused = fill(text).expect(text).check(Dtype::I32).expect_err(text);
            refused.to_string()
        };
        assert!(refused("normal").starts_with("i32 has no normal numbers"));
        assert!(refused("0.5").contains("0.5 is not a whole number"));
        assert!(refused("{ kind = 'uniform', range = [0, 1.5] }").contains("of whole numbers, not 0 to 1.5"));
        for dtype in Dtype::ALL {
            Fill::usual(dtype).check(dtype).expect("what is usual is legal");
            fill("normal")
                .expect("fill")
                .check(Dtype::E4m3)
                .expect("a floating-point type");
        }
    }
}

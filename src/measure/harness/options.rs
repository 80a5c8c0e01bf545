//! Options of a measurement, by name: declared by a family, given by whoever asks.
//!
//! Invariant: a value is read once, by the verb, which says what would be right.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::engine::suggest::did_you_mean;
use crate::measure::MeasureError;

/// A flag that a verb of a family takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flag {
    /// Its name, `launches`; on the command line `--launches`.
    pub name: &'static str,
    /// What stands for its value in help; `None` for a switch, which has none.
    pub value: Option<&'static str>,
    /// What it is where it is not given.
    pub default: Option<&'static str>,
    /// Whether it may be given more than once.
    pub repeated: bool,
    /// One line of help; a flag without is not listed.
    pub help: &'static str,
}

impl Flag {
    /// A flag with a value.
    #[must_use]
    pub const fn new(
        name: &'static str,
        value: &'static str,
        default: Option<&'static str>,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            value: Some(value),
            default,
            repeated: false,
            help,
        }
    }

    /// A flag with a value that may be given more than once.
    #[must_use]
    pub const fn repeated(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self {
            repeated: true,
            ..Self::new(name, value, None, help)
        }
    }

    /// A switch.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            value: None,
            default: None,
            repeated: false,
            help,
        }
    }

    /// A switch that help does not list: of use to the program itself.
    #[must_use]
    pub const fn unlisted_switch(name: &'static str) -> Self {
        Self::switch(name, "")
    }
}

/// Options that were given, by name, and defaults of those that were not.
#[derive(Debug, Clone, Default)]
pub struct Options {
    given: BTreeMap<String, Vec<String>>,
    defaults: BTreeMap<&'static str, &'static str>,
    known: Vec<&'static str>,
    /// A name that was set and that no flag has: told by the first value that is read.
    unknown: Option<String>,
}

impl Options {
    /// The defaults of these flags.
    #[must_use]
    pub fn of(flags: &[Flag]) -> Self {
        let defaults = flags.iter().filter_map(|f| Some((f.name, f.default?)));
        Self {
            given: BTreeMap::new(),
            defaults: defaults.collect(),
            known: flags.iter().map(|f| f.name).collect(),
            unknown: None,
        }
    }

    /// Sets one; a switch is set to the empty text.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.note_unknown(name);
        self.given.insert(name.to_owned(), vec![value.into()]);
        self
    }

    /// Gives one once more.
    #[must_use]
    pub fn add(mut self, name: &str, value: impl Into<String>) -> Self {
        self.note_unknown(name);
        self.given.entry(name.to_owned()).or_default().push(value.into());
        self
    }

    fn note_unknown(&mut self, name: &str) {
        if !self.known.contains(&name) {
            self.unknown.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Refuses an option that no flag has.
    fn check(&self) -> Result<(), MeasureError> {
        let Some(name) = &self.unknown else {
            return Ok(());
        };
        let hint = did_you_mean(name, self.known.iter().copied());
        Err(MeasureError::Request(format!(
            "--{name}: there is no such option{hint}"
        )))
    }

    /// Whether it was given, and not left to its default.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Its text; `None` where it was not given and has no default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last().or_else(|| self.defaults.get(name).copied())
    }

    /// Every text that it was given, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Its value as one of these words.
    pub fn choice<'w>(&self, name: &str, words: &[&'w str]) -> Result<Option<&'w str>, MeasureError> {
        self.check()?;
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(word)),
            None => Err(wrong(name, text, &format!("one of {}", words.join(", ")))),
        }
    }

    /// Its value as a number within a range.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, MeasureError>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.check()?;
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        one(name, text, &range).map(Some)
    }

    /// Its value as a whole number of at least one.
    pub fn count(&self, name: &str) -> Result<Option<usize>, MeasureError> {
        self.check()?;
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(0) | Err(_) => Err(wrong(name, text, "a whole number from 1")),
            Ok(count) => Ok(Some(count)),
        }
    }

    /// Its value as a list of numbers, each within a range; empty where there is none.
    pub fn list<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Vec<T>, MeasureError>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.check()?;
        let text = self.text(name).into_iter();
        text.flat_map(|text| text.split(','))
            .map(|part| one(name, part.trim(), &range))
            .collect()
    }
}

fn one<T>(name: &str, text: &str, range: &RangeInclusive<T>) -> Result<T, MeasureError>
where
    T: FromStr + PartialOrd + Display,
{
    let number = text.parse().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        wrong(name, text, &expected)
    })
}

fn wrong(name: &str, text: &str, expected: &str) -> MeasureError {
    MeasureError::Request(format!("--{name}: `{text}`: expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] = [
        Flag::new("launches", "COUNT", Some("50"), "Samples"),
        Flag::new("method", "METHOD", None, "How"),
        Flag::switch("warm", "The same weights each launch"),
    ];

    #[test]
    fn what_was_given_holds_over_the_default() {
        let options = Options::of(&FLAGS);
        assert_eq!(
            options.number("launches", 1..=1000).expect("read"),
            Some(50_usize)
        );
        assert!(!options.is_given("launches") && !options.is_given("warm"));
        let options = options.set("launches", "7").set("warm", "");
        assert_eq!(options.number("launches", 1..=1000).expect("read"), Some(7_usize));
        assert!(options.is_given("launches") && options.is_given("warm"));
        assert_eq!(options.text("method"), None);
    }

    #[test]
    fn an_option_that_no_flag_has_is_refused_and_never_ignored() {
        let options = Options::of(&FLAGS).set("lauches", "7");
        let refused = options.number("launches", 1..=9_u32).expect_err("refused");
        assert_eq!(
            refused.to_string(),
            "--lauches: there is no such option (did you mean `launches`?)"
        );
    }

    #[test]
    fn a_wrong_value_is_told_with_what_would_be_right() {
        let options = Options::of(&FLAGS).set("launches", "0").set("method", "graf");
        let number = options.number("launches", 1..=1000_usize).expect_err("refused");
        assert_eq!(
            number.to_string(),
            "--launches: `0`: expected a number from 1 to 1000"
        );
        let choice = options
            .choice("method", &["graph", "events"])
            .expect_err("refused");
        assert_eq!(
            choice.to_string(),
            "--method: `graf`: expected one of graph, events"
        );
        let list = options.set("launches", "1,x").list("launches", 1..=9_u32);
        assert_eq!(
            list.expect_err("refused").to_string(),
            "--launches: `x`: expected a number from 1 to 9"
        );
    }
}

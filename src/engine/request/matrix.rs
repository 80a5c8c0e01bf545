//! A matrix: which variants to warm, written down once.
//!
//! Invariant: what a matrix asks for is either in its expansion or counted as
//! left out by a constraint; a name or value that fits nothing is an error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::engine::regular_file::{MAX_TOML, read_text};
use crate::engine::request::spec::{KernelSpec, SpecError, count_variants};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{NamedFamily, Registry};

/// Why a matrix cannot be expanded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not what a matrix looks like.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What was wrong.
        reason: String,
    },
    /// A part of it fits nothing.
    #[error("[[warm]] number {block}: {reason}")]
    Block {
        /// Which block, from 1.
        block: usize,
        /// What was wrong, and what would be right.
        reason: String,
    },
}

/// What a matrix asks for.
#[derive(Debug)]
pub struct Expansion {
    /// Every variant, in the order of the file.
    pub specs: Vec<KernelSpec>,
    /// Combinations that a family's constraints do not allow.
    pub skipped: usize,
}

/// A parsed matrix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    warm: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    families: OneOrMore,
    archs: Option<OneOrMore>,
    #[serde(default)]
    constants: BTreeMap<String, OneOrMore>,
}

/// A value, or a list of values.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    More(Vec<toml::Value>),
    One(toml::Value),
}

impl OneOrMore {
    fn texts(&self) -> Vec<String> {
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match self {
            Self::More(values) => values.iter().map(text).collect(),
            Self::One(value) => vec![text(value)],
        }
    }
}

impl Matrix {
    /// Reads a matrix from a file.
    pub fn read(path: &Path) -> Result<Self, MatrixError> {
        Self::parse(&read_text(path, MAX_TOML)?)
    }

    /// Parses a matrix; docs/CACHE.md shows one.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        toml::from_str(text).map_err(|e| MatrixError::Syntax {
            line: e.span().map_or(1, |s| text[..s.start].matches('\n').count() + 1),
            reason: e.message().to_owned(),
        })
    }

    /// Every variant that it asks for, each once. `archs` holds where a block
    /// names none.
    pub fn expand(&self, registry: &Registry, archs: &[Arch]) -> Result<Expansion, MatrixError> {
        let mut expansion = Expansion {
            specs: Vec::new(),
            skipped: 0,
        };
        for (n, block) in self.warm.iter().enumerate() {
            block
                .expand(registry, archs, &mut expansion)
                .map_err(|reason| MatrixError::Block { block: n + 1, reason })?;
        }
        Ok(expansion)
    }
}

impl Block {
    fn expand(&self, registry: &Registry, archs: &[Arch], out: &mut Expansion) -> Result<(), String> {
        let mut families: Vec<NamedFamily> = Vec::new();
        for glob in self.families.texts() {
            let wanted = registry.fitting(|name| matches_glob(&glob, name));
            let none = wanted.is_empty();
            families.extend(wanted);
            if none {
                let known: Vec<_> = registry.families().map(|f| f.name.as_str()).collect();
                return Err(format!(
                    "no family is called `{glob}`: there are {}",
                    known.join(", ")
                ));
            }
        }
        let archs = match &self.archs {
            Some(archs) => selected_archs(&archs.texts())?,
            None => archs.to_vec(),
        };
        for name in self.constants.keys() {
            if !families.iter().any(|f| f.family().constant(name).is_some()) {
                return Err(format!("none of its families declares a constant `{name}`"));
            }
        }
        let before = out.specs.len();
        for family in &families {
            let already = out.specs.len() + out.skipped;
            for set in self.product(family, archs.len(), already)? {
                let set: Vec<_> = set.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                for arch in &archs {
                    match KernelSpec::new(family, set.iter().copied(), *arch) {
                        Ok(spec) => out.specs.push(spec),
                        Err(SpecError::Constraint { .. }) => out.skipped += 1,
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
        if out.specs.len() == before {
            return Err("its families' constraints allow none of its combinations".to_owned());
        }
        Ok(())
    }

    /// Every combination of this block's values for the constants of a family;
    /// constants of its other families are left to those. Counted before any is made,
    /// for so many architectures and with what there is already.
    fn product(
        &self,
        named: &NamedFamily,
        archs: usize,
        already: usize,
    ) -> Result<Vec<Vec<(String, String)>>, String> {
        let lacks = |name: &str| named.former_name().is_some_and(|f| f.lacked.contains(name));
        let mut lists: Vec<(&String, Vec<String>)> = Vec::new();
        for (name, values) in &self.constants {
            let constant = named.family().constant(name);
            let Some(constant) = constant.filter(|constant| !lacks(&constant.name)) else {
                continue;
            };
            let mut texts = Vec::new();
            for text in values.texts() {
                if text.contains(['*', '?']) {
                    let all = constant
                        .legal
                        .listed()
                        .ok_or_else(|| format!("{name}: `{text}`: a range has no list to choose from"))?;
                    let before = texts.len();
                    texts.extend(all.into_iter().filter(|value| matches_glob(&text, value)));
                    if texts.len() == before {
                        return Err(format!("{name}: `{text}` fits none of {}", constant.legal));
                    }
                } else {
                    texts.push(text);
                }
            }
            lists.push((name, texts));
        }
        let lengths = lists.iter().map(|(_, texts)| texts.len());
        let family = &named.family().name;
        count_variants(family, lengths.chain([archs]), already).map_err(|e| e.to_string())?;
        let mut product = vec![Vec::new()];
        for (name, texts) in lists {
            product = product
                .iter()
                .flat_map(|set: &Vec<_>| {
                    texts.iter().map(|text| {
                        let mut set = set.clone();
                        set.push((name.clone(), text.clone()));
                        set
                    })
                })
                .collect();
        }
        Ok(product)
    }
}

fn selected_archs(texts: &[String]) -> Result<Vec<Arch>, String> {
    let mut archs = Vec::new();
    for text in texts {
        if text.contains(['*', '?']) {
            let before = archs.len();
            let tested = Arch::TESTED.into_iter();
            archs.extend(tested.filter(|arch| matches_glob(text, &arch.to_string())));
            if archs.len() == before {
                return Err(format!("no architecture fits `{text}`"));
            }
        } else {
            archs.push(text.parse::<Arch>().map_err(|e| e.to_string())?);
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
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Expansion, MatrixError> {
        let registry = Registry::load(None).expect("families");
        Matrix::parse(text)?.expand(&registry, &["sm_90a".parse().expect("arch")])
    }

    #[test]
    fn a_star_stands_for_any_run_and_a_question_mark_for_one() {
        for (glob, text) in [
            ("*", ""),
            ("wo_*", "wo_gemv"),
            ("*_ge?v", "wo_gemv"),
            ("a*b*c", "aXbXbc"),
            ("x", "x"),
        ] {
            assert!(matches_glob(glob, text), "{glob} {text}");
        }
        for (glob, text) in [
            ("", "x"),
            ("wo_", "wo_gemv"),
            ("?", ""),
            ("a*b", "abc"),
            ("*x", "y"),
        ] {
            assert!(!matches_glob(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn lists_and_globs_make_products() {
        let text = "[[warm]]\nfamilies = 'wo_gem?'\narchs = ['sm_90a', 'sm_12*']\n\
                    [warm.constants]\nwo_split = [1, 8]\naccumulate = '*'\n";
        let expansion = expand(text).expect("expanded");
        assert_eq!((expansion.specs.len(), expansion.skipped), (2 * 3 * 3, 0));
    }

    #[test]
    fn what_a_constraint_forbids_is_left_out_and_counted() {
        let text = "[[warm]]\nfamilies = ['wo_gemv']\n[warm.constants]\n\
                    geometry = 'original'\nwo_split = '*'\nslice_ctas = [4]\n";
        let expansion = expand(text).expect("expanded");
        assert!(expansion.skipped > 0);
        assert_eq!(expansion.specs.len() + expansion.skipped, 4);
    }

    #[test]
    fn what_fits_nothing_is_an_error_that_says_where() {
        for (text, words) in [
            (
                "[[warm]]\nfamilies = 'nope*'\n",
                "[[warm]] number 1: no family is called `nope*`",
            ),
            (
                "[[warm]]\nfamilies = '*'\n[warm.constants]\nno_such = 1\n",
                "none of its families declares a constant",
            ),
            (
                "[[warm]]\nfamilies = 'wo_gemv'\n[warm.constants]\nwo_split = 3\n",
                "`3` is not legal",
            ),
            (
                "[[warm]]\nfamilies = 'wo_gemv'\narchs = 'sm_7*'\n",
                "no architecture fits",
            ),
            ("[[warm]]\n\nfamilly = 'x'\n", "line 3: unknown field"),
        ] {
            let error = expand(text).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

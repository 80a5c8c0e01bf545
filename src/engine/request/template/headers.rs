//! `[headers]`: which header sets a family uses.
//!
//! Invariant: a set has one name in a family, and a set of the family's own lies below the
//! folder that the family is in.

use indexmap::IndexMap;
use serde::Deserialize;

use crate::engine::request::header_set::{PINNED_SETS, STANDARD, SetName};
use crate::engine::suggest::did_you_mean;

/// The TOML: names of sets, and folders by name.
#[derive(Debug, Default, Deserialize)]
pub(super) struct HeadersFile {
    #[serde(default, rename = "use")]
    used: Vec<String>,
    #[serde(flatten)]
    folders: IndexMap<String, String>,
}

impl HeadersFile {
    /// The sets in the order in which a header is looked for: those of the family's own
    /// as they are declared, then the others as they are listed, but that `std` stands
    /// before those of NVIDIA's: it has some of their headers without what is for the host.
    pub(super) fn check(self) -> Result<Vec<SetName>, String> {
        self.checked().map_err(|e| format!("headers: {e}"))
    }

    fn checked(self) -> Result<Vec<SetName>, String> {
        let known: Vec<&str> = PINNED_SETS.iter().map(|set| set.name).chain([STANDARD]).collect();
        let mut sets: Vec<SetName> = Vec::new();
        for (name, folder) in self.folders {
            if known.contains(&name.as_str()) {
                return Err(format!(
                    "`{name}` is a set of jitc's own: call the folder otherwise"
                ));
            }
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!(
                    "`{name}` is not a name of a set: expected letters, digits, `_` and `-`"
                ));
            }
            let folder = inside(&folder).ok_or_else(|| {
                format!("{name} = \"{folder}\": expected a folder below that of the templates, with neither `..` nor a `/` in front")
            })?;
            sets.push(SetName {
                name,
                folder: Some(folder),
            });
        }
        for name in self.used {
            if !known.contains(&name.as_str()) {
                let hint = did_you_mean(&name, known.iter().copied());
                return Err(format!(
                    "use: there is no set `{name}`{hint}: there are {}; one of your own is a folder: {name} = \"FOLDER\"",
                    known.join(", ")
                ));
            }
            if sets.iter().any(|set| set.name == name) {
                return Err(format!("use: `{name}` stands there twice"));
            }
            sets.push(SetName { name, folder: None });
        }
        // `false` is first, and what is alike keeps its order.
        sets.sort_by_key(|set| set.folder.is_none() && set.name != STANDARD);
        Ok(sets)
    }
}

/// A relative path without steps that lead out or nowhere, in its plainest form.
fn inside(folder: &str) -> Option<String> {
    if folder.starts_with('/') {
        return None;
    }
    let parts = folder.split('/').filter(|part| !part.is_empty() && *part != ".");
    let parts: Vec<&str> = parts.collect();
    let leads_out = parts.iter().any(|part| *part == ".." || part.contains('\0'));
    (!parts.is_empty() && !leads_out).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Vec<(String, Option<String>)>, String> {
        let file: HeadersFile = toml::from_str(toml).expect("TOML");
        let sets = file.check()?;
        Ok(sets.into_iter().map(|set| (set.name, set.folder)).collect())
    }

    #[test]
    fn own_sets_come_first_and_each_in_its_order() {
        let sets = check("use = ['std', 'cuda']\nz = './vendor//z/'\na = 'vendor/a'\n").expect("sets");
        let own = |name: &str, folder: &str| (name.to_owned(), Some(folder.to_owned()));
        let of_jitc = |name: &str| (name.to_owned(), None);
        let expected = [
            own("z", "vendor/z"),
            own("a", "vendor/a"),
            of_jitc("std"),
            of_jitc("cuda"),
        ];
        assert_eq!(sets, expected);
        assert_eq!(check(""), Ok(Vec::new()));
    }

    #[test]
    fn std_stands_before_the_sets_of_nvidias_however_they_are_listed() {
        let names = |toml: &str| {
            let sets = check(toml).expect("sets").into_iter();
            sets.map(|(name, _)| name).collect::<Vec<_>>()
        };
        for used in [
            "'cuda', 'curand', 'std'",
            "'cuda', 'std', 'curand'",
            "'std', 'cuda', 'curand'",
        ] {
            let sets = names(&format!("use = [{used}]\na = 'vendor/a'\n"));
            assert_eq!(sets, ["a", "std", "cuda", "curand"], "{used}");
        }
    }

    #[test]
    fn a_set_that_is_not_there_or_leads_out_is_refused_in_one_line() {
        for (toml, says) in [
            ("use = ['cudaa']", "did you mean `cuda`"),
            ("use = ['cuda', 'cuda']", "twice"),
            ("cuda = 'vendor/cuda'", "a set of jitc's own"),
            ("a = '../a'", "below that of the templates"),
            ("a = '/usr/include'", "below that of the templates"),
            ("a = 'x/../../y'", "below that of the templates"),
            ("a = '.'", "below that of the templates"),
            ("'a b' = 'x'", "not a name of a set"),
        ] {
            let refused = check(toml).expect_err(toml);
            assert!(refused.contains(says) && !refused.contains('\n'), "{refused}");
        }
    }
}

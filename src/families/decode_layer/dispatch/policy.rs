//! What was asked of dispatch, once for all steps.

use crate::engine::refused::Refused;
use std::str::FromStr;

use serde::Serialize;

/// The path that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Cooperative where it fits, else separate.
    #[default]
    Auto,
    /// Cooperative or nothing.
    Cooperative,
    /// Always separate launches.
    Separate,
}

/// `coop` and `lite` are nvllm's words, and were jitc's.
impl FromStr for Path {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cooperative" | "coop" => Ok(Self::Cooperative),
            "separate" | "lite" => Ok(Self::Separate),
            _ => Err(format!("path `{text}`: expected auto, cooperative or separate").into()),
        }
    }
}

/// Which layers take part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers(Option<Vec<u32>>);

impl Layers {
    /// Every layer.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// These, from a list such as `3,7`. An empty list is every layer.
    pub fn parse(list: &str) -> Result<Self, Refused> {
        if list.trim().is_empty() {
            return Ok(Self::all());
        }
        let mut layers: Vec<u32> = list
            .split(',')
            .map(|text| {
                (text.trim().parse()).map_err(|_| format!("layer `{text}`: expected numbers, such as 3,7"))
            })
            .collect::<Result<_, _>>()?;
        layers.sort_unstable();
        Ok(Self(Some(layers)))
    }

    pub(super) fn allow(&self, layer: u32) -> bool {
        (self.0.as_ref()).is_none_or(|layers| layers.binary_search(&layer).is_ok())
    }
}

/// What does not change from step to step.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The path asked for.
    pub path: Path,
    /// Which layers take part.
    pub layers: Layers,
    /// Rows that the workspace has.
    pub max_tokens: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_paths_are_read_strictly() {
        assert_eq!(Layers::parse(" ").expect("empty"), Layers::all());
        assert!(Layers::parse("3,x").expect_err("bad").to_string().contains("`x`"));
        for (text, path) in [
            ("COOP", Path::Cooperative),
            ("cooperative", Path::Cooperative),
            ("lite", Path::Separate),
            ("separate", Path::Separate),
        ] {
            assert_eq!(text.parse(), Ok(path));
        }
        assert_eq!(
            "fast".parse::<Path>().expect_err("bad").to_string(),
            "path `fast`: expected auto, cooperative or separate"
        );
    }
}

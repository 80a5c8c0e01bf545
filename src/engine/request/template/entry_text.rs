//! Families, their entry points and parameters as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Axis, Entry, Family, Optional, Parameter, ParameterKind, Size};
use crate::engine::request::constant;

impl Family {
    /// A family for other languages: constants, former names, entry points and what they take.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let constants = self.constants.values().map(|c| {
            json!({"name": c.name, "type": c.legal.type_of(), "legal": c.legal.to_string(),
                "default": c.default.to_json(), "neutral": c.neutral,
                "general": c.general.iter().map(constant::Value::to_json).collect::<Vec<_>>(),
                "variables": c.variables, "help": c.help})
        });
        json!({"family": self.name, "summary": self.summary, "constants": constants.collect::<Vec<_>>(),
            "former_names": self.former_names.iter().map(|f| &f.name).collect::<Vec<_>>(),
            "entries": self.entries.iter().map(Entry::to_json).collect::<Vec<_>>()})
    }

    /// Presets, former names and what must hold, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let presets = self.presets.iter().map(|preset| {
            let set = preset.constants.iter();
            let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
            let when = (preset.when.as_ref()).map_or(String::new(), |when| format!(", where {when}"));
            format!(
                "preset {}: {} ({}{when})",
                preset.name,
                set.join(" "),
                preset.help
            )
        });
        let names = self.former_names.iter();
        let names = names.map(|former| format!("former name {}: {}", former.name, former.meaning));
        let rules = self.constraints.iter();
        let rules = rules.map(|c| format!("must hold: {} ({})", c.rule, c.because));
        presets.chain(names).chain(rules).collect()
    }
}

impl Entry {
    /// An entry point for other languages: `parameters` is null where they are not declared.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let list = self.parameters.as_ref();
        json!({"name": self.name, "when": self.when.as_ref().map(|rule| &rule.text), "sizes": self.sizes, "grid": numbers(self, &self.grid),
            "block": numbers(self, &self.block), "shared_mem_bytes": numbers(self, std::slice::from_ref(&self.shared_mem_bytes))[0],
            "cluster": self.cluster.as_ref().map(|sizes| sizes.each_ref().map(Size::to_string)),
            "struct": list.and_then(|list| list.cxx_struct.as_ref()),
            "parameters": list.map(|list| list.to_json(&self.sizes))})
    }

    /// How it is launched, for people: what is as usual is left out.
    #[must_use]
    pub fn launch_text(&self) -> String {
        let mut text = format!("grid [{}]", numbers(self, &self.grid).join(", "));
        let block = numbers(self, &self.block);
        if block[1..] != ["1", "1"] {
            let _ = write!(text, ", block [{}]", block.join(", "));
        }
        if let Axis::Computed(bytes) = &self.shared_mem_bytes {
            let _ = write!(text, ", shared memory {bytes}");
        }
        if let Some(cluster) = &self.cluster {
            let _ = write!(
                text,
                ", cluster [{}]",
                cluster.each_ref().map(Size::to_string).join(", ")
            );
        }
        if let Some(percent) = &self.carveout {
            let _ = write!(text, ", carve-out {percent} %");
        }
        if let Some(priority) = &self.priority {
            let _ = write!(text, ", priority {priority}");
        }
        text
    }
}

impl Parameter {
    /// A parameter for people: name, type with its shape, access, when it may be null, help.
    #[must_use]
    pub fn row(&self, sizes: &[String]) -> [String; 5] {
        let (access, null) = match &self.kind {
            ParameterKind::Pointer { access, optional, .. } => {
                let null = match optional {
                    Optional::Fixed(true) => "yes".to_owned(),
                    Optional::Fixed(false) => String::new(),
                    Optional::When(rule) => format!("if {rule}"),
                };
                (access.name(), null)
            }
            ParameterKind::Scalar { .. } | ParameterKind::Bytes { .. } => ("", String::new()),
        };
        [
            self.name.clone(),
            self.type_text(sizes),
            access.to_owned(),
            null,
            self.help.clone(),
        ]
    }
}

/// Numbers of the launch, by the names of the declaration.
fn numbers(entry: &Entry, axes: &[Axis]) -> Vec<String> {
    let text = |axis: &Axis| match axis {
        Axis::Fixed(size) => size.to_string(),
        Axis::Computed(formula) => formula.to_string(),
        Axis::Launch { size, per, when } => {
            let size = entry.sizes.get(*size).cloned().unwrap_or_default();
            let blocks = match per {
                Size::Fixed(1) => size,
                per => format!("ceil({size} / {per})"),
            };
            match when {
                Some(rule) => format!("{blocks} if {rule} else 1"),
                None => blocks,
            }
        }
    };
    axes.iter().map(text).collect()
}

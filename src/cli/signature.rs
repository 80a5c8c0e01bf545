//! Entry points and their parameters, printed or as JSON.

use serde_json::{Value, json};

use super::output;
use crate::engine::request::template::{Axis, Entry, Optional, Parameter, ParameterKind, Size};

/// An entry point for other languages: `parameters` is null where they are not declared.
pub(super) fn to_json(entry: &Entry) -> Value {
    let list = entry.parameters.as_ref();
    json!({"name": entry.name, "when": entry.when.as_ref().map(|rule| &rule.text), "sizes": entry.sizes, "grid": grid(entry),
        "struct": list.and_then(|list| list.cxx_struct.as_ref()),
        "parameters": list.map(|list| list.to_json(&entry.sizes))})
}

/// Entry points with their signatures; a list that several share is printed once.
pub(super) fn print(entries: &[Entry]) {
    let mut printed: Vec<&Entry> = Vec::new();
    for entry in entries {
        output::line(format!(
            "  entry {}: grid [{}]",
            entry.name,
            grid(entry).join(", ")
        ));
        let Some(list) = &entry.parameters else {
            output::line("    its parameters are not declared");
            continue;
        };
        let same = |other: &&&Entry| {
            other
                .parameters
                .as_ref()
                .is_some_and(|p| std::sync::Arc::ptr_eq(p, list))
        };
        if let Some(other) = printed.iter().find(same) {
            output::line(format!("    takes what {} takes", other.name));
            continue;
        }
        printed.push(entry);
        if let Some(name) = &list.cxx_struct {
            output::line(format!("    takes one {name} by value, a word a parameter"));
        }
        let mut rows = vec![
            ["    parameter", "type", "access", "may be null", "what"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(list.parameters.iter().map(|p| row(p, &entry.sizes)));
        output::table(&rows);
    }
}

fn row(parameter: &Parameter, sizes: &[String]) -> Vec<String> {
    let (access, null) = match &parameter.kind {
        ParameterKind::Pointer { access, optional, .. } => {
            let null = match optional {
                Optional::Fixed(true) => "yes".to_owned(),
                Optional::Fixed(false) => String::new(),
                Optional::When(rule) => format!("if {rule}"),
            };
            (access.name(), null)
        }
        ParameterKind::Scalar { .. } => ("", String::new()),
    };
    vec![
        format!("    {}", parameter.name),
        parameter.type_text(sizes),
        access.to_owned(),
        null,
        parameter.help.clone(),
    ]
}

/// Blocks in x, y, z, by the names of the declaration.
fn grid(entry: &Entry) -> Vec<String> {
    let text = |size: &Size| match size {
        Size::Fixed(number) => number.to_string(),
        Size::Flag(flag) => u32::from(*flag).to_string(),
        Size::Named(name) => name.clone(),
    };
    let axis = |axis: &Axis| match axis {
        Axis::Fixed(size) => text(size),
        Axis::Launch { size, per, when } => {
            let size = entry.sizes.get(*size).cloned().unwrap_or_default();
            let blocks = match per {
                Size::Fixed(1) => size,
                per => format!("ceil({size} / {})", text(per)),
            };
            match when {
                Some(rule) => format!("{blocks} if {rule} else 1"),
                None => blocks,
            }
        }
    };
    entry.grid.iter().map(axis).collect()
}

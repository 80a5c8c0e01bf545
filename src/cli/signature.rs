//! Entry points and their parameters, printed or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::output;
use crate::engine::request::template::{Axis, Entry, Optional, Parameter, ParameterKind, Size};

/// An entry point for other languages: `parameters` is null where they are not declared.
pub(super) fn to_json(entry: &Entry) -> Value {
    let list = entry.parameters.as_ref();
    json!({"name": entry.name, "when": entry.when.as_ref().map(|rule| &rule.text), "sizes": entry.sizes, "grid": numbers(entry, &entry.grid),
        "block": numbers(entry, &entry.block), "shared_mem_bytes": numbers(entry, std::slice::from_ref(&entry.shared_mem_bytes))[0],
        "cluster": entry.cluster.as_ref().map(|sizes| sizes.each_ref().map(Size::to_string)),
        "struct": list.and_then(|list| list.cxx_struct.as_ref()),
        "parameters": list.map(|list| list.to_json(&entry.sizes))})
}

/// Entry points with their signatures; a list that several share is printed once.
pub(super) fn print(entries: &[Entry]) {
    let mut printed: Vec<&Entry> = Vec::new();
    for entry in entries {
        output::line(format!("  entry {}: {}", entry.name, launch(entry)));
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

/// How it is launched, for people: what is as usual is left out.
fn launch(entry: &Entry) -> String {
    let mut text = format!("grid [{}]", numbers(entry, &entry.grid).join(", "));
    let block = numbers(entry, &entry.block);
    if block[1..] != ["1", "1"] {
        let _ = write!(text, ", block [{}]", block.join(", "));
    }
    if let Axis::Computed(bytes) = &entry.shared_mem_bytes {
        let _ = write!(text, ", shared memory {bytes}");
    }
    if let Some(cluster) = &entry.cluster {
        let _ = write!(
            text,
            ", cluster [{}]",
            cluster.each_ref().map(Size::to_string).join(", ")
        );
    }
    if let Some(percent) = &entry.carveout {
        let _ = write!(text, ", carve-out {percent} %");
    }
    if let Some(priority) = &entry.priority {
        let _ = write!(text, ", priority {priority}");
    }
    text
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
        ParameterKind::Scalar { .. } | ParameterKind::Bytes { .. } => ("", String::new()),
    };
    vec![
        format!("    {}", parameter.name),
        parameter.type_text(sizes),
        access.to_owned(),
        null,
        parameter.help.clone(),
    ]
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

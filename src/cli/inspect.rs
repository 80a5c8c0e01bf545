//! `jitc render`, `jitc key`, `jitc families`: what would be compiled.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::template::{Entry, Family, Registry};

pub(super) fn render_command(registry: &Registry) -> Command {
    let out = args::path(
        "out",
        "Write it with its headers below this folder, for profilers",
    )
    .value_name("DIR");
    let render = Command::new("render").about("Print the rendered source");
    args::constants(render.args([args::family_names(), out]), registry)
}

pub(super) fn key_command(registry: &Registry) -> Command {
    let key = Command::new("key").about("Print keys and what they cover");
    args::constants(key.arg(args::family_names()), registry)
}

pub(super) fn families_command(_: &Registry) -> Command {
    Command::new("families")
        .about("List families: constants, legal values, defaults, entry points and what they take")
        .arg(args::family_names().help("Families; without one, all"))
}

pub(super) fn render(jit: &Jit, matches: &ArgMatches, _json: bool) -> Answer {
    for spec in super::specs(jit, &args::families(matches))? {
        match matches.get_one::<PathBuf>("out") {
            Some(folder) => output::line(jit.write_source(&spec, folder)?.display().to_string()),
            None => output::text(jit.describe(&spec)?.1.source),
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn key(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    for spec in super::specs(jit, &args::families(matches))? {
        let (request, _) = jit.describe(&spec)?;
        if json {
            output::json(
                &json!({"family": request.family(), "arch": request.arch(), "key": request.key(),
                "preimage": request.preimage().fields}),
            );
            continue;
        }
        output::line(format!(
            "{}  {} {} {}",
            request.key(),
            request.family(),
            spec.variant(),
            spec.arch()
        ));
        for field in &request.preimage().fields {
            output::line(format!("  {:<15} {:<24} {}", field.tag, field.name, field.value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn families(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let registry = jit.registry();
    let named = args::families(matches);
    let mut families: Vec<Arc<Family>> = if named.is_empty() {
        registry.families().cloned().collect()
    } else {
        let named = named.iter().map(|n| registry.named(n));
        named
            .map(|named| named.map(|n| Arc::clone(n.family())))
            .collect::<Result<_, _>>()?
    };
    // Two former names may be one family's.
    families.dedup_by(|a, b| a.name == b.name);
    for family in families {
        if json {
            output::json(&family.to_json());
            continue;
        }
        output::line(format!("{}: {}", family.name, family.summary));
        let mut rows = vec![
            ["  constant", "type", "default", "legal", "variables", "what"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for c in family.constants.values() {
            rows.push(vec![
                format!("  {}", c.name),
                c.legal.type_of().to_string(),
                c.default.to_string(),
                c.legal.to_string(),
                c.variables.join(" "),
                c.help.clone(),
            ]);
        }
        output::table(&rows);
        for line in family.notes() {
            output::line(format!("  {line}"));
        }
        print_entries(&family.entries);
        output::line("");
    }
    Ok(ExitCode::SUCCESS)
}

/// Entry points with what they take; a list that several share is printed once.
fn print_entries(entries: &[Entry]) {
    let mut printed: Vec<&Entry> = Vec::new();
    for entry in entries {
        output::line(format!("  entry {}: {}", entry.name, entry.launch_text()));
        let Some(list) = &entry.parameters else {
            output::line("    its parameters are not declared");
            continue;
        };
        let same = |other: &&&Entry| other.parameters.as_ref().is_some_and(|p| Arc::ptr_eq(p, list));
        if let Some(other) = printed.iter().find(same) {
            output::line(format!("    takes what {} takes", other.name));
            continue;
        }
        printed.push(entry);
        if let Some(name) = &list.cxx_struct {
            output::line(format!("    takes one {name} by value, a word a parameter"));
        }
        let mut rows = vec![["    parameter", "type", "access", "may be null", "what"].map(str::to_owned)];
        rows.extend(list.parameters.iter().map(|parameter| {
            let mut row = parameter.row(&entry.sizes);
            row[0].insert_str(0, "    ");
            row
        }));
        output::table(&rows.into_iter().map(Vec::from).collect::<Vec<_>>());
    }
}

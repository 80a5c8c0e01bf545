//! `jitc cache show`: one entry, or one of the things that it holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::json;

use super::{find, key_arg, not_found};
use crate::cli::{Answer, output};
use crate::engine::atomic_file::write_atomically;
use crate::engine::cache::{TierName, Whole, plain};
use crate::engine::jit::Jit;
use crate::measure::MeasureError;
use crate::measure::format::NumberFormat;

const THINGS: [(&str, &str); 6] = [
    ("source", "Print the rendered source"),
    ("headers", "Print the headers that the compiler was given"),
    ("log", "Print the compile log"),
    ("preimage", "Print everything that the key covers"),
    (
        "ptx",
        "Print the PTX, made anew from the entry's own source by the same NVRTC",
    ),
    ("sass", "Print the machine code, through nvdisasm or cuobjdump"),
];

pub(super) fn command() -> Command {
    let things = THINGS.map(|(name, help)| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help));
    Command::new("show")
        .about("Show an entry, or one of the things that it holds")
        .arg(key_arg("key"))
        .args(things)
        .arg(
            Arg::new("cubin")
                .long("cubin")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Write the machine code to FILE, or to standard output if it is -"),
        )
        .group(
            ArgGroup::new("thing")
                .args(THINGS.map(|(name, _)| name))
                .arg("cubin"),
        )
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let prefix = matches.get_one::<String>("key").map_or("", String::as_str);
    let (whole, tier) = match find(jit, prefix).and_then(|key| jit.cache().find_whole(&key)) {
        Ok(found) => found,
        Err(error) => return Ok(not_found(&error)),
    };
    if let Some(path) = matches.get_one::<PathBuf>("cubin") {
        return Ok(cubin(&whole, path));
    }
    let thing = THINGS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| matches.get_flag(name));
    let Some(thing) = thing else {
        summary(jit, &whole, &tier, json);
        return Ok(ExitCode::SUCCESS);
    };
    let text = match thing {
        "source" => whole.texts().source.clone(),
        "log" => whole.texts().log.clone(),
        "headers" => headers(&whole),
        "preimage" => preimage(&whole),
        "ptx" => jit.ptx(&whole)?,
        _ => jit.sass(&whole).map_err(|e| MeasureError::Family(e.into()))?,
    };
    let key = whole.entry().manifest().key;
    match thing {
        "preimage" if json => {
            output::json(&json!({"key": key, "preimage": whole.entry().manifest().preimage.fields}));
        }
        "headers" if json => output::json(
            &json!({"key": key, "headers": whole.texts().headers.iter().map(|(n, t)| (n, &**t)).collect::<BTreeMap<_, _>>()}),
        ),
        _ if json => output::json(&json!({"key": key, thing: text})),
        _ => output::text(text),
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(jit: &Jit, whole: &Whole, tier: &TierName, json: bool) {
    let (manifest, notes) = (whole.entry().manifest(), whole.entry().notes());
    let key = &manifest.key;
    let store = jit
        .cache()
        .tiers()
        .iter()
        .find(|t| t.name() == tier)
        .and_then(|t| t.store());
    let path = store.map(|store| store.entry_path(key));
    let record = store.and_then(|store| store.record(key));
    let used = record.as_ref().map(|record| record.used_unix_ms);
    let bytes = whole.to_bytes().len() as u64;
    if json {
        output::json(
            &json!({"tier": tier, "path": path.as_ref().map(|path| path.to_string_lossy()), "used_unix_ms": used, "bytes": bytes,
            "notes": notes, "manifest": manifest}),
        );
        return;
    }
    let style = NumberFormat::of_stdout();
    let field = |name: &str, value: String| output::line(format!("{name:<10} {value}"));
    field("key", key.to_string());
    field("family", format!("{} {}", manifest.family, manifest.arch));
    field("tier", tier.to_string());
    if let Some(path) = path {
        field("file", path.display().to_string());
    }
    field("toolchain", manifest.toolchain.to_string());
    field("options", manifest.options.join(" "));
    for (name, value) in &manifest.constants {
        field("constant", format!("{name} = {}", plain(value)));
    }
    for r in &manifest.resources {
        field(
            "entry",
            format!(
                "{}: {} registers, {} bytes spilled, {} bytes of stack, {} bytes of static shared memory",
                r.entry, r.registers, r.spill_bytes, r.stack_bytes, r.shared_bytes
            ),
        );
    }
    if let Some(compile_us) = notes.compile_us {
        field("compile", style.millis(compile_us));
    }
    field("size", style.size(bytes));
    field(
        "created",
        format!("{} by jitc {}", style.time(notes.created_unix_ms), notes.jitc),
    );
    if let Some(used) = used {
        field("last used", style.time(used));
    }
    let parts = [
        ("code", &manifest.code),
        ("source", &manifest.source),
        ("log", &manifest.log),
    ];
    for (name, part) in parts {
        field(
            name,
            format!("{} sha256 {}", style.size(part.length), part.sha256),
        );
    }
    for header in &manifest.headers {
        field(
            "header",
            format!(
                "{} {} sha256 {}",
                header.name,
                style.size(header.length),
                header.sha256
            ),
        );
    }
}

fn headers(whole: &Whole) -> String {
    let mut texts = String::new();
    for (name, text) in &whole.texts().headers {
        texts.extend(["// ", name, "\n", text, "\n"]);
    }
    texts
}

fn preimage(whole: &Whole) -> String {
    let fields = whole.entry().manifest().preimage.fields.iter();
    let lines = fields.map(|f| format!("{:<15} {:<24} {}", f.tag, f.name, f.value));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Writes the machine code, as vendors' tools read it.
fn cubin(whole: &Whole, path: &Path) -> ExitCode {
    let code = whole.entry().code();
    let written = if path.as_os_str() == "-" {
        output::bytes(code)
    } else {
        write_atomically(path, 0o644, |file| file.write_all(code))
    };
    if let Err(error) = written {
        output::error(format!("{}: {error}", path.display()));
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

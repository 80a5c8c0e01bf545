//! `jitc cache show`: one entry, or one of the things that it holds.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::json;

use super::{find, key_arg, not_found};
use crate::cli::format::NumberFormat;
use crate::cli::{Answer, output};
use crate::engine::cache::{Entry, FindError, Load, TierName};
use crate::engine::jit::Jit;

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
        .group(ArgGroup::new("thing").args(THINGS.map(|(name, _)| name)))
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let prefix = matches.get_one::<String>("key").map_or("", String::as_str);
    let (entry, tier) = match read(jit, prefix) {
        Ok(found) => found,
        Err(error) => return Ok(not_found(&error)),
    };
    let thing = THINGS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| matches.get_flag(name));
    let Some(thing) = thing else {
        summary(jit, &entry, &tier, json);
        return Ok(ExitCode::SUCCESS);
    };
    let text = match thing {
        "source" => entry.source(),
        "log" => entry.log(),
        "headers" => headers(&entry),
        "preimage" => preimage(&entry),
        "ptx" => jit.ptx(&entry)?,
        _ => match sass(jit, &entry) {
            Ok(text) => text,
            Err(reason) => {
                output::error(reason);
                return Ok(ExitCode::from(2));
            }
        },
    };
    let key = entry.manifest().key;
    match thing {
        "preimage" if json => {
            output::json(&json!({"key": key, "preimage": entry.manifest().preimage.fields}));
        }
        "headers" if json => output::json(&json!({"key": key, "headers": entry.headers()})),
        _ if json => output::json(&json!({"key": key, thing: text})),
        _ => output::text(text),
    }
    Ok(ExitCode::SUCCESS)
}

/// The entry that a request would be given, and the tier that has it.
fn read(jit: &Jit, prefix: &str) -> Result<(Entry, TierName), FindError> {
    let key = find(jit, prefix)?;
    let mut wrong = FindError::None(key.hex());
    for tier in jit.cache().tiers() {
        match tier.peek(&key) {
            Load::Found(entry) => return Ok((*entry, tier.name().clone())),
            Load::Bad(fault) => wrong = FindError::Bad { key, fault },
            Load::Unavailable(error) => wrong = error.into(),
            Load::Absent => {}
        }
    }
    Err(wrong)
}

fn summary(jit: &Jit, entry: &Entry, tier: &TierName, json: bool) {
    let manifest = entry.manifest();
    let key = &manifest.key;
    let store = jit
        .cache()
        .tiers()
        .iter()
        .find(|t| t.name() == tier)
        .and_then(|t| t.store());
    let folder = store.map(|store| store.entry_path(key));
    let record = store.and_then(|store| store.record(key));
    let used = record.as_ref().map(|record| record.used_unix_ms);
    let bytes = manifest.payload_bytes() + entry.files().manifest.len() as u64;
    if json {
        output::json(
            &json!({"tier": tier, "folder": folder.as_ref().map(|folder| folder.to_string_lossy()), "used_unix_ms": used, "bytes": bytes,
            "manifest": manifest}),
        );
        return;
    }
    let style = NumberFormat::of_stdout();
    let field = |name: &str, value: String| output::line(format!("{name:<10} {value}"));
    field("key", key.to_string());
    field("family", format!("{} {}", manifest.family, manifest.arch));
    field("tier", tier.to_string());
    if let Some(folder) = folder {
        field("folder", folder.display().to_string());
    }
    field("toolchain", manifest.toolchain.to_string());
    field("options", manifest.options.join(" "));
    for (name, value) in &manifest.constants {
        field("constant", format!("{name} = {}", super::filter::plain(value)));
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
    field("compile", style.millis(manifest.compile_us));
    field("size", style.size(bytes));
    field(
        "created",
        format!(
            "{} by jitc {}",
            style.time(manifest.created_unix_ms),
            manifest.jitc
        ),
    );
    if let Some(used) = used {
        field("last used", style.time(used));
    }
    for file in &manifest.files {
        field(
            "file",
            format!("{} {} sha256 {}", file.name, style.size(file.length), file.sha256),
        );
    }
}

fn headers(entry: &Entry) -> String {
    let mut texts = String::new();
    for (name, text) in entry.headers() {
        texts.extend(["// ", &name, "\n", &text, "\n"]);
    }
    texts
}

fn preimage(entry: &Entry) -> String {
    let fields = entry.manifest().preimage.fields.iter();
    let lines = fields.map(|f| format!("{:<15} {:<24} {}", f.tag, f.name, f.value));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The machine code as text, by whichever of the vendor's tools is found.
fn sass(jit: &Jit, entry: &Entry) -> Result<String, String> {
    let mut file = tempfile::Builder::new()
        .prefix("jitc-")
        .suffix(".cubin")
        .tempfile()
        .map_err(|e| e.to_string())?;
    file.write_all(&entry.files().payload[0])
        .map_err(|e| e.to_string())?;
    let tools: [(&str, &[&str]); 2] = [("nvdisasm", &["-c"]), ("cuobjdump", &["-sass"])];
    for (tool, args) in tools {
        let elsewhere = jit
            .config()
            .cuda_homes()
            .into_iter()
            .map(|(_, home)| home.join("bin").join(tool));
        for program in std::iter::once(PathBuf::from(tool)).chain(elsewhere) {
            let Ok(done) = std::process::Command::new(&program)
                .args(args)
                .arg(file.path())
                .output()
            else {
                continue;
            };
            if done.status.success() {
                return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
            }
            let words = String::from_utf8_lossy(&done.stderr);
            return Err(format!("{}: {}", program.display(), words.trim()));
        }
    }
    Err("neither nvdisasm nor cuobjdump was found: put one on PATH, or set CUDA_HOME \
         (both come with the CUDA toolkit, and as the packages nvidia-cuda-nvdisasm and nvidia-cuda-cuobjdump)"
        .to_owned())
}

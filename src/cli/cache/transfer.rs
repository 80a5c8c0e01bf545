//! `jitc cache export`, `import` and `embed`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::filter::{filter_args, query};
use crate::cli::output;
use crate::engine::cache::Store;
use crate::engine::cache::bundle::{BundleError, Exported, Imported};
use crate::engine::jit::{ExportError, Jit};
use crate::engine::regular_file;
use crate::measure::format::NumberFormat;

fn out_arg() -> Arg {
    Arg::new("out")
        .long("out")
        .short('o')
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The bundle to write; a file that is there is replaced; - is standard output")
}

pub(super) fn export_command() -> Command {
    let export = Command::new("export").about("Write entries into one file, for `import` elsewhere");
    filter_args(export.arg(out_arg()))
}

pub(super) fn embed_command() -> Command {
    let embed =
        Command::new("embed").about("Write entries into one file, for include_bytes!, and say how to use it");
    filter_args(embed.arg(out_arg()))
}

pub(super) fn import_command() -> Command {
    Command::new("import")
        .about("Take a bundle's entries into the folder that is written to, verified")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The bundle; - is standard input"),
        )
}

pub(super) fn export(jit: &Jit, matches: &ArgMatches, json: bool) -> ExitCode {
    let path = out_path(matches);
    let exported = match write(jit, matches, &path) {
        Ok(exported) => exported,
        Err(code) => return code,
    };
    let bytes = NumberFormat::of_stdout().size(exported.bytes);
    let said = format!("{} entries in {bytes}: {}", exported.entries, path.display());
    if path.as_os_str() == "-" {
        // The bundle itself is what standard output has.
        output::note(said);
    } else if json {
        output::json(&json!({"file": path.to_string_lossy(), "exported": exported}));
    } else {
        output::line(said);
    }
    ended(&exported)
}

pub(super) fn embed(jit: &Jit, matches: &ArgMatches, json: bool) -> ExitCode {
    let path = out_path(matches);
    let exported = match write(jit, matches, &path) {
        Ok(exported) => exported,
        Err(code) => return code,
    };
    let absolute = std::path::absolute(&path).unwrap_or(path);
    if json {
        output::json(&json!({"file": absolute.to_string_lossy(), "exported": exported}));
    } else if let Some(text) = absolute.to_str() {
        // Debug of a text is a Rust string literal.
        output::line(format!("static KERNELS: &[u8] = include_bytes!({text:?});"));
        output::line("let jit = jitc::engine::jit::Jit::builder(config).embedded(KERNELS).build()?;");
    } else {
        let path = absolute.display();
        output::error(format!(
            "{path}: a Rust source can name no file that is not UTF-8: choose another name"
        ));
        return ExitCode::from(2);
    }
    ended(&exported)
}

fn out_path(matches: &ArgMatches) -> PathBuf {
    matches.get_one::<PathBuf>("out").cloned().unwrap_or_default()
}

/// Not all that was asked for is a negative answer.
fn ended(exported: &Exported) -> ExitCode {
    for key in &exported.skipped {
        output::note(format!("left out, since it is bad: {key}"));
    }
    ExitCode::from(u8::from(!exported.skipped.is_empty()))
}

/// Writes the bundle; a failure is said here. A filter that fits nothing is a negative
/// answer, and leaves what is at the path alone: it may be a slip in a name.
fn write(jit: &Jit, matches: &ArgMatches, path: &Path) -> Result<Exported, ExitCode> {
    let exported = jit.export(&query(matches), path, &mut |tier, error| {
        output::note(format!("{tier}: {error}"));
    });
    match exported {
        Ok(exported) => Ok(exported),
        Err(error @ ExportError::Nothing(_)) => {
            output::error(format!("{}: not written: {error}", path.display()));
            Err(ExitCode::from(1))
        }
        Err(error) => {
            output::error(format!("{}: {error}", path.display()));
            Err(ExitCode::from(2))
        }
    }
}

/// What came in, and how many winners.
pub(super) fn say_imported((imported, tuned): &(Imported, usize), store: &Store, json: bool) {
    if *tuned > 0 {
        output::note(format!("tuned variants taken in: {tuned}"));
    }
    if json {
        output::json(&json!(imported));
    } else {
        let Imported { added, present } = imported;
        let folder = store.root().display();
        output::line(format!(
            "{added} entries added, {present} were there already: {folder}"
        ));
    }
}

pub(super) fn import(jit: &Jit, store: &Store, matches: &ArgMatches, json: bool) -> ExitCode {
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let imported = regular_file::open_or_input(&path)
        .map_err(BundleError::from)
        .and_then(|mut file| jit.import(store, &mut file));
    match imported {
        Ok(imported) => say_imported(&imported, store, json),
        Err(error) => {
            // Refused before anything was written, unless the folder itself failed.
            let failed = matches!(error, BundleError::Cache(_));
            let rest = if failed { "" } else { "; nothing was changed" };
            output::error(regular_file::named(&path, format!("{error}{rest}")));
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

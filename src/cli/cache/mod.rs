//! `jitc cache`: looks into the cache's folders, carries entries, keeps bounds.

mod diff;
pub(in crate::cli) mod filter;
#[cfg(feature = "remote")]
pub(super) mod fleet;
mod list;
mod maintain;
mod show;
mod transfer;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::{Answer, output};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::{FindError, Store};
use crate::engine::jit::{Error, Jit};
use crate::engine::request::template::Registry;
use crate::engine::sign::Place;

pub(super) fn command(_: &Registry) -> Command {
    let cache = Command::new("cache")
        .about("Inspect, transfer and prune the cache")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("dir").about("Print the folder that is written to"),
            list::ls_command(),
            show::command(),
            list::stats_command(),
            maintain::verify_command(),
            diff::command(),
            maintain::prune_command(),
            maintain::rm_command(),
            maintain::clean_command(),
            transfer::export_command(),
            transfer::import_command(),
            transfer::embed_command(),
        ]);
    #[cfg(feature = "remote")]
    let cache = cache.subcommands([fleet::push_command(), fleet::pull_command()]);
    cache
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    match matches.subcommand() {
        Some(("ls", matches)) => list::ls(jit, matches, json),
        Some(("show", matches)) => show::run(jit, matches, json),
        Some(("stats", matches)) => list::stats(jit, matches, json),
        Some(("verify", matches)) => maintain::verify(jit, matches, json),
        Some(("diff", matches)) => diff::run(jit, matches, json),
        Some(("export", matches)) => Ok(transfer::export(jit, matches, json)),
        Some(("embed", matches)) => Ok(transfer::embed(jit, matches, json)),
        #[cfg(feature = "remote")]
        Some(("push", matches)) => fleet::push(jit, matches, json),
        Some((verb, matches)) => match (user_store(jit)?, verb) {
            (None, _) => {
                output::error("there is no cache folder: set HOME, JITC_CACHE_DIR or --cache-dir");
                Ok(ExitCode::from(2))
            }
            (Some(store), "prune") => maintain::prune(jit, &store, matches, json),
            (Some(store), "rm") => maintain::rm(&store, matches, json),
            (Some(store), "clean") => maintain::clean(&store, matches, json),
            (Some(store), "import") => Ok(transfer::import(jit, &store, matches, json)),
            #[cfg(feature = "remote")]
            (Some(store), "pull") => fleet::pull(jit, &store, matches, json),
            (Some(store), _) => {
                output::path(store.root());
                Ok(ExitCode::SUCCESS)
            }
        },
        None => Ok(ExitCode::from(2)),
    }
}

/// The folder that is written to.
pub(in crate::cli) fn user_store(jit: &Jit) -> Result<Option<Store>, Error> {
    let trust = jit.config().cache_trust()?;
    let admission = jit.signing().of(Place::User);
    Ok(jit
        .config()
        .cache_dir()
        .map(|dir| Store::new(dir).with_trust(trust).with_admission(admission)))
}

/// A key, or enough of its first digits.
fn key_arg(name: &'static str) -> Arg {
    Arg::new(name)
        .required(true)
        .value_name("KEY")
        .help("A key, or enough of its first digits")
}

/// The one key of all folders that starts with these digits; a folder that cannot be read is
/// said to be so.
fn find(jit: &Jit, prefix: &str) -> Result<CacheKey, FindError> {
    jit.cache()
        .find(prefix, &mut |error| output::note(error.to_string()))
}

/// Says why there is no such entry: 1 if there is none, else 2.
fn not_found(error: &FindError) -> ExitCode {
    if matches!(error, FindError::None(_)) {
        output::note(error.to_string());
        return ExitCode::from(1);
    }
    output::error(error);
    if let FindError::Ambiguous { keys, .. } = error {
        keys.iter()
            .take(20)
            .for_each(|key| output::note(format!("  {key}")));
    }
    ExitCode::from(2)
}

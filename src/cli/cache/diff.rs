//! `jitc cache diff`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::{find, key_arg, not_found};
use crate::cli::output;
use crate::engine::cache::{FindError, diff};
use crate::engine::jit::Jit;

pub(super) fn command() -> Command {
    Command::new("diff")
        .about("Say in which components of their keys two entries differ")
        .args([key_arg("first"), key_arg("second")])
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> ExitCode {
    let entry = |name: &str| {
        let prefix = matches.get_one::<String>(name).map_or("", String::as_str);
        let key = find(jit, prefix)?;
        let entry = jit.cache().whole(&key);
        entry.ok_or_else(|| FindError::None(key.hex()))
    };
    let (first, second) = match (entry("first"), entry("second")) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => return not_found(&error),
    };
    let differences = diff(&first, &second);
    if json {
        output::json(
            &json!({"here": first.entry().manifest().key, "there": second.entry().manifest().key,
            "differences": differences}),
        );
    } else {
        output::line(format!("here  {}", first.entry().manifest().key));
        output::line(format!("there {}", second.entry().manifest().key));
        for difference in &differences {
            output::line(format!("  {difference}"));
        }
        if differences.is_empty() {
            output::line("  nothing differs");
        }
    }
    ExitCode::from(u8::from(!differences.is_empty()))
}

//! `jitc cache diff`.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use similar::TextDiff;

use super::{find, key_arg, not_found};
use crate::cli::{Answer, output};
use crate::engine::cache::{Compared, FindError, Whole, diff, measures};
use crate::engine::jit::Jit;
use crate::measure::MeasureError;

const TEXTS: [(&str, &str); 3] = [
    ("source", "Compare the rendered sources, too, line by line"),
    ("ptx", "Compare the PTX, made anew as `cache show --ptx` makes it"),
    (
        "sass",
        "Compare the machine code, as `cache show --sass` prints it",
    ),
];

pub(super) fn command() -> Command {
    let texts = TEXTS.map(|(name, help)| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help));
    Command::new("diff")
        .about("Say in which components of their keys two entries differ, and in what they measure")
        .args([key_arg("first"), key_arg("second")])
        .args(texts)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let entry = |name: &str| {
        let prefix = matches.get_one::<String>(name).map_or("", String::as_str);
        let key = find(jit, prefix)?;
        let entry = jit.cache().whole(&key);
        entry.ok_or_else(|| FindError::None(key.hex()))
    };
    let (first, second) = match (entry("first"), entry("second")) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => return Ok(not_found(&error)),
    };
    let differences = diff(&first, &second);
    let measures = measures(&first, &second);
    if json {
        output::json(
            &json!({"here": first.entry().manifest().key, "there": second.entry().manifest().key,
            "differences": differences, "measures": measures}),
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
        output::line("");
        output::table(&rows(&measures));
    }
    for (name, _) in TEXTS.iter().filter(|(name, _)| matches.get_flag(name)) {
        let (here, there) = (text_of(jit, &first, name)?, text_of(jit, &second, name)?);
        let compared = TextDiff::from_lines(&here, &there);
        let unified = compared.unified_diff().header("here", "there").to_string();
        if json {
            output::json(&json!({"what": name, "diff": unified}));
        } else {
            output::line("");
            output::text(unified);
        }
    }
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}

fn rows(measures: &[Compared]) -> Vec<Vec<String>> {
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |m: &Compared| {
        let entry = if m.entry.is_empty() { "all" } else { &m.entry };
        vec![
            entry.to_owned(),
            m.what.to_owned(),
            number(m.here),
            number(m.there),
        ]
    };
    let heading = ["entry", "what", "here", "there"].map(str::to_owned).to_vec();
    std::iter::once(heading).chain(measures.iter().map(row)).collect()
}

fn text_of(jit: &Jit, whole: &Whole, what: &str) -> Result<String, MeasureError> {
    Ok(match what {
        "source" => whole.texts().source.clone(),
        "ptx" => jit.ptx(whole)?,
        _ => jit.sass(whole).map_err(|e| MeasureError::Family(e.into()))?,
    })
}

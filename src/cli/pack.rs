//! `jitc pack`: an NVFP4 weight's files into a packed layout, and back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::regions::refused;
use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::families::nvfp4::files::{Conversion, convert};
use crate::families::nvfp4::packed::{PACKED, PACKED64};

pub(super) fn command(_: &Registry) -> Command {
    let path = |name: &'static str, help: &'static str| args::path(name, help).required(true);
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(args::count::<u32>)
            .required(true)
            .help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("pack")
        .about("Repack an NVFP4 weight for tensor cores, or unpack it; needs no GPU")
        .arg(number("rows", "Rows of the weight, a multiple of 8"))
        .arg(number("k", "Elements of a row, a multiple of 64, or 128"))
        .arg(
            Arg::new("layout")
                .long("layout")
                .value_name("NAME")
                .value_parser(["packed", "packed64"])
                .required(true)
                .help("packed: weight_layout of wo_gemv and gemv; packed64: of the decode layer"),
        )
        .arg(path("codes", "Codes to read: rows * k / 2 bytes"))
        .arg(path("scales", "Scales to read"))
        .arg(path("out-codes", "Codes to write"))
        .arg(path("out-scales", "Scales to write"))
        .arg(flag(
            "linear-scales",
            "Plain scales lie row by row instead of in swizzled tiles",
        ))
        .arg(flag("unpack", "From packed to plain"))
}

#[expect(clippy::unnecessary_wraps, reason = "every verb has this signature")]
pub(super) fn run(_: &Jit, matches: &ArgMatches, as_json: bool) -> Answer {
    let asked = conversion(matches);
    let written = match convert(&asked) {
        Err(reason) => return Ok(refused(&reason.to_string())),
        Ok(written) => written,
    };
    let (codes, scales) = (&asked.out_codes, &asked.out_scales);
    if as_json {
        output::json(
            &json!({"event": "packed", "codes": codes, "code_bytes": written.codes.len(),
            "scales": scales, "scale_bytes": written.scales.len()}),
        );
    } else {
        for (path, bytes) in [(codes, written.codes.len()), (scales, written.scales.len())] {
            output::line(format!("{}  {bytes} bytes", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the flags ask for.
fn conversion(matches: &ArgMatches) -> Conversion {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or(1) as usize;
    Conversion {
        rows: number("rows"),
        k: number("k"),
        packing: match matches.get_one::<String>("layout").map(String::as_str) {
            Some("packed") => PACKED,
            _ => PACKED64,
        },
        unpack: matches.get_flag("unpack"),
        linear_scales: matches.get_flag("linear-scales"),
        codes: path("codes"),
        scales: path("scales"),
        out_codes: path("out-codes"),
        out_scales: path("out-scales"),
    }
}

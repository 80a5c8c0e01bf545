//! `jitc pack`: an NVFP4 weight's files into a packed layout, and back.
//!
//! Invariant: nothing that is there is written over, and a file appears whole or not
//! at all.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::regions::refused;
use super::whole::whole;
use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::families::nvfp4::packed::{PACKED, PACKED64, Weight};
use crate::families::nvfp4::swizzle;

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
        .about("An NVFP4 weight's files into a layout for tensor cores, or back; needs no GPU")
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
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    match convert(matches, &path) {
        Err(reason) => Ok(refused(&reason)),
        Ok(written) => {
            let (codes, scales) = (path("out-codes"), path("out-scales"));
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
    }
}

fn convert(matches: &ArgMatches, path: &dyn Fn(&str) -> PathBuf) -> Result<Weight, String> {
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or(1) as usize;
    let (rows, k, linear) = (number("rows"), number("k"), matches.get_flag("linear-scales"));
    let packing = match matches.get_one::<String>("layout").map(String::as_str) {
        Some("packed") => PACKED,
        _ => PACKED64,
    };
    for name in ["out-codes", "out-scales"] {
        if path(name).exists() {
            return Err(format!(
                "--{name} {}: it is there already; name another, or remove it",
                path(name).display()
            ));
        }
    }
    let read = |name: &str| fs_err::read(path(name)).map_err(|e| format!("--{name}: {e}"));
    let mut weight = Weight {
        codes: read("codes")?,
        scales: read("scales")?,
    };
    let wrong = |e: crate::families::nvfp4::packed::PackError| format!("{e}, for --rows {rows} --k {k}");
    let done = if matches.get_flag("unpack") {
        let mut plain = packing.unpack(&weight, rows, k).map_err(wrong)?;
        if linear {
            plain.scales = swizzle::unswizzle(&plain.scales, rows, k / 16);
        }
        plain
    } else {
        if linear {
            if weight.scales.len() != rows * (k / 16) {
                return Err(format!(
                    "the scales are {} bytes: expected {} row by row, for --rows {rows} --k {k}",
                    weight.scales.len(),
                    rows * (k / 16)
                ));
            }
            weight.scales = swizzle::swizzle(&weight.scales, rows, k / 16);
        }
        packing.pack(&weight, rows, k).map_err(wrong)?
    };
    for (name, bytes) in [("out-codes", &done.codes), ("out-scales", &done.scales)] {
        let path = path(name);
        whole(&path, 0o666, |file| file.write_all(bytes))
            .map_err(|e| format!("--{name} {}: {e}", path.display()))?;
    }
    Ok(done)
}

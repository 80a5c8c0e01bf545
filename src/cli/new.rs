//! `jitc new`: the files of a family to begin with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Answer, output};
use crate::engine::atomic_file::write_text;
use crate::engine::jit::Jit;
use crate::engine::request::cxx_name::check_name;
use crate::engine::request::template::Registry;
use crate::measure::MeasureError;

/// The example that every new family is, by the names of its files.
const FILES: [(&str, &str); 4] = [
    ("hello.toml", include_str!("../../examples/hello/hello.toml")),
    (
        "hello.cu.tera",
        include_str!("../../examples/hello/hello.cu.tera"),
    ),
    (
        "include/hello.cuh",
        include_str!("../../examples/hello/include/hello.cuh"),
    ),
    ("main.rs", include_str!("../../examples/hello/main.rs")),
];

pub(super) fn command(_: &Registry) -> Command {
    Command::new("new")
        .about("Write the files of a new family, and a program for it")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Name of the family"),
        )
        .arg(
            Arg::new("in")
                .long("in")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Folder to make; it must not be there yet [default: NAME]"),
        )
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let name = matches.get_one::<String>("name").map_or("", String::as_str);
    let wrong = |reason: String| MeasureError::Request(format!("new {name}: {reason}"));
    let begins = |c: char| c.is_ascii_lowercase();
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !(name.starts_with(begins) && name.chars().all(is_part)) {
        return Err(wrong(
            "is not a name: expected small letters, digits and `_`".into(),
        ));
    }
    check_name(name).map_err(|e| wrong(e.into()))?;
    if jit.registry().named(name).is_ok() {
        return Err(wrong("there is a family of this name: choose another".into()));
    }
    let folder = matches
        .get_one::<PathBuf>("in")
        .cloned()
        .unwrap_or_else(|| name.into());
    let folder = folder.as_path();
    let made = fs_err::create_dir(folder).and_then(|()| fs_err::create_dir(folder.join("include")));
    made.map_err(|e| wrong(e.to_string()))?;
    for (file, text) in FILES {
        let path = folder.join(file.replace("hello", name));
        write_text(&path, &text_of(text, name, folder)).map_err(|e| wrong(e.to_string()))?;
        if json {
            output::json(&serde_json::json!({"event": "written", "path": path}));
        } else {
            output::path(&path);
        }
    }
    if !json {
        let folder = folder.display();
        output::note(format!(
            "next: jitc check {folder}; jitc warm {name} --templates {folder}; \
             on a GPU jitc bench {name} --templates {folder}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A file of the example under another name and in another folder.
fn text_of(text: &str, name: &str, folder: &Path) -> String {
    let folder = folder.to_string_lossy();
    let folder = folder.escape_default().to_string();
    // In this order: the folder's name may have the word in it.
    let parts = text
        .split("examples/hello")
        .map(|part| part.replace("hello", name));
    parts.collect::<Vec<_>>().join(&folder)
}

//! The recipes of docs/FLEET.md, run as they stand.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::tier::Share;

const MARK: &str = "<!-- recipe: ";

/// The block under a mark.
fn recipe(name: &str) -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FLEET.md");
    let text = fs_err::read_to_string(document).expect("the document");
    let (_, rest) = text
        .split_once(&format!("{MARK}{name} -->\n```sh\n"))
        .expect("the recipe");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// Runs a recipe in a folder; nothing of the caller's settings reaches it.
fn run(name: &str, folder: &Path, share: &Share) {
    let program = assert_cmd::cargo::cargo_bin("jitc");
    let beside = program.parent().expect("a folder").display().to_string();
    let script = format!("set -eu\nPATH={beside}:$PATH\n{}", recipe(name));
    let mut shell = Command::new("bash");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("JITC_") {
            shell.env_remove(variable);
        }
    }
    let url = share.url("");
    let output = shell
        .args(["-c", &script])
        .current_dir(folder)
        .env("STORE", url.trim_end_matches('?'))
        .env("IMAGE", folder.join("image"))
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{name}: {}", said.concat());
}

#[test]
fn an_image_in_two_stages_starts_without_a_compile() {
    let folder = tempfile::tempdir().expect("a folder");
    run("image", folder.path(), &Share::new());
}

#[test]
fn a_pipeline_proves_its_target_and_its_shards_give_one_receipt() {
    let (folder, share) = (tempfile::tempdir().expect("a folder"), Share::new());
    run("pipeline", folder.path(), &share);
    run("receipt", folder.path(), &share);
}

#[test]
fn a_nightly_replays_what_the_fleet_compiled() {
    run(
        "nightly",
        tempfile::tempdir().expect("a folder").path(),
        &Share::new(),
    );
}

#[test]
fn every_recipe_is_run() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FLEET.md");
    let text = fs_err::read_to_string(document).expect("the document");
    let names = text
        .split(MARK)
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap_or_default());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["image", "pipeline", "receipt", "nightly"]
    );
    assert_eq!(text.matches("```sh").count(), 4);
}

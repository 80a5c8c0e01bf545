//! Licenses of what jitc is built from: those of `.ci/deny.toml`, and no other.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Whether a license expression can be met by these; `AND` binds closer than `OR`, and `/` is
/// an `OR` of older packages.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let all = |part: &str| {
        part.split(" AND ")
            .all(|one| allowed.iter().any(|a| a == one.trim()))
    };
    // Of `A AND (B OR C)` both readings have to hold: more strict than what is written.
    if expression.contains('(') && expression.contains(" AND ") {
        return plain
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|one| all(one.trim())));
    }
    plain.split(" OR ").any(all)
}

fn texts(list: &toml::Value) -> Vec<String> {
    let texts = list.as_array().expect("a list").iter();
    texts.filter_map(|one| Some(one.as_str()?.to_owned())).collect()
}

/// What is allowed of this package alone.
fn excepted(list: &toml::Table, package: &str) -> Vec<String> {
    let exceptions = list["licenses"]["exceptions"].as_array().expect("tables").iter();
    let own = exceptions.filter(|one| one["crate"].as_str() == Some(package));
    own.flat_map(|one| texts(&one["allow"])).collect()
}

#[test]
fn every_dependency_has_a_license_that_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs_err::read_to_string(root.join(".ci/deny.toml")).expect("list");
    let list: toml::Table = text.parse().expect("TOML");
    let allowed = texts(&list["licenses"]["allow"]);

    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root)
        .output()
        .expect("ran");
    if !metadata.status.success() {
        let words = String::from_utf8_lossy(&metadata.stderr);
        let _ = writeln!(
            std::io::stderr(),
            "skipped: not every dependency is here: {words}"
        );
        return;
    }
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "only {}", packages.len());
    let mut bad = Vec::new();
    for package in packages {
        let license = package["license"].as_str().unwrap_or("none");
        let own = excepted(&list, package["name"].as_str().unwrap_or_default());
        if !is_met(license, &[&allowed[..], &own[..]].concat()) {
            bad.push(format!("{}: {license}", package["name"]));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn expressions_of_licenses_are_read() {
    let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
    for (expression, met) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

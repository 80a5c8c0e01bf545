//! How an entry point is launched: what its family may say, and what is refused with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::{Family, Registry};

const CONSTANTS: &str = "summary = 's'\n[constants.block]\ntype = 'u32'\nvalues = [32, 2048]\ndefault = 32\nhelp = 'h'\n\
                         [constants.mode]\ntype = 'enum'\ncxx_type = 'M'\nvalues = ['a', 'b']\ndefault = 'a'\nhelp = 'h'\n\
                         [constants.scale]\ntype = 'f32'\nvalues = [0.5]\ndefault = 0.5\nhelp = 'h'\n";

fn family(lines: &str) -> Result<Arc<Family>, String> {
    let toml = format!("{CONSTANTS}[[entries]]\nname = 'k'\nsizes = ['n']\n{lines}\n");
    let files = [("f.toml", toml), ("f.cu.tera", String::new())];
    let files = BTreeMap::from(files.map(|(name, text)| (name.to_owned(), text)));
    let registry = Registry::from_files(&files).map_err(|e| e.to_string())?;
    Ok(Arc::clone(registry.get("f").expect("the only one")))
}

fn spec(lines: &str, set: &[(&str, &str)]) -> Result<KernelSpec, String> {
    let arch = "sm_90a".parse().expect("arch");
    KernelSpec::new(&family(lines)?, set.iter().copied(), arch).map_err(|e| e.to_string())
}

#[test]
fn a_launch_that_no_gpu_takes_is_one_line_with_its_place() {
    for (lines, expected) in [
        (
            "grid = 1\nblock = [32, 32, 2]",
            "entry `k`: a block of 32 x 32 x 2 is 2048 threads: a GPU takes at most 1024",
        ),
        (
            "grid = 1\nblock = [1, 1, 65]",
            "entry `k`: a block of 65 threads in z: a GPU takes at most 64",
        ),
        (
            "grid = 1\nblock = 0",
            "entry `k`: a block of 0 x 1 x 1 threads has none",
        ),
        (
            "grid = [1, 1, 1, 1]\nblock = 1",
            "entry `k`: grid has 4 axes: expected 1 to 3",
        ),
        (
            "grid = 'm * 2'\nblock = 1",
            "entry `k`: grid x: `m * 2` uses `m`, which nobody declares",
        ),
        (
            "grid = 'm'\nblock = 1",
            "entry `k` uses `m`, which nobody declares",
        ),
        (
            "grid = [1, 'n *']\nblock = 1",
            "entry `k`: grid y: `n *` is wrong: ",
        ),
        (
            "grid = 'n | int'\nblock = 1",
            "entry `k`: grid x: `n | int` has a filter",
        ),
        (
            "grid = 'now()'\nblock = 1",
            "entry `k`: grid x: `now()` is wrong: has no function `now`: there are ceil_div, max, min, pick, round_up",
        ),
        (
            "grid = 1\nblock = 1\ncluster = 'n'",
            "entry `k`: cluster is of constants, and no launch size",
        ),
        (
            "grid = 1\nblock = 1\ncooperative = 'n > 1'",
            "entry `k`: cooperative: `n > 1` uses `n`, which nobody declares",
        ),
        (
            "grid = 1\nblock = 1\npriority = 'p'",
            "entry `k`: priority: `p` uses `p`, which nobody declares",
        ),
        (
            "grid = 1\nblock = 1\ncarveout = 'blok'",
            "entry `k` uses `blok`, which nobody declares (did you mean `block`?)",
        ),
        (
            "grid = [{ size = 'm' }]\nblock = 1",
            "entry `k`: grid x: `m` is not a launch size",
        ),
    ] {
        let error = family(lines).expect_err(lines);
        assert!(
            error.starts_with("f.toml: ") && error.lines().count() == 1,
            "{error}"
        );
        assert!(
            error["f.toml: ".len()..].starts_with(expected),
            "{error}\n{expected}"
        );
    }
    let error = family("grid = 1.5\nblock = 1").expect_err("a float");
    assert!(
        error.contains("line 21: expected a number, a name, an expression or { size = .., per = .. }"),
        "{error}"
    );
}

#[test]
fn a_launch_that_does_not_come_out_for_a_variant_is_refused_with_it() {
    for (lines, set, expected) in [
        (
            "grid = 1\nblock = 'block'",
            ("block", "2048"),
            "entry `k`: a block of 2048 x 1 x 1 is 2048 threads: a GPU takes at most 1024",
        ),
        ("grid = 1\nblock = [1, 'block / 32']", ("block", "2048"), ""),
        (
            "grid = 1\nblock = 'block / 64'",
            ("block", "32"),
            "entry `k`: block: block / 64 does not come out as a whole number from 0",
        ),
        (
            "grid = 'n * scale'\nblock = 1",
            ("block", "32"),
            "entry `k`: grid: `n * scale`: `scale` = 0.5 is not a whole number",
        ),
        (
            "grid = 'n * mode'\nblock = 1",
            ("block", "32"),
            "entry `k`: grid: `n * mode`: `a` is not a number",
        ),
        (
            "grid = 1\nblock = 1\ncluster = 'block'",
            ("block", "32"),
            "entry `k`: cluster: 32 x 1 x 1 blocks: a GPU takes 1 to 16",
        ),
        (
            "grid = 1\nblock = 1\ncarveout = 'block'",
            ("block", "2048"),
            "entry `k`: carveout: block is not a number from 0 to 100",
        ),
        (
            "grid = 1\nblock = 1\npriority = 'block / 64'",
            ("block", "32"),
            "entry `k`: priority: does not come out as a whole number",
        ),
    ] {
        match spec(lines, &[set]) {
            Ok(_) => assert_eq!(expected, "", "{lines}"),
            Err(error) => assert_eq!(error, format!("f: {expected}"), "{lines}"),
        }
    }
}

#[test]
fn a_family_says_how_it_is_launched() {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = format!(
        "{CONSTANTS}[[entries]]\nname = 'k'\nsizes = ['n']\ngrid = ['ceil_div(a=n, b=block)', 'n']\nblock = [8, 'block / 8']\n\
         shared_mem_bytes = 'n * 4'\ncluster = 2\ncarveout = 100\npriority = -1\n"
    );
    fs_err::write(dir.path().join("f.toml"), toml).expect("written");
    fs_err::write(dir.path().join("f.cu.tera"), "").expect("written");
    let families = |more: &[&str]| {
        let mut command = crate::cli::jitc(dir.path());
        command
            .args(["families", "f", "--templates"])
            .arg(dir.path())
            .args(more);
        command.output().expect("ran")
    };
    let text = String::from_utf8(families(&[]).stdout).expect("text");
    let line = "entry k: grid [ceil_div(a=n, b=block), n, 1], block [8, block / 8, 1], shared memory n * 4, \
                cluster [2, 1, 1], carve-out 100 %, priority -1";
    assert!(text.contains(line), "{text}");
    let json = crate::cli::events(&families(&["--json"]));
    let entry = &json[0]["entries"][0];
    assert_eq!(
        entry["block"],
        serde_json::json!(["8", "block / 8", "1"]),
        "{entry}"
    );
    assert_eq!(
        (&entry["shared_mem_bytes"], &entry["cluster"][0]),
        (&"n * 4".into(), &"2".into())
    );
}

#[test]
fn what_a_launch_decides_is_worked_out_without_an_allocation() {
    let lines = "grid = ['ceil_div(a=n, b=block)', \"pick(cond=mode == 'a' and n > 7, a=min(a=n, b=3), b=1)\"]\n\
                 block = ['max(a=n % 32, b=1)']\nshared_mem_bytes = 'round_up(a=n * 4, b=16)'";
    let spec = spec(lines, &[]).expect("a spec");
    let entry = &spec.family().entries[0];
    let axis = |axis| spec.axis(axis).expect("a number");
    let all = [
        &entry.grid[0],
        &entry.grid[1],
        &entry.block[0],
        &entry.shared_mem_bytes,
    ]
    .map(axis);
    let mut numbers = [None; 4];
    let count = crate::allocations::allocations(|| {
        numbers = all.each_ref().map(|extent| extent.at(&[33]));
    });
    assert_eq!((numbers, count), ([Some(2), Some(3), Some(1), Some(144)], 0));
}

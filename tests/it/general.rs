//! Values that do the work of others: declared, refused where they cannot, and found.

use std::sync::Arc;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::{Family, Registry};

use crate::own_family::family_of;

/// A family with the constants `block`, `width` and `list`; these lines are added to each.
fn toml(block: &str, width: &str, list: &str, rest: &str) -> String {
    format!(
        "summary = 's'\n\
         [constants.block]\ntype = 'u32'\nvalues = [64, 128, 256]\ndefault = 128\nhelp = 'h'\n{block}\n\
         [constants.width]\ntype = 'u32'\nvalues = [1, 2, 4]\ndefault = 2\nhelp = 'h'\n{width}\n\
         [constants.list]\ntype = 'list'\nof = 'u32'\nvalues = [[1, 2], [3, 4]]\ndefault = [1, 2]\nhelp = 'h'\n\
         {list}\n\
         [[derived]]\nname = 'twice'\nvalue = 'width * 2'\n\
         [[derived]]\nname = 'elements'\nvalue = 'block * twice'\n{rest}"
    )
}

const ENTRY: &str = "[[entries]]\nname = 'k'\nsizes = ['n']\ngrid = [{ size = 'n', per = 'elements' }, 1, 1]\n\
                     block = 'block'\n";
const NEUTRAL: &str = "neutral = true\n";

fn general_of(family: &Arc<Family>, set: &[(&str, &str)]) -> Vec<String> {
    let arch = "sm_90a".parse().expect("an arch");
    let spec = KernelSpec::new(family, set.iter().copied(), arch).expect("legal");
    let general = spec.general();
    for other in &general {
        assert_eq!((other.arch(), &other.family().name), (arch, &family.name));
    }
    general.iter().map(KernelSpec::variant).collect()
}

#[test]
fn a_general_variant_differs_by_neutral_constants_alone_and_has_a_general_value_of_each() {
    let both = |values: &str| format!("{NEUTRAL}general = {values}");
    let toml = toml(&both("[64, 256]"), &both("1"), &both("[3, 4]"), ENTRY);
    let family = family_of(&toml).expect("a family");
    let first = general_of(&family, &[]);
    assert_eq!(
        first,
        ["block=64 width=1 list=[3,4]", "block=256 width=1 list=[3,4]"],
        "the best first"
    );
    let own = [("block", "256"), ("width", "4")];
    assert_eq!(general_of(&family, &own), ["block=256 width=1 list=[3,4]"]);
    let all = [("block", "64"), ("width", "1"), ("list", "[3,4]")];
    assert!(general_of(&family, &all).is_empty(), "it is one itself");
}

#[test]
fn what_a_constraint_does_not_allow_stands_in_for_nothing() {
    let rest = format!("[[constraints]]\nrule = 'block * width >= 128'\nbecause = 'b'\n{ENTRY}");
    let general = format!("{NEUTRAL}general = [64, 256]");
    let family = family_of(&toml(&general, "", "", &rest)).expect("a family");
    assert_eq!(general_of(&family, &[("width", "1")]), ["block=256 width=1"]);
    let neutral = format!("{NEUTRAL}general = 64");
    let family = family_of(&toml(&neutral, "", "", &rest)).expect("a family");
    assert!(general_of(&family, &[("width", "1")]).is_empty());
}

#[test]
fn a_general_value_that_cannot_be_is_refused_in_one_line_when_the_family_is_read() {
    let parameter = |rest: &str| format!("{ENTRY}[[entries.parameters]]\nname = 'x'\n{rest}\n");
    let general = format!("{NEUTRAL}general = 64");
    let with = |rest: &str| toml(&general, "", "", rest);
    let parts = parameter("type = 'f32'\nshape = ['ceil_div(a=n, b=elements)']");
    for (toml, says) in [
        (toml("general = 64", "", "", ENTRY), "constant `block`: general: "),
        (
            toml("general = 64", "", "", ENTRY),
            "expected `neutral = true` beside it",
        ),
        (
            toml("neutral = true\ngeneral = []", "", "", ENTRY),
            "there is no value",
        ),
        (
            toml("neutral = true\ngeneral = 65", "", "", ENTRY),
            "constant `block`: general: ",
        ),
        (
            with(&parts),
            "constant `block`: general: the parameter `x` depends on it",
        ),
        (
            with(&parameter(
                "type = 'f32'\nshape = ['*']\noptional = 'block == 64'",
            )),
            "the parameter `x` depends on it",
        ),
        (
            with(&format!("{ENTRY}when = 'block > 1'\n")),
            "whether there is an entry point `k` depends on it",
        ),
        (
            toml(
                "neutral = true\ngeneral = [64, 128, 256]",
                "neutral = true\ngeneral = [1, 2, 4]",
                "neutral = true\ngeneral = [[1, 2], [3, 4]]",
                ENTRY,
            ),
            "comes to 18 variants: expected at most 16",
        ),
    ] {
        let line = family_of(&toml).expect_err(&toml);
        assert!(line.starts_with("k.toml: ") && !line.contains('\n'), "{line}");
        assert!(line.contains(says), "{says} in {line}");
    }
    // A shape that does not depend on it is no reason.
    family_of(&with(&parameter("type = 'f32'\nshape = ['n * twice']"))).expect("a family");
}

#[test]
fn no_built_in_constant_that_orders_sums_is_declared_neutral() {
    let registry = Registry::load(None).expect("families");
    let neutral: Vec<(&str, &str)> = (registry.families())
        .flat_map(|family| {
            let constants = family.constants.values().filter(|constant| constant.neutral);
            constants.map(|constant| (family.name.as_str(), constant.name.as_str()))
        })
        .collect();
    for name in ["wo_split", "accumulate", "mma_part", "tokens_per_pass"] {
        assert!(
            neutral.iter().all(|(_, neutral)| *neutral != name),
            "{name} changes bits"
        );
    }
    assert!(neutral.contains(&("axpy", "num_threads")), "{neutral:?}");
}

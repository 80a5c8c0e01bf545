//! Rules of a family of one's own: from a problem and a GPU to a variant.

use std::sync::Arc;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Family;
use jitc::engine::run::device::Device;
use jitc::engine::run::dispatch::{Chosen, DispatchError, Dispatcher};
use jitc::engine::run::occupancy::known_device;

use crate::allocations::allocations;
use crate::command::jitc;
use crate::own_family::family_of;

const CONSTANTS: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [64, 128, 256, 512]
default = 256
help = "threads"
[constants.width]
type = "u32"
values = [1, 2, 4]
default = 1
help = "elements of a load"
[constants.half]
type = "bool"
default = false
help = "16 bits"
[[constraints]]
rule = "not half or width >= 2"
because = "halves are loaded in pairs"
[[entries]]
name = "k"
grid = [1, 1, 1]
block = "block"
"#;

const RULES: &str = r#"
[dispatch]
sizes = ["n", "m"]
[[dispatch.rules]]
when = "n % 4 == 0 and sm_count >= 100"
because = "a wide GPU is fed by wide loads"
set = { width = 4, block = { of = "ceil_div(a=n * m, b=sm_count)", up_to = [128, 256], values = [128, 256, 512] } }
[[dispatch.rules]]
when = "not half and n % 2 == 0"
set = { width = 2, block = 128 }
[[dispatch.rules]]
set = { width = { of = "m", up_to = [1, 2, 4] }, block = 64 }
"#;

fn family(rules: &str) -> Result<Arc<Family>, String> {
    family_of(&format!("{CONSTANTS}{rules}"))
}

fn asked(set: &[(&str, &str)]) -> KernelSpec {
    let family = family(RULES).expect("family");
    KernelSpec::new(&family, set.iter().copied(), "sm_90a".parse().expect("arch")).expect("legal")
}

fn gpu(name: &str) -> Device {
    known_device(name).expect("known")
}

/// The rule and the variant of a problem.
fn of(dispatcher: &Dispatcher, sizes: [u32; 2]) -> (Option<usize>, String) {
    let selected = dispatcher.select(&sizes).expect("selected");
    (selected.rule, dispatcher.variants()[selected.variant].variant())
}

#[test]
fn the_first_rule_that_holds_decides_by_sizes_and_gpu() {
    let wide = Dispatcher::new(&asked(&[]), &gpu("h200"), &[]).expect("rules");
    let narrow = Dispatcher::new(&asked(&[]), &gpu("gb10"), &[]).expect("rules");
    for (dispatcher, sizes, rule, variant) in [
        (&wide, [132 * 128, 1], 1, "block=128 width=4"),
        (&wide, [132 * 128, 2], 1, "width=4"),
        (&wide, [132 * 128, 3], 1, "block=512 width=4"),
        (&wide, [6, 1], 2, "block=128 width=2"),
        (&narrow, [132 * 128, 1], 2, "block=128 width=2"),
        (&wide, [7, 1], 3, "block=64"),
        (&wide, [7, 2], 3, "block=64 width=2"),
        (&wide, [7, 3], 3, "block=64 width=4"),
        (&wide, [7, 9], 3, "block=64 width=4"),
        (&wide, [7, 0], 3, "block=64"),
    ] {
        assert_eq!(
            of(dispatcher, sizes),
            (Some(rule), variant.to_owned()),
            "{sizes:?}"
        );
    }
    assert_eq!(wide.conditions(&[6, 1]), [Some(false), Some(true), Some(true)]);
}

#[test]
fn every_variant_that_can_be_selected_is_known_before_the_first_problem() {
    let dispatcher = Dispatcher::new(&asked(&[]), &gpu("h200"), &[]).expect("rules");
    let variants: Vec<String> = dispatcher.variants().iter().map(KernelSpec::variant).collect();
    assert_eq!(
        variants,
        [
            "block=128 width=4",
            "width=4",
            "block=512 width=4",
            "block=128 width=2",
            "block=64",
            "block=64 width=2",
            "block=64 width=4"
        ]
    );
    for n in 0..600 {
        for m in 0..6 {
            assert!(dispatcher.select(&[n, m]).expect("selected").variant < variants.len());
        }
    }
}

#[test]
fn a_variant_that_no_problem_can_get_on_a_gpu_is_not_among_its_variants() {
    let of = |rules: &str, name: &str| {
        let family = family(&format!("[dispatch]\nsizes = ['n']\n{rules}")).expect("family");
        let asked = KernelSpec::new(&family, [], "sm_90a".parse().expect("arch")).expect("legal");
        let dispatcher = Dispatcher::new(&asked, &gpu(name), &[]).expect("rules");
        let chosen = |n: u32| {
            dispatcher
                .select(&[n])
                .map(|s| dispatcher.variants()[s.variant].variant())
                .ok()
        };
        let all: Vec<String> = dispatcher.variants().iter().map(KernelSpec::variant).collect();
        (all, chosen(4), chosen(5))
    };
    let last = "[[dispatch.rules]]\nset = { width = 1 }\n";
    let by_gpu = "[[dispatch.rules]]\nwhen = 'sm_count >= 100'\nset = { width = 2 }\n";
    let text = |text: &str| Some(text.to_owned());
    let always = |variant: &str| (vec![variant.to_owned()], text(variant), text(variant));
    let rules = format!("{by_gpu}{last}");
    assert_eq!(of(&rules, "h200"), always("width=2"));
    assert_eq!(of(&rules, "gb10"), always("defaults"));
    let both = "[[dispatch.rules]]\nset = { width = 2 }\n\
                when = 'n % 4 == 0 and (sm_count >= 100 or sm_count == 1)'\n";
    let rules = format!("{both}{last}");
    let (all, four, five) = of(&rules, "h200");
    assert_eq!((all.len(), four, five), (2, text("width=2"), text("defaults")));
    assert_eq!(of(&rules, "gb10"), always("defaults"));
    // A bucket of the GPU alone is one value there.
    let bucket = "[[dispatch.rules]]\nset = { width = { of = 'sm_count', up_to = [64, 128], values = [1, 2, 4] }, \
                  block = { of = 'n', up_to = [4], values = [64, 128] } }\n";
    let (all, four, five) = of(bucket, "h200");
    assert_eq!(all, ["block=64 width=4", "block=128 width=4"]);
    assert_eq!(
        (four, five),
        (text("block=64 width=4"), text("block=128 width=4"))
    );
    assert_eq!(of(bucket, "gb10").0, ["block=64", "block=128"]);
}

#[test]
fn selecting_allocates_nothing() {
    let mut dispatcher = Dispatcher::new(&asked(&[]), &gpu("h200"), &[]).expect("rules");
    dispatcher.tune(&[5, 5], asked(&[])).expect("sizes");
    let mut chosen = 0;
    let count = allocations(|| {
        for n in 0..100 {
            chosen += dispatcher.select(&[n, 5]).map_or(0, |selected| selected.variant);
        }
    });
    assert!(count == 0 && chosen > 0, "{count} allocations");
}

#[test]
fn what_is_set_stays_and_the_choice_says_where_it_comes_from() {
    let set = [("block", "64")];
    let mut dispatcher = Dispatcher::new(&asked(&set), &gpu("h200"), &["block"]).expect("rules");
    assert_eq!(of(&dispatcher, [8, 1]), (Some(1), "block=64 width=4".to_owned()));
    assert_eq!(
        dispatcher.select(&[8, 1]).expect("selected").chosen,
        Chosen::Forced
    );
    let measured = asked(&[("block", "512")]);
    dispatcher.tune(&[8, 1], measured.clone()).expect("sizes");
    let selected = dispatcher.select(&[8, 1]).expect("selected");
    assert_eq!((selected.chosen, selected.rule), (Chosen::Tuned, None));
    assert_eq!(dispatcher.variants()[selected.variant].id(), measured.id());
    assert_eq!(of(&dispatcher, [8, 2]), (Some(1), "block=64 width=4".to_owned()));
    let free = Dispatcher::new(&asked(&[]), &gpu("h200"), &[]).expect("rules");
    assert_eq!(free.select(&[8, 1]).expect("selected").chosen, Chosen::Rule);
}

#[test]
fn a_constant_that_no_rule_sets_may_decide_and_an_illegal_outcome_names_its_rule() {
    let halves = [("half", "true"), ("width", "2")];
    let error = Dispatcher::new(&asked(&halves), &gpu("h200"), &[]).expect_err("width = 1");
    let line = error.to_string();
    assert!(
        line.starts_with("dispatch: rule 3: ") && line.contains("in pairs"),
        "{line}"
    );
    let forced = Dispatcher::new(&asked(&halves), &gpu("h200"), &["width"]).expect("rules");
    assert_eq!(of(&forced, [6, 1]).0, Some(3), "rule 2 is not for halves");
}

#[test]
fn sizes_that_the_rules_have_no_answer_for_are_refused_and_never_guessed() {
    let dispatcher = Dispatcher::new(&asked(&[]), &gpu("h200"), &[]).expect("rules");
    let sizes = dispatcher.select(&[1]).expect_err("one size");
    assert!(matches!(
        sizes,
        DispatchError::Sizes {
            expected: 2,
            found: 1
        }
    ));
    let rules = "[dispatch]\nsizes = ['n', 'm']\n[[dispatch.rules]]\nwhen = 'n / m >= 2'\nset = { width = 2 }\n\
                 [[dispatch.rules]]\nset = {}\n";
    let family = family(rules).expect("family");
    let asked = KernelSpec::new(&family, [], "sm_90a".parse().expect("arch")).expect("legal");
    let dispatcher = Dispatcher::new(&asked, &gpu("h200"), &[]).expect("rules");
    assert_eq!(of(&dispatcher, [4, 2]), (Some(1), "width=2".to_owned()));
    for sizes in [[4, 0], [5, 2]] {
        let error = dispatcher.select(&sizes).expect_err("no whole number");
        assert!(matches!(error, DispatchError::NoNumber { rule: 1 }), "{error}");
        assert_eq!(dispatcher.conditions(&sizes), [None, Some(true)]);
    }
}

#[test]
fn rules_that_cannot_be_are_refused_when_the_family_is_read() {
    let rule = |rules: &str| format!("[dispatch]\nsizes = ['n']\n{rules}");
    let last = "[[dispatch.rules]]\nset = { width = 1 }\n";
    let when = |when: &str| {
        rule(&format!(
            "[[dispatch.rules]]\nwhen = \"{when}\"\nset = {{ width = 2 }}\n{last}"
        ))
    };
    let set = |set: &str| rule(&format!("[[dispatch.rules]]\nset = {{ {set} }}\n"));
    for (rules, says) in [
        (
            "[dispatch]\nsizes = []\nrules = []\n".to_owned(),
            "sizes: expected 1 to",
        ),
        (
            "[dispatch]\nsizes = ['block']\nrules = []\n".to_owned(),
            "something else already",
        ),
        (
            "[dispatch]\nsizes = ['sm_count']\nrules = []\n".to_owned(),
            "something else already",
        ),
        (
            "[dispatch]\nsizes = ['n n']\nrules = []\n".to_owned(),
            "is not a name",
        ),
        (rule("rules = []\n"), "there is no rule"),
        (when("n % 4 =="), "rule 1: when: "),
        (when("sm_cuont > 1"), "did you mean `sm_count`"),
        (when("width > 1"), "is set by a rule"),
        (rule(&format!("{last}{last}")), "rule 1: has no `when`"),
        (
            rule("[[dispatch.rules]]\nwhen = 'n > 1'\nset = { width = 2 }\n"),
            "rule 1: the last rule is for all other problems",
        ),
        (set("widht = 1"), "did you mean `width`"),
        (set("width = 3"), "rule 1: set: `width`: "),
        (set("width = { of = 'n', up_to = [2, 1] }"), "each greater"),
        (set("width = { of = 'n', up_to = [] }"), "each greater"),
        (set("width = { of = 'n', up_to = [1, 3] }"), "`width`: "),
        (
            set("width = { of = 'q', up_to = [1, 2] }"),
            "`q` is neither a size",
        ),
        (
            set("width = { of = 'n', up_to = [1, 2], values = [1] }"),
            "there are 1",
        ),
        (
            set("width = { off = 'n', up_to = [1, 2] }"),
            "unknown field `off`",
        ),
    ] {
        let line = family(&rules).expect_err(&rules);
        assert!(line.starts_with("k.toml: ") && !line.contains('\n'), "{line}");
        assert!(line.contains("dispatch: ") && line.contains(says), "{line}");
    }
    let many =
        (0..9).map(|i| format!("[constants.c{i}]\ntype = 'u32'\nrange = [1, 2]\ndefault = 1\nhelp = 'h'\n"));
    let sets = (0..9).map(|i| format!("c{i} = {{ of = 'n', up_to = [1, 2], values = [1, 2, 1] }}"));
    let rules = format!(
        "{}{}",
        many.collect::<String>(),
        set(&sets.collect::<Vec<_>>().join(", "))
    );
    let line = family(&rules).expect_err("3 to the 9th");
    assert!(line.contains("more than 1024 variants"), "{line}");
}

/// `jitc dispatch` over a folder with the family, and a cache below it.
fn dispatch(folder: &std::path::Path, words: &str) -> (Option<i32>, String, String) {
    let mut command = jitc(folder);
    command
        .args(["dispatch", "--device", "h200", "--templates"])
        .arg(folder);
    command.arg("--cache-dir").arg(folder.join("cache"));
    let output = command.args(words.split_whitespace()).output().expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    let source = "extern \"C\" __global__ void k() {}\n";
    fs_err::write(folder.path().join("k.toml"), format!("{CONSTANTS}{RULES}")).expect("toml");
    fs_err::write(folder.path().join("k.cu.tera"), source).expect("source");
    folder
}

#[test]
fn the_command_explains_a_choice_for_a_gpu_that_is_not_here_and_writes_nothing() {
    let folder = folder();
    let (code, out, note) = dispatch(folder.path(), "k --size n=8 --size m=1 --explain");
    assert_eq!(code, Some(1), "a miss: {note}");
    assert!(
        out.contains("NVIDIA H200, n = 8, m = 1: k block=128 width=4: by rule 1: n % 4 == 0"),
        "{out}"
    );
    assert!(
        out.contains("a wide GPU is fed by wide loads") && out.contains("miss: "),
        "{out}"
    );
    assert!(out.contains("width = 1, 2, 4 by m up to 1, 2, 4"), "{out}");
    assert!(
        note.contains("jitc warm k --arch sm_90a --set block=128 --set width=4"),
        "{note}"
    );
    assert!(!folder.path().join("cache").exists(), "it writes nothing");
    let (_, out, _) = dispatch(folder.path(), "k --size n=8 --size m=1 --set block=64");
    assert!(out.contains("k block=64 width=4: set, and by rule 1"), "{out}");
    let (_, out, _) = dispatch(folder.path(), "k --size n=8 --size m=1 --json");
    let choice: serde_json::Value = serde_json::from_str(out.trim()).expect("one object");
    assert_eq!(choice["origin"], "rule");
    assert_eq!(
        (&choice["rule"], &choice["sizes"]["n"], &choice["cached"]),
        (&1.into(), &8.into(), &false.into())
    );
}

#[test]
fn a_variant_that_is_in_the_cache_is_told_as_a_hit() {
    let folder = folder();
    let mut warm = jitc(folder.path());
    warm.args([
        "warm",
        "k",
        "--arch",
        "sm_90a",
        "--set",
        "block=128",
        "--set",
        "width=4",
        "--templates",
    ]);
    warm.arg(folder.path())
        .arg("--cache-dir")
        .arg(folder.path().join("cache"));
    let warmed = warm.output().expect("run");
    assert!(
        warmed.status.success(),
        "{}",
        String::from_utf8_lossy(&warmed.stderr)
    );
    let (code, out, note) = dispatch(folder.path(), "k --size n=8 --size m=1");
    assert_eq!((code, note.as_str()), (Some(0), ""));
    assert!(out.contains("hit in "), "{out}");
}

#[test]
fn what_cannot_be_dispatched_is_said_in_one_line() {
    let folder = folder();
    for (words, says) in [
        ("k --size n=8", "the size `m` is missing: expected n, m"),
        ("k --size n=8 --size q=1", "`q` is not a size of the problem"),
        ("k --size n=x", "expected NAME=COUNT"),
        ("k --size n=1 --size n=2", "`n` was given already"),
        (
            "k --size n=1 --size m=1 --max-tokens 4",
            "--max-tokens is about the decode layer",
        ),
        (
            "k --size n=1 --size m=1 --set width=2,4",
            "2 variants are requested",
        ),
        (
            "stream --size n=1",
            "`stream` has no [dispatch] in its TOML: families that have rules: k",
        ),
        ("--size n=1", "--size is about families with rules"),
    ] {
        let (code, _, error) = dispatch(folder.path(), words);
        assert_eq!(code, Some(2), "{words}: {error}");
        assert!(
            error.contains(says) && error.trim().lines().count() == 1,
            "{words}: {error}"
        );
    }
}

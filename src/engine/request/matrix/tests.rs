use super::*;

use crate::engine::config::{Environment, FlagConstant, Flags};

fn expand(text: &str) -> Result<Expansion, MatrixError> {
    expand_beside(text, Flags::default(), &[])
}

fn expand_beside(text: &str, flags: Flags, env: &[(&str, &str)]) -> Result<Expansion, MatrixError> {
    let registry = Registry::load(None).expect("families");
    let config = Config::load(flags, env.iter().copied().collect::<Environment>()).expect("settings");
    Matrix::parse(text)?.expand(&registry, &config, || vec!["sm_90a".parse().expect("arch")])
}

fn flag(name: &str, value: &str) -> Flags {
    Flags {
        constants: vec![FlagConstant {
            name: name.into(),
            value: value.into(),
            flag: format!("--{name}"),
        }],
        ..Flags::default()
    }
}

const PLAIN: &str = "[[warm]]\nfamilies = 'wo_gemv'\n";

fn splits(expansion: &Expansion) -> Vec<String> {
    let split = |spec: &KernelSpec| spec.constants()["wo_split"].to_string();
    expansion.specs.iter().map(split).collect()
}

#[test]
fn settings_hold_where_a_block_says_nothing() {
    let by_flag = expand_beside(PLAIN, flag("wo_split", "1,4"), &[]).expect("expanded");
    assert_eq!(splits(&by_flag), ["1", "4"]);
    let by_variable = expand_beside(PLAIN, Flags::default(), &[("JITC_WO_SPLIT", "2")]).expect("expanded");
    assert_eq!(splits(&by_variable), ["2"]);
    let block = format!("{PLAIN}constants = {{ wo_split = 8 }}\n");
    let written = expand_beside(&block, Flags::default(), &[("JITC_WO_SPLIT", "2")]).expect("expanded");
    assert_eq!(splits(&written), ["8"], "the block is nearer than a variable");
    let arch = Flags {
        arch: Some("sm_100a".into()),
        ..Flags::default()
    };
    let of_flag = expand_beside(PLAIN, arch, &[]).expect("expanded");
    assert_eq!(of_flag.specs[0].arch().to_string(), "sm_100a");
}

#[test]
fn a_flag_that_a_block_says_too_or_that_no_family_knows_is_refused() {
    let block = format!("{PLAIN}archs = 'sm_90a'\n[warm.constants]\nwo_split = 8\n");
    let arch = Flags {
        arch: Some("sm_100a".into()),
        ..Flags::default()
    };
    let preset = Flags {
        preset: Some("nope".into()),
        ..Flags::default()
    };
    for (text, flags, said) in [
        (
            &*block,
            flag("wo_split", "8"),
            "line 5: wo_split is set here and by flag --wo_split: leave one of them out",
        ),
        (
            &*block,
            arch,
            "line 3: archs is set here and by flag --arch: leave one of them out",
        ),
        (
            PLAIN,
            flag("wo_split", "3"),
            "wo_gemv: wo_split (flag --wo_split): `3` is not legal",
        ),
        (
            PLAIN,
            flag("stages", "3"),
            "unknown constant `stages` (flag --stages): no family of",
        ),
        (
            "[[warm]]\nfamilies = 'decode_layer'\n",
            preset,
            "preset (flag --preset): there is no `nope`",
        ),
    ] {
        let error = expand_beside(text, flags, &[]).expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_star_stands_for_any_run_and_a_question_mark_for_one() {
    for (glob, text) in [
        ("*", ""),
        ("wo_*", "wo_gemv"),
        ("*_ge?v", "wo_gemv"),
        ("a*b*c", "aXbXbc"),
        ("x", "x"),
    ] {
        assert!(matches_glob(glob, text), "{glob} {text}");
    }
    for (glob, text) in [
        ("", "x"),
        ("wo_", "wo_gemv"),
        ("?", ""),
        ("a*b", "abc"),
        ("*x", "y"),
    ] {
        assert!(!matches_glob(glob, text), "{glob} {text}");
    }
}

#[test]
fn lists_and_globs_make_products() {
    let text = "[[warm]]\nfamilies = 'wo_gem?'\narchs = ['sm_90a', 'sm_12*']\n\
                [warm.constants]\nwo_split = [1, 8]\naccumulate = '*'\n";
    let expansion = expand(text).expect("expanded");
    assert_eq!((expansion.specs.len(), expansion.skipped), (2 * 3 * 3, 0));
}

#[test]
fn what_a_constraint_forbids_is_left_out_and_counted() {
    let text = "[[warm]]\nfamilies = ['wo_gemv']\n[warm.constants]\n\
                geometry = 'original'\nwo_split = '*'\nslice_ctas = [4]\n";
    let expansion = expand(text).expect("expanded");
    assert!(expansion.skipped > 0);
    assert_eq!(expansion.specs.len() + expansion.skipped, 4);
}

#[test]
fn what_fits_nothing_is_an_error_that_says_where() {
    for (text, words) in [
        (
            "[[warm]]\nfamilies = 'nope*'\n",
            "line 2: no family is called `nope*`",
        ),
        (
            "[[warm]]\nfamilies = '*'\n[warm.constants]\nno_such = 1\n",
            "line 4: none of its families declares a constant",
        ),
        (
            "[[warm]]\nfamilies = 'wo_gemv'\n[warm.constants]\nwo_split = 3\n",
            "wo_split (line 4): `3` is not legal",
        ),
        (
            "[[warm]]\nfamilies = 'wo_gemv'\n[warm.constants]\nwo_split = [\n1,\n3]\n",
            "wo_split (line 6): `3` is not legal",
        ),
        (
            "[[warm]]\nfamilies = 'wo_gemv'\n\n[[warm]]\nfamilies = []\n",
            "line 5: `families` is an empty list",
        ),
        ("[[warm]]\narchs = 'sm_90a'\n", "line 1: `families` is missing"),
        (
            "\nworm = 1\n",
            "line 2: unknown name `worm` (did you mean `warm`?)",
        ),
        ("\n[[warm]\n", "line 2: "),
        (
            "[[warm]]\nfamilies = 'wo_gemv'\narchs = 'sm_7*'\n",
            "line 3: no architecture fits",
        ),
        (
            "[[warm]]\n\nfamilly = 'x'\n",
            "line 3: unknown name `familly` (did you mean `families`?)",
        ),
    ] {
        let error = expand(text).expect_err(text).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_block_that_names_no_launch_warms_both() {
    let launches = |text: &str, env: &[(&str, &str)]| {
        let expansion = expand_beside(text, Flags::default(), env).expect("expanded");
        let specs = expansion.specs.iter();
        let layer = specs.filter(|spec| spec.family().name == "decode_layer");
        let launches: Vec<_> = layer.map(|spec| spec.constants()["launch"].to_string()).collect();
        (launches.join(" "), expansion.skipped)
    };
    for families in ["'*'", "'decode_*'", "['decode_layer']"] {
        let text = format!("[[warm]]\nfamilies = {families}\n");
        assert_eq!(
            launches(&text, &[]),
            ("cooperative separate".into(), 0),
            "{families}"
        );
    }
    let plain = "[[warm]]\nfamilies = 'decode_layer'\n";
    let named = format!("{plain}[warm.constants]\nlaunch = 'separate'\n");
    assert_eq!(launches(&named, &[]), ("separate".into(), 0));
    assert_eq!(
        launches(plain, &[("JITC_LAUNCH", "separate")]),
        ("separate".into(), 0)
    );
    // A former name is one of the two.
    let former = "[[warm]]\nfamilies = 'beta_lite'\n";
    assert_eq!(launches(former, &[]), ("separate".into(), 0));
    // What a constraint forbids to one of them is left out, and counted.
    let grid = format!(
        "{plain}[warm.constants]\ngeometry = 'original'\ntile_s = 64\ntile_k = 640\nslice_ctas = 8\n"
    );
    assert_eq!(launches(&grid, &[]), ("cooperative".into(), 1));
}

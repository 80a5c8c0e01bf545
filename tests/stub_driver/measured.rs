//! Any family measured by its declaration: what is bound, launched, read back and compared.

use crate::program::{Machine, Said};

const TOML: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [32, 64, 128]
default = 32
help = "threads"
[[entries]]
name = "k"
sizes = ["n"]
grid = ["ceil_div(a=n, b=block)"]
block = ["block"]
[[entries.parameters]]
name = "x"
type = "f32"
shape = ["n"]
[[entries.parameters]]
name = "y"
type = "u32"
shape = ["n", 2]
access = "out"
[[entries.parameters]]
name = "s"
type = "u32"
shape = ["n"]
access = "workspace"
[[entries.parameters]]
name = "more"
type = "f32"
shape = ["*"]
optional = true
[[entries.parameters]]
name = "a"
type = "f32"
fill = 0.5
[[entries.parameters]]
name = "n"
type = "u32"
value = "n"
[measure]
sizes = { n = 4 }
"#;

const RULES: &str = r#"
[dispatch]
sizes = ["n"]
[[dispatch.rules]]
set = { block = 64 }
[tune]
space = { block = "all" }
"#;

const SOURCE: &str = r#"
extern "C" __global__ void __launch_bounds__({{ block }}) k(const float* x, unsigned* y, unsigned* s, const float* more,
                                                            float a, unsigned n) {
    y[0] = s[0] + (more ? 1u : 0u) + unsigned(x[0] * a) + n;
}
"#;

/// A machine whose kernel sets `y` to this byte, with the family in a folder.
fn machine(more: &str, byte: u32) -> Machine {
    let machine = Machine::new(&[
        ("memory", 1),
        ("pointer", 0),
        ("store.k", 1),
        ("store.bytes", 32),
        ("store.byte", byte),
    ]);
    let folder = machine.folder.path().join("t");
    fs_err::create_dir(&folder).expect("made");
    fs_err::write(folder.join("k.toml"), format!("{TOML}{more}")).expect("written");
    fs_err::write(folder.join("k.cu.tera"), SOURCE).expect("written");
    machine
}

fn run(machine: &Machine, words: &[&str]) -> Said {
    machine.run(&[words, &["--templates", "t"]].concat())
}

fn objects(out: &str, event: &str) -> Vec<serde_json::Value> {
    let all = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    all.filter(|object| object["event"] == event).collect()
}

#[test]
fn two_variants_are_launched_over_the_same_inputs_and_their_outputs_compared() {
    let machine = machine("", 7);
    machine.stub.say("params.k", "8,8,8,8,4,4");
    machine.stub.calls();
    let said = run(
        &machine,
        &["verify", "k", "--against", "block=128", "--block", "64", "--json"],
    );
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""), "{}", said.out);
    let [case] = &objects(&said.out, "case")[..] else {
        panic!("{}", said.out)
    };
    assert_eq!(
        (case["elements"].as_u64(), case["mismatches"].as_u64()),
        (Some(8), Some(0))
    );
    let launches = machine.stub.calls_of("cuLaunchKernel k");
    let [own, other] = &launches[..] else {
        panic!("{launches:?}")
    };
    assert!(
        own.contains("grid 1,1,1 block 64,1,1") && other.contains("block 128,1,1"),
        "{launches:?}"
    );
    for launch in &launches {
        // The fourth is null, the fifth 0.5f, the last the launch size.
        assert!(
            launch.ends_with(",0000000000000000,0000003f,04000000"),
            "{launch}"
        );
    }
    // The second launch writes something else.
    machine.stub.say("store.byte#2", 8);
    let said = run(&machine, &["verify", "k", "--against", "block=128"]);
    assert_eq!(said.code, Some(1), "{}", said.errors);
    assert_eq!(
        said.errors,
        "error: k defaults n=4: `y` against block=128: 8 of 8 elements differ: y[0, 0] is 117901063 (0x7070707), and 134744072 (0x8080808) was expected\n"
    );
    let said = run(
        &machine,
        &["verify", "k", "--against", "block=128", "--rtol", "0.2"],
    );
    assert_eq!(said.code, Some(0), "{}", said.errors);
    assert!(
        said.out.contains("1 cases, 0 differ, within rtol 0.2"),
        "{}",
        said.out
    );
}

#[test]
fn an_output_is_held_to_a_file_and_saved_with_the_inputs() {
    let machine = machine("", 7);
    let said = run(&machine, &["verify", "k", "--save", "out"]);
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    let at = |name: &str| machine.folder.path().join("out").join(name);
    assert!(at("x.npy").exists() && at("y.npy").exists() && !at("s.npy").exists());
    let said = run(&machine, &["verify", "k", "--against", "out/y.npy"]);
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    // What x holds may come from a file, and then is what it was.
    let saved = fs_err::read(at("x.npy")).expect("saved");
    let said = run(
        &machine,
        &["verify", "k", "--fill", "x=out/x.npy", "--save", "again"],
    );
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    assert_eq!(
        fs_err::read(machine.folder.path().join("again/x.npy")).expect("saved"),
        saved
    );
    machine.stub.say("store.byte", 9);
    let said = run(&machine, &["verify", "k", "--against", "y=out/y.npy"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.errors
            .contains("`y` against out/y.npy: 8 of 8 elements differ"),
        "{}",
        said.errors
    );
}

#[test]
fn a_launch_that_writes_where_it_should_not_is_refused_with_the_parameter() {
    let beyond = machine("", 7);
    beyond.stub.say("store.bytes", 36);
    let said = run(&beyond, &["verify", "k", "--against", "defaults"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.errors,
        "error: a launch wrote 0 bytes behind the end of `y`: its declared shape is [4, 2]\n"
    );
    beyond.stub.say("store.k", 0).say("store.bytes", 4);
    let said = run(&beyond, &["verify", "k", "--against", "defaults"]);
    assert!(
        said.errors
            .contains("`x` is declared to be only read, and was written"),
        "{}",
        said.errors
    );
}

#[test]
fn a_benchmark_says_what_ran_and_by_whose_choice() {
    let machine = machine(RULES, 7);
    let bench = |more: &[&str]| {
        let said = run(&machine, &[&["bench", "k", "--json"], more].concat());
        assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
        objects(&said.out, "variant")
    };
    let [by_rule] = &bench(&[])[..] else {
        panic!("one variant")
    };
    assert_eq!(
        (&by_rule["origin"], &by_rule["variant"]),
        (&"rule".into(), &"block=64".into())
    );
    // x is read, y written: 4 * 4 + 4 * 8 bytes; 256 launches to a replay, one for each set.
    assert_eq!(
        (by_rule["bytes"].as_u64(), by_rule["sets"].as_u64()),
        (Some(48), Some(256))
    );
    assert_eq!(by_rule["launches_per_graph"].as_u64(), Some(256));
    // A stub has no clocks, or another GPU's.
    assert_eq!(
        (&by_rule["driver"], by_rule.get("clocks").is_some()),
        (&"13.0".into(), true)
    );
    let warm = bench(&[
        "--warm", "--method", "events", "--block", "32,128", "--size", "n=4,8",
    ]);
    let found: Vec<_> = warm
        .iter()
        .map(|v| (v["origin"].as_str(), v["sets"].as_u64(), v["sizes"]["n"].as_u64()))
        .collect();
    let set = |n| (Some("set"), Some(1), Some(n));
    assert_eq!(found, [set(4), set(8), set(4), set(8)]);
    assert_eq!(warm[0]["summary"]["median"].as_f64().map(f64::round), Some(240.0));
    machine.stub.say("store.byte#1", 8);
    let said = run(&machine, &["bench", "k", "--against", "block=128"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("FAILS"), "{}", said.out);
}

#[test]
fn a_winner_needs_its_margin_and_is_taken_by_the_next_benchmark_alone_as_long_as_it_holds() {
    let machine = machine(RULES, 7);
    let tune = ["tune", "k", "--method", "events", "--warm", "--launches", "5"];
    let record = machine.cache().join("tuned.json");
    let origin = || {
        let said = run(&machine, &["bench", "k", "--json", "--warm", "--launches", "3"]);
        assert_eq!(said.code, Some(0), "{}", said.errors);
        let [one] = &objects(&said.out, "variant")[..] else {
            panic!("{}", said.out)
        };
        (one["origin"].as_str().map(str::to_owned), said.errors)
    };
    // All alike: the rules' choice stays.
    let said = run(&machine, &tune);
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    assert!(
        said.out.contains("does not win by 2 %: the rules' choice stays"),
        "{}",
        said.out
    );
    assert_eq!(origin().0.as_deref(), Some("rule"));
    // The floor, the rules' choice, two candidates, 5 samples each; then 5 turns of 3 each, the
    // candidate's behind the rules'.
    for turn in 0..5 {
        for sample in 0..3 {
            machine
                .stub
                .say(&format!("elapsed_us#{}", 5 * 4 + turn * 6 + 4 + sample), 200);
        }
    }
    let said = run(&machine, &tune);
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""), "{}", said.out);
    assert!(
        said.out
            .contains("200.00 us, by rule block=64 240.00 us: is kept"),
        "{}",
        said.out
    );
    let text = fs_err::read_to_string(&record).expect("kept");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let policy = &json["winners"][0]["policy"];
    assert_eq!(
        (&policy["method"], &policy["cold"], &policy["driver"]),
        (&"events".into(), &false.into(), &"13.0".into())
    );
    assert_eq!(
        json["winners"][0]["problem"]["sizes"],
        serde_json::json!({"n": 4})
    );
    assert_eq!(origin(), (Some("tuned".to_owned()), String::new()));
    // The kernel changes: what was timed is not what would run.
    let source = machine.folder.path().join("t/k.cu.tera");
    fs_err::write(&source, SOURCE.replace("+ n;", "+ 2 * n;")).expect("written");
    let (now, errors) = origin();
    assert_eq!(now.as_deref(), Some("rule"));
    assert!(
        errors.contains("its machine code is not what was timed: tune it again"),
        "{errors}"
    );
}

#[test]
fn a_candidate_whose_results_differ_is_not_timed() {
    let machine = machine(RULES, 7);
    // The rules' choice is launched to be read, then 3 times to warm up and 5 times to be timed.
    machine.stub.say("store.byte#10", 8);
    let words = [
        "tune",
        "k",
        "--method",
        "events",
        "--warm",
        "--launches",
        "5",
        "--json",
    ];
    let said = run(&machine, &words);
    assert_eq!(said.code, Some(0));
    assert!(
        said.errors.starts_with("error: k ")
            && said.errors.contains("differs from the rules' choice: y[0, 0] is"),
        "{}",
        said.errors
    );
    assert_eq!(
        objects(&said.out, "candidate").len(),
        2,
        "the rules' choice and one more"
    );
}

/// Two kernels that take one struct.
const PAIR: &str = r#"
summary = "s"
parameter_struct = "k::Params"
sizes = ["n"]
[constants.block]
type = "u32"
values = [32, 64]
default = 32
help = "threads"
[[parameters]]
name = "y"
type = "u32"
shape = ["n"]
access = "out"
[[parameters]]
name = "n"
type = "u32"
value = "n"
[[entries]]
name = "first"
grid = [1]
block = ["block"]
[[entries]]
name = "second"
grid = ["n"]
block = ["block"]
"#;

#[test]
fn entry_points_of_one_list_are_launched_in_order_and_one_alone_by_its_name() {
    let machine = machine("", 7);
    let write = |name: &str, text: &str| {
        fs_err::write(machine.folder.path().join("t").join(name), text).expect("written");
    };
    write("pair.toml", PAIR);
    write(
        "pair.cu.tera",
        "#include <jitc/params.cuh>\nconstexpr unsigned block = {{ block }};\n\
         extern \"C\" __global__ void first(k::Params p) { p.y[0] = p.n + block; }\n\
         extern \"C\" __global__ void second(k::Params p) { p.y[1] = p.n; }\n",
    );
    // The first word of the struct is `y`, of 3 numbers.
    machine.stub.say("store.second", 0).say("store.bytes", 12);
    let launched = |more: &[&str]| {
        let words = ["verify", "pair", "--size", "n=3", "--against", "block=64"];
        let said = run(&machine, &[&words, more].concat());
        assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
        let calls = machine.stub.calls_of("cuLaunchKernel");
        let of = |call: &String| call.split(" shared").next().map(str::to_owned);
        calls.iter().filter_map(of).collect::<Vec<_>>()
    };
    machine.stub.calls();
    let of = |name: &str, grid: u32, block: u32| {
        format!("cuLaunchKernel {name} grid {grid},1,1 block {block},1,1")
    };
    let both = |block| [of("first", 1, block), of("second", 3, block)];
    assert_eq!(launched(&[]), [both(32), both(64)].concat());
    let alone = [of("second", 3, 32), of("second", 3, 64)];
    assert_eq!(launched(&["--entry", "second"]), alone);
}

//! Entry points that C++ names: instances of templates, and kernels in namespaces.

use jitc::engine::build::compile::WorkerChoice;
use jitc::engine::build::image;
use jitc::engine::build::parameter_info;
use jitc::engine::cache::{Load, Provenance, Store};
use jitc::engine::jit::{Error, Jit, Prepared};
use jitc::engine::request::spec::KernelSpec;

use crate::compile_process::{Bench, program};

const TEMPLATES: &str = "
namespace own {
template <class T, unsigned Size> __global__ void scale(T* p, T factor) {
    if (threadIdx.x < Size) p[threadIdx.x] *= factor;
}
__global__ void fill(float* p) { p[threadIdx.x] = 1; }
}
namespace dt { using f32 = float; using f64 = double; }
";

/// A family `k` of two constants, `t` and `n`, with these entries.
fn family(entries: &str) -> Bench {
    let bench = Bench::new(TEMPLATES);
    let toml = format!(
        "summary = 's'\n\
         [constants.n]\ntype = 'u32'\nrange = [1, 1000]\ndefault = 64\nhelp = 'n'\n\
         [constants.t]\ntype = 'enum'\ncxx_type = 'dt'\nvalues = ['f32', 'f64']\ndefault = 'f32'\nhelp = 't'\n\
         {entries}"
    );
    fs_err::write(bench.path().join("t/k.toml"), toml).expect("toml");
    bench
}

const SCALE: &str = "[[entries]]\nname = 'scale'\nexpression = 'own::scale<{{ t }}, {{ n }}>'\n\
    grid = [1, 1, 1]\nblock = 'n'\n\
    [[entries]]\nname = 'fill'\nexpression = 'own::fill'\ngrid = [1, 1, 1]\nblock = 'n'\n";

fn spec(jit: &Jit, constants: &[(&str, &str)]) -> KernelSpec {
    let family = jit.registry().get("k").expect("family");
    KernelSpec::new(family, constants.iter().copied(), "sm_90a".parse().expect("arch")).expect("legal")
}

fn prepare(bench: &Bench, constants: &[(&str, &str)]) -> Result<Prepared, Error> {
    let jit = bench.jit(program(), &[]);
    jit.prepare(&spec(&jit, constants))
}

fn symbols(prepared: &Prepared) -> [String; 2] {
    ["scale", "fill"].map(|entry| prepared.fetched.artifact.symbol(entry).to_owned())
}

#[test]
fn an_instance_of_a_template_is_an_entry_point_whose_name_in_the_cubin_the_entry_keeps() {
    let bench = family(SCALE);
    let built = prepare(&bench, &[]).expect("compiled");
    assert_eq!(built.fetched.provenance, Provenance::Built);
    let fill = "_ZN3own4fillEPf".to_owned();
    assert_eq!(
        symbols(&built),
        ["_ZN3own5scaleIfLj64EEEvPT_S1_".to_owned(), fill.clone()]
    );
    // From disk as well, where no compiler says it.
    let hit = prepare(&bench, &[]).expect("a hit");
    assert!(matches!(hit.fetched.provenance, Provenance::Hit(_)));
    assert_eq!(symbols(&hit), symbols(&built));
    let names: Vec<&str> = (hit.fetched.artifact.resources.iter())
        .map(|used| used.entry.as_str())
        .collect();
    assert_eq!(names, ["scale", "fill"]);
    // What is loaded is checked by these names.
    let jit = bench.jit(program(), &[]);
    image::check_named(&spec(&jit, &[]), &hit.fetched.artifact).expect("the declared kernels");

    let other = prepare(&bench, &[("t", "f64"), ("n", "32")]).expect("compiled");
    assert_eq!(
        symbols(&other),
        ["_ZN3own5scaleIdLj32EEEvPT_S1_".to_owned(), fill]
    );
}

#[test]
fn the_expression_is_in_the_key() {
    let key = |entries: &str| {
        let bench = family(entries);
        let jit = bench.jit(program(), &[]);
        let (request, _) = jit.describe(&spec(&jit, &[])).expect("described");
        request.key().hex()
    };
    assert_eq!(key(SCALE), key(SCALE));
    assert_ne!(key(SCALE), key(&SCALE.replace("{{ t }}", "float")));
}

#[test]
fn declared_parameters_are_compared_with_those_of_the_instance() {
    let parameters = "[[entries]]\nname = 'fill'\nexpression = 'own::fill'\ngrid = [1, 1, 1]\nblock = 'n'\n\
        [[entries]]\nname = 'scale'\nexpression = 'own::scale<{{ t }}, {{ n }}>'\n\
        grid = [1, 1, 1]\nblock = 'n'\n\
        [[entries.parameters]]\nname = 'p'\ntype = 'f32'\nshape = ['n']\naccess = 'inout'\n\
        [[entries.parameters]]\nname = 'factor'\ntype = 'f32'\n";
    let bench = family(parameters);
    let good = prepare(&bench, &[]).expect("as declared");
    let jit = bench.jit(program(), &[]);
    parameter_info::check(&spec(&jit, &[]), &good.fetched.artifact).expect("as declared");
    let wrong = prepare(&bench, &[("t", "f64")]).expect_err("a double");
    assert!(
        wrong
            .to_string()
            .contains("`scale`: parameter 1 `factor`: declared 4 bytes"),
        "{wrong}"
    );
}

#[test]
fn the_ptx_of_such_an_entry_has_its_instances() {
    let bench = family(SCALE);
    let jit = bench.jit(WorkerChoice::InProcess, &[]);
    let prepared = jit.prepare(&spec(&jit, &[])).expect("compiled");
    let Load::Found(entry) = Store::new(bench.path().join("c")).whole(prepared.request.key()) else {
        panic!("no entry");
    };
    let ptx = jit.ptx(&entry).expect("PTX");
    assert!(ptx.contains(".entry _ZN3own5scaleIfLj64EEEvPT_S1_("), "{ptx}");
}

#[test]
fn an_expression_that_names_no_kernel_is_an_error_that_quotes_it() {
    for expression in ["own::scael<float, 64>", "own::scale<float>", "own::fill + 1"] {
        let entries = SCALE.replace("own::scale<{{ t }}, {{ n }}>", expression);
        let error = prepare(&family(&entries), &[]).expect_err(expression);
        let said = format!("{error}\n{}", error.log().unwrap_or_default());
        assert!(said.contains(expression), "{expression}: {said}");
    }
}

#[test]
fn a_template_that_nobody_instantiates_is_no_kernel_and_the_remedy_is_said() {
    let bench = Bench::new("template <class T> __global__ void k(T* p) { p[{{ n }}] = 1; }\n");
    let error = prepare(&bench, &[]).expect_err("no kernel").to_string();
    assert!(
        error.contains("defines no kernel `k`: it defines none"),
        "{error}"
    );
    assert!(error.contains("`expression`"), "{error}");
}

#[test]
fn an_expression_holds_constants_alone_and_names_those_that_there_are() {
    for (expression, says) in [
        ("own::scale<{{ m }}>", "uses `m`, which nobody declares"),
        ("own::scale<{{ n * 2 }}>", "has an expression in {{ }}"),
        ("{% if n %}x{% endif %}", "has a {% %} block"),
        (" ", "is not one line of C++"),
    ] {
        let bench = family(&SCALE.replace("own::scale<{{ t }}, {{ n }}>", expression));
        let output = crate::command::jitc(bench.path())
            .args(["key", "k", "--templates", "t", "--arch", "sm_90a"])
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            said.contains("entry `scale`: expression") && said.contains(says),
            "{expression}: {said}"
        );
    }
}

#[test]
fn kernels_that_a_family_does_not_name_are_let_in_where_it_says_so() {
    let more = "extern \"C\" __global__ void a(float* p) { p[0] = {{ n }}; }\n\
                extern \"C\" __global__ void b(float* p) { p[1] = 2; }\n";
    let entry = "[[entries]]\nname = 'a'\ngrid = [1, 1, 1]\nblock = 32\n";
    for (says, compiles) in [("", false), ("other_kernels = true\n", true)] {
        let bench = Bench::new(more);
        let toml = format!(
            "summary = 's'\n{says}\n[constants.n]\ntype = 'u32'\nrange = [1, 9]\ndefault = 1\nhelp = 'n'\n{entry}"
        );
        fs_err::write(bench.path().join("t/k.toml"), toml).expect("toml");
        match prepare(&bench, &[]) {
            Ok(_) => assert!(compiles),
            Err(error) => assert!(
                !compiles && error.to_string().contains("other_kernels = true"),
                "{error}"
            ),
        }
    }
}

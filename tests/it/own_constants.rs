//! Constants of every type, options and macros that name them: what reaches the compiler,
//! and what is refused when a family is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jitc::engine::build::render::render;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::{Family, Registry};

/// A family with a constant of every type.
const TOML: &str = r#"
summary = "s"
options = ["--std=c++17", "--maxrregcount={{ regs }}", "--fmad={{ fused }}"]
[defines]
WIDTH = "{{ width }}"
ELEMENT = "{{ element }}"
LIMIT = 3
PLAIN = true
ABSENT = false
FUSED = { when = "fused" }
LEFT_OUT = { when = "fused and regs > 64", value = "{{ doubled }}" }
[constants.regs]
type = "u32"
range = [16, 255]
default = 64
help = "h"
[constants.fused]
type = "bool"
default = true
help = "h"
[constants.width]
type = "i32"
values = [-2147483648, -8, 8]
default = 8
help = "h"
[constants.seed]
type = "u64"
range = [0, "18446744073709551615"]
default = "18446744073709551615"
help = "h"
[constants.offset]
type = "i64"
range = ["-9223372036854775808", 1024]
multiple_of = 2
default = -9223372036854775808
help = "h"
[constants.low]
type = "f32"
range = [-inf, inf]
default = -inf
help = "h"
[constants.slope]
type = "f32"
values = [0.5, 2.0]
default = 0.5
help = "h"
[constants.high]
type = "f64"
range = [0.0, inf]
default = inf
help = "h"
[constants.step]
type = "f64"
values = [1e-300, 0.1]
default = 0.1
help = "h"
[constants.label]
type = "string"
max_length = 32
default = "a \"b\" ??/\u00e9"
help = "h"
[constants.kind]
type = "string"
values = ["relu", "gelu"]
default = "relu"
help = "h"
[constants.element]
type = "type"
values = { f16 = "::mine::half2<1, 2>", f32 = "float" }
default = "f16"
help = "h"
[constants.index]
type = "type"
values = ["unsigned long long", "int"]
default = "int"
help = "h"
[constants.tile]
type = "list"
of = "u32"
values = [[64, 128], [128, 64, 32]]
default = [64, 128]
help = "h"
[constants.shape]
type = "list"
of = ["u32", "type", "bool"]
values = [[4, "float", true], [8, "double", false]]
default = [4, "float", true]
help = "h"
[constants.strides]
type = "list"
of = "i32"
range = [-4, 4]
length = [1, 3]
default = [-1, 2]
help = "h"
[[derived]]
name = "doubled"
value = "tile[0] * 2"
[[constraints]]
rule = "tile[1] >= tile[0] or kind == 'gelu'"
because = "wide tiles are gelu's"
[[entries]]
name = "k"
grid = [1, 1, 1]
block = 32
"#;

/// Everything is asserted by the compiler.
const SOURCE: &str = r"
namespace mine { template <int A, int B> struct half2 { short x; }; }
template <class A, class B> constexpr bool same = false;
template <class A> constexpr bool same<A, A> = true;
__device__ constexpr bool equal(const char* a, const char* b) { return *a == *b && (!*a || equal(a + 1, b + 1)); }
template <unsigned N, class T, bool F> struct Shape { static constexpr unsigned n = N; };

constexpr int width = {{ width }};
static_assert(width == 8 && 16-{{ width }} == 8);
constexpr auto seed = {{ seed }};
static_assert(same<decltype(seed), const unsigned long long> && seed + 1 == 0);
constexpr auto offset = {{ offset }};
static_assert(same<decltype(offset), const long long> && offset < 0 && offset - -1 == -0x7fffffffffffffff);
constexpr auto low = {{ low }};
static_assert(same<decltype(low), const float> && low < -3e38f && low == 2 * low);
static_assert(same<decltype({{ slope }}), float> && {{ slope }} == 0.5f);
constexpr auto high = {{ high }};
static_assert(same<decltype(high), const double> && high > 1e308 && high == 2 * high);
static_assert(same<decltype({{ step }}), double> && {{ step }} == 0.1);
constexpr char label[] = {{ label }};
static_assert(sizeof(label) == 12 && label[2] == 34 && label[4] == 34 && label[6] == 63 && label[9] == char(0xc3));
static_assert(equal({{ kind }}, KIND_EXPECTED));
static_assert(sizeof({{ element }}) == 2 && same<{{ index }}, int>);
constexpr unsigned tile[] = { {{ tile }} };
static_assert(sizeof(tile) == 8 && tile[1] == 128);
static_assert(Shape<{{ shape }}>::n == 4);
constexpr int strides[] = { {{ strides }} };
static_assert(strides[0] == -1 && strides[1] == 2 && {{ doubled }} == 128u);

static_assert(WIDTH == 8 && same<ELEMENT, mine::half2<1, 2>> && LIMIT == 3 && PLAIN == 1 && FUSED == 1);
#if defined(ABSENT) || defined(LEFT_OUT)
#error a macro that is not to be there
#endif
extern @C@ __global__ void k() {}
";

fn files(toml: &str, source: &str) -> Result<Registry, String> {
    let files = [("f.toml", toml), ("f.cu.tera", source)];
    let files = BTreeMap::from(files.map(|(name, text)| (name.to_owned(), text.to_owned())));
    Registry::from_files(&files).map_err(|e| e.to_string())
}

fn family(toml: &str) -> Result<Arc<Family>, String> {
    Ok(Arc::clone(files(toml, "")?.get("f").expect("the only one")))
}

fn spec(family: &Arc<Family>, set: &[(&str, &str)]) -> Result<KernelSpec, String> {
    let arch = "sm_90a".parse().expect("arch");
    KernelSpec::new(family, set.iter().copied(), arch).map_err(|e| e.to_string())
}

fn jit_over(templates: &Path, cache: &Path) -> Jit {
    let flags = Flags {
        templates: Some(templates.to_owned()),
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families")
}

#[test]
fn the_compiler_sees_every_type_of_constant_as_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let source = SOURCE.replace('@', "\"").replace("KIND_EXPECTED", "\"relu\"");
    fs_err::write(dir.path().join("f.toml"), TOML).expect("written");
    fs_err::write(dir.path().join("f.cu.tera"), source).expect("written");
    let jit = jit_over(dir.path(), &dir.path().join("cache"));
    let family = jit.registry().get("f").expect("family");
    let prepared = spec(family, &[]).map(|spec| jit.prepare(&spec)).expect("a spec");
    prepared.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn options_and_macros_have_the_constants_of_the_variant() {
    let registry = files(TOML, "extern \"C\" __global__ void k() {}").expect("families");
    let family = registry.get("f").expect("the only one");
    let options = |set: &[(&str, &str)]| {
        let spec = spec(family, set).expect("a spec");
        let rendered = render(&registry, &spec).expect("rendered");
        rendered.options[1..rendered.options.len() - 3].to_vec()
    };
    let defaults = [
        "--std=c++17",
        "--maxrregcount=64",
        "--fmad=true",
        "-DWIDTH=8",
        "-DELEMENT=::mine::half2<1, 2>",
        "-DLIMIT=3",
        "-DPLAIN",
        "-DFUSED",
    ];
    assert_eq!(options(&[]), defaults);
    let other = options(&[
        ("regs", "128"),
        ("width", "-8"),
        ("element", "f32"),
        ("tile", "[ 64, 128 ]"),
    ]);
    let expected = [
        "--std=c++17",
        "--maxrregcount=128",
        "--fmad=true",
        "-DWIDTH=(-8)",
        "-DELEMENT=float",
        "-DLIMIT=3",
        "-DPLAIN",
        "-DFUSED",
        "-DLEFT_OUT=128u",
    ];
    assert_eq!(other, expected);
    assert_eq!(options(&[("fused", "false")]).len(), 7);
}

#[test]
fn a_constant_in_an_option_is_judged_with_the_option() {
    let toml = "summary = 's'\noptions = ['{{ text }}']\n[constants.text]\ntype = 'string'\nmax_length = 64\n\
                default = '-lineinfo'\nhelp = 'h'\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
    let registry = files(toml, "").expect("families");
    let family = registry.get("f").expect("the only one");
    render(&registry, &spec(family, &[]).expect("a spec")).expect("a known option");
    let spec = spec(family, &[("text", "-I/etc")]).expect("a spec");
    let error = render(&registry, &spec).expect_err("refused").to_string();
    assert!(error.starts_with("f: option `-I/etc` is refused: "), "{error}");
}

#[test]
fn an_illegal_value_is_answered_with_what_is_legal() {
    let family = family(TOML).expect("a family");
    for (name, text, expected) in [
        ("width", "9", "one of -2147483648, -8, 8"),
        ("width", "4294967288", "one of -2147483648, -8, 8"),
        ("seed", "-1", "a whole number from 0 to 18446744073709551615"),
        ("offset", "3", "a multiple of 2 from -9223372036854775808 to 1024"),
        ("low", "nan", "a number from -inf to inf"),
        ("low", "1e39", "a number from -inf to inf"),
        ("slope", "inf", "one of 0.5, 2.0"),
        ("high", "-1", "a number from 0.0 to inf"),
        ("step", "0.2", "one of 1e-300, 0.1"),
        (
            "label",
            "123456789012345678901234567890123",
            "a text of at most 32 bytes",
        ),
        ("element", "float", "one of f16, f32"),
        ("tile", "[64,127]", "one of [64,128], [128,64,32]"),
        ("shape", "[4,float,1]", "one of [4,float,true], [8,double,false]"),
        (
            "strides",
            "[5]",
            "a list such as [..] of 1 to 3, each a whole number from -4 to 4",
        ),
        (
            "strides",
            "[]",
            "a list such as [..] of 1 to 3, each a whole number from -4 to 4",
        ),
        (
            "strides",
            "1",
            "a list such as [..] of 1 to 3, each a whole number from -4 to 4",
        ),
    ] {
        let error = spec(&family, &[(name, text)]).expect_err(text);
        assert!(
            error.contains(name) && error.ends_with(&format!("`{text}` is not legal: expected {expected}")),
            "{error}"
        );
    }
    let error = spec(&family, &[("tile", "[128,64,32]")]).expect_err("a constraint");
    assert!(error.contains("wide tiles are gelu's"), "{error}");
    spec(&family, &[("tile", "[128,64,32]"), ("kind", "gelu")]).expect("legal");
}

/// Lines of a constant, and what is wrong with them.
const BAD: &[(&str, &str)] = &[
    (
        "type = 'i32'\ndefault = 1",
        "an i32 needs either `values` or `range`",
    ),
    (
        "type = 'i32'\nvalues = [3000000000]\ndefault = 1",
        "`values` of an i32 are whole numbers from -2147483648 to 2147483647, not `3000000000`",
    ),
    (
        "type = 'u64'\nrange = [-1, 5]\ndefault = 1",
        "`range` of a u64 is two whole numbers from 0",
    ),
    (
        "type = 'i64'\nrange = [0.5, 5]\ndefault = 1",
        "`range` of an i64 is two whole numbers from -9223372036854775808 to 9223372036854775807",
    ),
    (
        "type = 'u32'\nrange = [0, 5]\nmultiple_of = 0\ndefault = 0",
        "`multiple_of` is at least 1",
    ),
    (
        "type = 'f32'\nrange = [0.0, 1e39]\ndefault = 1.0",
        "`range` of an f32 is two numbers, perhaps -inf and inf",
    ),
    (
        "type = 'f64'\nvalues = [nan]\ndefault = 1.0",
        "`values` of an f64 are numbers, not `nan`",
    ),
    (
        "type = 'bool'\nvalues = [true]\ndefault = true",
        "`values` says nothing of a bool",
    ),
    (
        "type = 'string'\ndefault = 'x'",
        "a string needs either `values` or `max_length`, in bytes",
    ),
    (
        "type = 'string'\nvalues = [1]\ndefault = 'x'",
        "`values` of a string are texts, not `1`",
    ),
    (
        "type = 'u32'\nvalues = [1]\ndefault = 1\nmax_length = 3",
        "`max_length` says nothing of a u32",
    ),
    (
        "type = 'type'\ndefault = 'x'",
        "a type needs `values`: C++ types, or a table of names and C++ types",
    ),
    (
        "type = 'type'\nvalues = ['int; char']\ndefault = 'x'",
        "`int; char` is not a C++ type",
    ),
    (
        "type = 'type'\nvalues = ['a<1>>']\ndefault = 'x'",
        "`a<1>>` is not a C++ type",
    ),
    (
        "type = 'type'\nvalues = ['a<1, 2>']\ndefault = 'x'",
        "`a<1, 2>` needs a name without commas and brackets: values = { name = \"a<1, 2>\" }",
    ),
    (
        "type = 'list'\nvalues = [[1]]\ndefault = [1]",
        "a list needs `of`, the type of its items",
    ),
    (
        "type = 'list'\nof = 'list'\nvalues = [[1]]\ndefault = [1]",
        "`of` is a type of single values, or an array of such: \"u32\", [\"u32\", \"type\"]",
    ),
    (
        "type = 'list'\nof = ['u32', 'i32']\nvalues = [[1]]\ndefault = [1]",
        "`values` of a list are lists of its types: `[1]` has 1 items, and not 2",
    ),
    (
        "type = 'list'\nof = 'u32'\nvalues = [[-1]]\ndefault = [1]",
        "`values` of a list are lists of its types: `[-1]` has the item `-1`, which is not a u32",
    ),
    (
        "type = 'list'\nof = 'u32'\nrange = [1, 2]\ndefault = [1]",
        "a list needs either `values`, or `range` and `length` of one type of numbers",
    ),
];

#[test]
fn a_bad_declaration_is_one_line_with_its_place() {
    let constant = |lines: &str| {
        let toml = format!(
            "summary = 's'\n[constants.c]\n{lines}\nhelp = 'h'\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n"
        );
        family(&toml).expect_err(lines)
    };
    for (lines, expected) in BAD {
        assert_eq!(constant(lines), format!("f.toml: constant `c`: {expected}"));
    }
    let with = |lines: &str, source: &str| {
        let toml = format!(
            "summary = 's'\n{lines}\n[constants.t]\ntype = 'list'\nof = 'u32'\nvalues = [[1, 2]]\ndefault = [1, 2]\n\
             help = 'h'\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n"
        );
        files(&toml, source).map(|_| ()).expect_err(lines)
    };
    for (lines, expected) in [
        (
            "options = ['-DN={{ n }}']",
            "option `-DN={{ n }}` uses `n`, which nobody declares",
        ),
        (
            "options = ['-DN={{ t | int }}']",
            "option `-DN={{ t | int }}` has an expression in {{ }}: expected text and constants as {{ name }}",
        ),
        (
            "[defines]\nN = '{{ n }}'",
            "[defines] N: uses `n`, which nobody declares",
        ),
        (
            "[defines]\n'N M' = 1",
            "[defines] N M: is not the name of a macro: letters, digits and `_`",
        ),
        (
            "[defines]\nN = { when = 'n' }",
            "[defines] N: `when` uses `n`, which nobody declares",
        ),
    ] {
        assert_eq!(with(lines, ""), format!("f.toml: {expected}"));
    }
    let source = with("", "int a = {{ t[0] }};");
    assert!(
        source.starts_with("f.cu.tera: has an expression in {{ }}"),
        "{source}"
    );
}

#[test]
fn lists_are_separated_by_commas_outside_of_their_brackets() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("f.toml"), TOML).expect("written");
    fs_err::write(
        dir.path().join("f.cu.tera"),
        "extern \"C\" __global__ void k() {}",
    )
    .expect("written");
    let output = crate::cli::jitc(dir.path())
        .args([
            "warm", "f", "--check", "--json", "--arch", "sm_90a", "--kind", "gelu",
        ])
        .args(["--tile", "[64,128],[128,64,32]", "--low=-inf,0"])
        .arg("--templates")
        .arg(dir.path())
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let gaps = crate::cli::events(&output);
    let gaps: Vec<_> = gaps.iter().filter(|gap| gap["family"] == "f").collect();
    assert_eq!(gaps.len(), 4, "{gaps:?}");
}

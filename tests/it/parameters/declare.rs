//! What a family may say of its parameters.

use jitc::engine::request::template::Place;

use super::{TOML, family, spec_of};

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_wrong_declaration_is_one_line_that_names_the_parameter() {
    let x = "name = \"x\"\ntype = \"bf16\"\nshape = [\"num_rows\", \"double\"]";
    let scale = "name = \"scale\"\ntype = \"f32\"";
    let of_x = "f.toml: entry `run`: parameter `x`: ";
    let rows = "grid = [{ size = \"num_rows\", per = \"width\" }";
    let wrong: &[(&str, &str, &str)] = &[
        (
            x,
            "name = \"x y\"\ntype = \"u8\"\nshape = [1]",
            "f.toml: entry `run`: parameter `x y` is not a name",
        ),
        (
            x,
            "name = \"y\"\ntype = \"u8\"\nshape = [1]",
            "f.toml: entry `run`: parameter `y` is declared twice",
        ),
        (
            x,
            "name = \"x\"\ntype = \"bf61\"\nshape = [1]",
            "{x}unknown type `bf61` (did you mean `bf16`?): known are bf16, f16",
        ),
        (
            x,
            "name = \"x\"\ntype = \"mode\"\nshape = [1]",
            "{x}type `mode` is a constant that may be `fast`, which is not a type",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [\"doubel\"]",
            "{x}dimension `doubel` uses `doubel`, which nobody declares (did you mean `double`?)",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [\"width *\"]",
            "{x}dimension `width *` is wrong: ",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1, \"*\"]",
            "{x}only the first dimension may be `*`",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [\"scale\"]",
            "{x}dimension `scale` uses `scale`, which nobody declares",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1]\nalignment = 12",
            "{x}`alignment` is a power of two up to 4096, not 12",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1]\nvalue = \"batch\"",
            "{x}`value` is of scalars",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1]\noptional = \"num_rows > 1\"",
            "{x}`optional` uses `num_rows`, which nobody declares",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1]\naccess = \"input\"",
            "unknown variant `input`",
        ),
        (
            x,
            "name = \"x\"\ntype = \"u8\"\nshape = [1]\nsize = 3",
            "unknown field `size`",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"f32\"\naccess = \"in\"",
            "parameter `scale`: `access` is of pointers, which have a `shape`",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"f32\"\noptional = true",
            "parameter `scale`: `optional` is of pointers",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"f32\"\nalignment = 4",
            "parameter `scale`: `alignment` is of pointers",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"output\"",
            "parameter `scale`: only a pointer's elements may have the type that a constant names",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"u32\"\nvalue = \"bacth\"",
            "parameter `scale`: `value` is `bacth`, which is not a launch size (did you mean `batch`?)",
        ),
        (
            scale,
            "name = \"scale\"\ntype = \"f32\"\nvalue = \"batch\"",
            "parameter `scale`: a launch size is passed as u32, i32, u64 or i64, not as f32",
        ),
        (
            scale,
            "name = \"width\"\ntype = \"u32\"",
            "parameter `width` has the name of a constant",
        ),
        (
            "sizes = [\"num_rows\", \"batch\"]",
            "sizes = [\"width\", \"batch\"]",
            "entry `run`: launch size `width` has the name of a constant",
        ),
        (
            "sizes = [\"num_rows\", \"batch\"]",
            "sizes = [\"batch\", \"batch\"]",
            "entry `run`: launch size `batch` is declared twice",
        ),
        (
            "sizes = [\"num_rows\", \"batch\"]",
            "sizes = [\"a\", \"b\", \"c\", \"d\", \"e\"]",
            "entry `run`: at most 4 launch sizes, not 5",
        ),
        (
            rows,
            "grid = [\"num_row\"",
            "entry `run` uses `num_row`, which nobody declares (did you mean `num_rows`?)",
        ),
        (
            rows,
            "grid = [{ size = \"num_row\" }",
            "entry `run`: grid x: `num_row` is not a launch size (did you mean `num_rows`?)",
        ),
        (
            rows,
            "grid = [{ size = \"num_rows\", per = 0 }",
            "entry `run`: grid x: `per` is at least 1",
        ),
        (
            "block = 32",
            "block = \"num_row\"",
            "entry `run` uses `num_row`, which nobody declares (did you mean `num_rows`?)",
        ),
        (
            "[[entries]]",
            "[[parameters]]\nname = \"z\"\ntype = \"u32\"\n[[entries]]",
            "the family's 1 [[parameters]] are nobody's: every entry has its own",
        ),
        (
            "summary = \"s\"",
            "summary = \"s\"\nparameter_struct = \"P\"",
            "parameter_struct carries the family's [[parameters]], and there are none",
        ),
    ];
    assert!(family(TOML).is_ok());
    for (from, to, expected) in wrong {
        let toml = TOML.replacen(from, to, 1);
        assert_ne!(toml, TOML, "{from}");
        let error = family(&toml).expect_err(to);
        assert!(error.contains(&expected.replace("{x}", of_x)), "{to}: {error}");
    }
}

#[test]
fn a_list_that_entries_share_is_one_struct_and_its_header() {
    let toml = r#"
summary = "s"
sizes = ["n"]
parameter_struct = "my::space::Params"
[constants.block]
type = "u32"
values = [32]
default = 32
help = "h"
[[parameters]]
name = "x"
type = "bf16"
shape = ["n", "block"]
help = "rows \\ of\nx"
[[parameters]]
name = "y"
type = "f32"
shape = ["n"]
access = "inout"
[[parameters]]
name = "eps"
type = "f32"
[[parameters]]
name = "n"
type = "u32"
value = "n"
[[entries]]
name = "first"
grid = ["n", 1, 1]
block = "block"
[[entries]]
name = "second"
grid = [1, 1, 1]
block = "block"
"#;
    let family = family(toml).expect("a family");
    let header = family.params_header.as_deref().expect("a header");
    assert_eq!(
        header,
        "// The parameters of `f`, rendered from its [[parameters]].\n\
         #pragma once\n\n\
         namespace my::space {\n\n\
         struct Params {\n    \
         alignas(8) const unsigned short* x;  // bf16[n, block]. rows / of x\n    \
         alignas(8) float* y;  // f32[n].\n    \
         alignas(8) float eps;  // f32.\n    \
         alignas(8) unsigned n;  // u32 = n.\n\
         };\n\
         static_assert(sizeof(Params) == 4 * 8, \"a word a parameter\");\n\n\
         }  // namespace my::space\n"
    );
    let spec = spec_of(toml, &[]);
    let [first, second] = [0, 1].map(|at| spec.signature(&family.entries[at]).expect("declared"));
    assert!(first.is_struct() && first.places()[3] == Place { offset: 24, size: 4 });
    assert_eq!(first.parameters(), second.parameters());
    let own = toml.replace("name = \"first\"\n", "name = \"first\"\nsizes = [\"m\"]\n");
    let error = super::family(&own).expect_err("sizes apart from their list");
    assert!(error.contains("entry `first` has sizes of its own"), "{error}");
}

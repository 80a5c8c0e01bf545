//! Declared parameters: what a family may say of them, what they are bound to, and
//! whether machine code takes what is declared.

mod bind;
mod by_value;
mod declare;
mod machine_code;

use std::collections::BTreeMap;
use std::sync::Arc;

use jitc::engine::request::signature::Signature;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::{Family, Registry};

/// A family with one of everything.
const TOML: &str = r#"
summary = "s"
[constants.width]
type = "u32"
values = [8, 16]
default = 8
help = "h"
[constants.gated]
type = "bool"
default = false
help = "h"
[constants.output]
type = "enum"
cxx_type = "Output"
values = ["f32", "bf16"]
default = "f32"
help = "h"
[constants.mode]
type = "enum"
cxx_type = "Mode"
values = ["fast", "exact"]
default = "fast"
help = "h"
[[derived]]
name = "double"
value = "width * 2"
[[entries]]
name = "run"
sizes = ["num_rows", "batch"]
grid = [{ size = "num_rows", per = "width" }, "batch", { size = "batch", when = "gated" }]
block = 32
[[entries.parameters]]
name = "x"
type = "bf16"
shape = ["num_rows", "double"]
[[entries.parameters]]
name = "bias"
type = "f32"
shape = ["width"]
optional = "not gated"
alignment = 4
[[entries.parameters]]
name = "table"
type = "i32"
shape = ["batch", "pages"]
[[entries.parameters]]
name = "pool"
type = "e4m3"
shape = ["*", "width"]
[[entries.parameters]]
name = "y"
type = "output"
shape = ["num_rows", "width"]
access = "out"
[[entries.parameters]]
name = "scale"
type = "f32"
[[entries.parameters]]
name = "pages"
type = "u32"
[[entries.parameters]]
name = "num_rows"
type = "u64"
value = "num_rows"
"#;

fn family(toml: &str) -> Result<Arc<Family>, String> {
    let files = [("f.toml", toml), ("f.cu.tera", "")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let registry = Registry::from_files(&BTreeMap::from(files)).map_err(|e| e.to_string())?;
    Ok(Arc::clone(registry.get("f").expect("the only one")))
}

fn spec_of(toml: &str, set: &[(&str, &str)]) -> KernelSpec {
    let family = family(toml).expect("a family");
    KernelSpec::new(&family, set.iter().copied(), "sm_90a".parse().expect("arch")).expect("a spec")
}

fn signature(set: &[(&str, &str)]) -> Signature {
    let spec = spec_of(TOML, set);
    spec.signature(&spec.family().entries[0]).expect("declared")
}

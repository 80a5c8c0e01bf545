//! Families made of a text, for tests of what their declarations come to.

use std::sync::Arc;

use jitc::engine::request::template::{Family, TemplateFile};

/// A kernel that does nothing: what is tested is the declaration.
pub(crate) const SOURCE: &str = "extern \"C\" __global__ void k() {}\n";

/// The family `k` of this declaration, or why it is refused.
pub(crate) fn family_of(toml: &str) -> Result<Arc<Family>, String> {
    let file = |path: &str, text: &str| TemplateFile {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let family = Family::parse("k", &file("k.toml", toml), &file("k.cu.tera", SOURCE));
    family.map(Arc::new).map_err(|e| e.to_string())
}

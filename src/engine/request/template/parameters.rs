//! Declared kernel parameters, and the CUDA struct that is rendered from them.
//!
//! Invariant: a [`ParameterList`] is the only list of an entry point's parameters.
//! The struct's declaration, the host's checks and every printed signature are made
//! from it. What depends on constants is worked out by a spec's signature.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fill::Fill;
use crate::engine::request::dtype::Dtype;

/// The name under which kernels include the declaration of their parameters' struct.
pub const PARAMS_HEADER: &str = "jitc/params.cuh";

/// The most parameters of a list: a launch copies them to the stack.
pub const MAX_PARAMETERS: usize = 64;

/// The most launch sizes of an entry point.
pub const MAX_SIZES: usize = 4;

/// The parameters of an entry point, in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParameterList {
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The qualified name of the CUDA struct that carries them all by value, if
    /// one does. Its declaration is rendered from this list.
    pub cxx_struct: Option<String>,
}

/// One declared parameter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name, `attn`.
    pub name: String,
    /// What it is: a device pointer or a scalar.
    pub kind: ParameterKind,
    /// One line of help, perhaps empty.
    pub help: String,
    /// What it holds where the family is measured by its declaration.
    pub fill: Option<Fill>,
}

/// What a parameter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterKind {
    /// A pointer to device memory.
    Pointer {
        /// The type of its elements.
        element: Element,
        /// Elements in each dimension, outermost first.
        shape: Vec<Dim>,
        /// What the kernel does with it.
        access: Access,
        /// Whether it may be null.
        optional: Optional,
        /// Bytes at which it has to start.
        alignment: u32,
    },
    /// A value.
    Scalar {
        /// Type of the value.
        dtype: Dtype,
        /// The launch size that it is, by its place among the entry's sizes.
        value: Option<usize>,
    },
    /// Bytes that are passed by value: a struct, or a tensor map.
    Bytes {
        /// Number of bytes.
        size: u32,
        /// A multiple of this is where they begin.
        alignment: u32,
        /// Whether they are a tensor map (`CUtensorMap`).
        tensor_map: bool,
    },
}

/// Size and alignment of a tensor map, bytes.
pub(super) const TENSOR_MAP: (u32, u32) = (128, 64);

/// The most bytes that all parameters of a kernel take.
pub(super) const MAX_BYTES: u32 = 32_764;

/// The type of a pointer's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// Always this.
    Fixed(Dtype),
    /// What this enum constant names.
    Constant(String),
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(dtype) => dtype.fmt(f),
            Self::Constant(name) => f.write_str(name),
        }
    }
}

/// What a kernel does with the memory behind a pointer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Only reads it.
    #[default]
    In,
    /// Only writes it.
    Out,
    /// Reads and writes it.
    InOut,
    /// Scratch: zero before the first launch, of no meaning to the caller after it.
    Workspace,
}

impl Access {
    /// As the TOML and JSON have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::InOut => "inout",
            Self::Workspace => "workspace",
        }
    }
}

/// A dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dim {
    /// As the TOML has it: an expression, or `*` for any number.
    pub text: String,
    /// What the expression is kept under; `None` for `*`.
    pub(crate) id: Option<String>,
    /// Whether it grows with a launch size.
    pub launch: bool,
}

/// Whether a pointer may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Optional {
    /// As it is.
    Fixed(bool),
    /// Where this rule over constants holds.
    When(Rule),
}

/// A condition over constants and derived ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// As the TOML has it.
    pub text: String,
    /// What it is kept under.
    pub(crate) id: String,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Parameter {
    /// Whether the outermost dimension grows with a launch size.
    #[must_use]
    pub fn grows(&self) -> bool {
        matches!(&self.kind, ParameterKind::Pointer { shape, .. } if shape.first().is_some_and(|dim| dim.launch))
    }

    /// `bf16[num_tokens, k_total]`, `u32`, `u32 = num_tokens`; of launch sizes by these names.
    #[must_use]
    pub fn type_text(&self, sizes: &[String]) -> String {
        match &self.kind {
            ParameterKind::Pointer { element, shape, .. } => {
                let dims: Vec<&str> = shape.iter().map(|dim| dim.text.as_str()).collect();
                format!("{element}[{}]", dims.join(", "))
            }
            ParameterKind::Scalar { dtype, value } => match value.and_then(|at| sizes.get(at)) {
                Some(size) => format!("{dtype} = {size}"),
                None => dtype.to_string(),
            },
            ParameterKind::Bytes { tensor_map: true, .. } => "tensor_map".to_owned(),
            ParameterKind::Bytes { size, alignment, .. } => {
                format!("struct of {size} bytes, aligned to {alignment}")
            }
        }
    }

    /// Its declaration in CUDA, without `;`.
    fn cxx(&self) -> String {
        match &self.kind {
            ParameterKind::Pointer { element, access, .. } => {
                let constant = if *access == Access::In { "const " } else { "" };
                let cxx = match element {
                    Element::Fixed(dtype) => dtype.cxx(),
                    Element::Constant(_) => "void",
                };
                format!("{constant}{cxx}* {}", self.name)
            }
            ParameterKind::Scalar { dtype, .. } => format!("{} {}", dtype.cxx(), self.name),
            // In no struct that is rendered: refused when the family is read.
            ParameterKind::Bytes { size, alignment, .. } => {
                format!("alignas({alignment}) unsigned char {}[{size}]", self.name)
            }
        }
    }
}

/// Where a parameter lies among the bytes that a launch passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Bytes before it.
    pub offset: u32,
    /// Its own bytes.
    pub size: u32,
}

impl ParameterList {
    /// Where each parameter lies: a word each in a struct; else each at a multiple
    /// of its own size, or of its alignment, as the ABI of kernels has it.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.places_from(0)
    }

    /// The same, where the first byte has this address, of which alignments are.
    pub(crate) fn places_from(&self, base: u32) -> Vec<Place> {
        let mut end = base;
        let place = |parameter: &Parameter| {
            let (size, alignment) = match &parameter.kind {
                ParameterKind::Pointer { .. } => (8, 8),
                ParameterKind::Scalar { dtype, .. } => {
                    // At most 8.
                    let size = u32::try_from(dtype.bytes()).unwrap_or(8);
                    (size, size)
                }
                ParameterKind::Bytes { size, alignment, .. } => (*size, *alignment),
            };
            let offset = end.next_multiple_of(if self.cxx_struct.is_some() { 8 } else { alignment });
            end = offset + size;
            Place {
                offset: offset - base,
                size,
            }
        };
        self.parameters.iter().map(place).collect()
    }

    /// The table for other languages: an object a parameter, with its place.
    #[must_use]
    pub fn to_json(&self, sizes: &[String]) -> Vec<serde_json::Value> {
        let all = self.parameters.iter().zip(self.places());
        all.map(|(parameter, place)| match &parameter.kind {
            ParameterKind::Pointer {
                element,
                shape,
                access,
                optional,
                alignment,
            } => json!({
                "name": parameter.name, "kind": "pointer", "type": element.to_string(),
                "shape": shape.iter().map(|dim| &dim.text).collect::<Vec<_>>(), "access": access,
                "optional": match optional {
                    Optional::Fixed(flag) => json!(flag),
                    Optional::When(rule) => json!(rule.text),
                },
                "alignment": alignment, "offset": place.offset, "size": place.size, "help": parameter.help,
            }),
            ParameterKind::Scalar { dtype, value } => json!({
                "name": parameter.name, "kind": "scalar", "type": dtype,
                "value": value.and_then(|at| sizes.get(at)),
                "offset": place.offset, "size": place.size, "help": parameter.help,
            }),
            ParameterKind::Bytes {
                alignment,
                tensor_map,
                ..
            } => json!({
                "name": parameter.name, "kind": if *tensor_map { "tensor_map" } else { "struct" },
                "alignment": alignment, "offset": place.offset, "size": place.size, "help": parameter.help,
            }),
        })
        .collect()
    }

    /// The header that declares the list's struct; nothing of a list that is
    /// passed one by one. Every field fills eight bytes, so that the host writes
    /// it as words, whatever the fields' types.
    #[must_use]
    pub fn header(&self, family: &str, sizes: &[String]) -> Option<String> {
        let name = self.cxx_struct.as_deref()?;
        let (namespace, name) = name.rsplit_once("::").unwrap_or(("", name));
        let mut out =
            format!("// The parameters of `{family}`, rendered from its [[parameters]].\n#pragma once\n\n");
        if !namespace.is_empty() {
            let _ = writeln!(out, "namespace {namespace} {{\n");
        }
        let _ = writeln!(out, "struct {name} {{");
        for parameter in &self.parameters {
            let comment = format!("{}. {}", parameter.type_text(sizes), parameter.help);
            // One line, and none that goes on in the next.
            let words: Vec<&str> = comment.split_whitespace().collect();
            let comment = words.join(" ").replace('\\', "/");
            let _ = writeln!(out, "    alignas(8) {};  // {comment}", parameter.cxx());
        }
        let _ = writeln!(out, "}};");
        let count = self.parameters.len();
        let _ = writeln!(
            out,
            "static_assert(sizeof({name}) == {count} * 8, \"a word a parameter\");"
        );
        if !namespace.is_empty() {
            let _ = writeln!(out, "\n}}  // namespace {namespace}");
        }
        Some(out)
    }
}

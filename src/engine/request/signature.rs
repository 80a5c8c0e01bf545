//! A spec's entry point as its host sees it: what it takes, with this spec's types,
//! sizes and layout.
//!
//! Invariant: of one declared list; whoever packs, checks or prints parameters does
//! it from here.

use crate::engine::refused::Refused;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::request::constant::Value;
use crate::engine::request::dtype::Dtype;
use crate::engine::request::formula::Term;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::{
    Access, Axis, Element, Entry, Optional, Parameter, ParameterKind, ParameterList, Place, Rule, Size,
};

/// The parameters of an entry point of one spec.
#[derive(Debug, Clone)]
pub struct Signature {
    spec: KernelSpec,
    entry: String,
    sizes: Vec<String>,
    list: Arc<ParameterList>,
}

/// What one parameter is in a spec, shapes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// A pointer to device memory.
    Pointer {
        /// The type of its elements.
        dtype: Dtype,
        /// What the kernel does with it.
        access: Access,
        /// Whether it may be null.
        optional: bool,
        /// Bytes at which it has to start.
        alignment: u32,
    },
    /// A value.
    Scalar {
        /// Type of the value.
        dtype: Dtype,
        /// The launch size that it is, by its place.
        value: Option<usize>,
    },
    /// Bytes that are passed by value.
    Bytes {
        /// Number of bytes.
        size: u32,
        /// A multiple of this is where they begin.
        alignment: u32,
    },
}

/// A number of a spec's launch: blocks along an axis of its grid, threads along one of a
/// block, bytes of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// So many.
    Fixed(u32),
    /// A launch size, by its place, divided by so many and rounded up.
    Launch {
        /// Place of the launch size in the list of sizes.
        size: usize,
        /// How many of it a block takes; at least 1.
        per: u32,
    },
    /// An expression over launch sizes.
    Computed(Computed),
}

/// An expression with the constants of a spec in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed(Term);

impl Extent {
    /// The number for these launch sizes; `None` where a size is not there, and where an
    /// expression does not come out as a whole number from 0. Allocates nothing.
    #[must_use]
    #[inline]
    pub fn at(&self, sizes: &[u32]) -> Option<u32> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Launch { size, per: 1 } => sizes.get(*size).copied(),
            Self::Launch { size, per } => Some(sizes.get(*size)?.div_ceil(*per)),
            Self::Computed(Computed(term)) => term.at(sizes)?.try_into().ok(),
        }
    }

    /// The number, where no launch changes it.
    #[must_use]
    pub fn fixed(&self) -> Option<u32> {
        match self {
            Self::Fixed(number) => Some(*number),
            _ => None,
        }
    }
}

impl KernelSpec {
    /// What an entry point takes; `None` where its family does not declare it.
    #[must_use]
    pub fn signature(&self, entry: &Entry) -> Option<Signature> {
        Some(Signature {
            spec: self.clone(),
            entry: entry.name.clone(),
            sizes: entry.sizes.clone(),
            list: Arc::clone(entry.parameters.as_ref()?),
        })
    }

    /// A number of this spec's launch; the text says what is wrong with it.
    pub fn axis(&self, axis: &Axis) -> Result<Extent, Refused> {
        let number = |size: &Size| {
            self.size(size)
                .ok_or_else(|| format!("{size} does not come out as a whole number from 0"))
        };
        match axis {
            Axis::Fixed(size) => Ok(Extent::Fixed(number(size)?)),
            Axis::Computed(formula) => {
                let term = self.term(formula).map_err(|e| format!("`{formula}`: {e}"))?;
                Ok(Extent::Computed(Computed(term)))
            }
            Axis::Launch { size, per, when } => {
                if let Some(rule) = when
                    && !self.holds(rule)?
                {
                    return Ok(Extent::Fixed(1));
                }
                match number(per)? {
                    0 => Err(Refused::new(format_args!(
                        "{per} is 0, and a block takes at least 1 of a launch size"
                    ))),
                    number => Ok(Extent::Launch {
                        size: *size,
                        per: number,
                    }),
                }
            }
        }
    }

    fn holds(&self, rule: &Rule) -> Result<bool, String> {
        let text = (self.family()).evaluate(&rule.id, self.constants(), self.derived(), &BTreeMap::new())?;
        Ok(text == "1")
    }
}

impl Signature {
    /// The family.
    #[must_use]
    pub fn family(&self) -> &str {
        &self.spec.family().name
    }

    /// The entry point's name.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// The launch sizes, by name, in order.
    #[must_use]
    pub fn sizes(&self) -> &[String] {
        &self.sizes
    }

    /// The declared parameters, in order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.list.parameters
    }

    /// Whether one struct carries all of them.
    #[must_use]
    pub fn is_struct(&self) -> bool {
        self.list.cxx_struct.is_some()
    }

    /// Whether another entry point takes the very same list.
    #[must_use]
    pub fn same_list(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list)
    }

    /// What a parameter is in this spec; the text says what is wrong.
    pub fn resolve(&self, parameter: &Parameter) -> Result<Resolved, Refused> {
        match &parameter.kind {
            ParameterKind::Scalar { dtype, value } => Ok(Resolved::Scalar {
                dtype: *dtype,
                value: *value,
            }),
            ParameterKind::Bytes { size, alignment, .. } => Ok(Resolved::Bytes {
                size: *size,
                alignment: *alignment,
            }),
            ParameterKind::Pointer {
                element,
                access,
                optional,
                alignment,
                ..
            } => Ok(Resolved::Pointer {
                dtype: match element {
                    Element::Fixed(dtype) => *dtype,
                    Element::Constant(name) => {
                        let named = self.spec.constants().get(name).and_then(Value::as_name);
                        named
                            .and_then(|text| text.parse().ok())
                            .ok_or_else(|| format!("constant `{name}` does not name a type"))?
                    }
                },
                access: *access,
                optional: match optional {
                    Optional::Fixed(flag) => *flag,
                    Optional::When(rule) => self.spec.holds(rule)?,
                },
                alignment: *alignment,
            }),
        }
    }

    /// The elements in each dimension of a pointer's memory, `None` for any number;
    /// empty of a scalar. `numbers`: launch sizes and whole scalars by name. The
    /// text says what is wrong.
    pub fn shape(
        &self,
        parameter: &Parameter,
        numbers: &BTreeMap<String, u64>,
    ) -> Result<Vec<Option<u64>>, Refused> {
        let ParameterKind::Pointer { shape, .. } = &parameter.kind else {
            return Ok(Vec::new());
        };
        let spec = &self.spec;
        let dimension = |dim: &crate::engine::request::template::Dim| {
            let Some(id) = &dim.id else { return Ok(None) };
            let wrong = |e: String| Refused::new(format_args!("dimension `{}`: {e}", dim.text));
            let text = (spec.family())
                .evaluate(id, spec.constants(), spec.derived(), numbers)
                .map_err(wrong)?;
            let number = text.trim().parse();
            number.map(Some).map_err(|_| {
                wrong(format!(
                    "comes out as {}, which is not a whole number",
                    text.trim()
                ))
            })
        };
        shape.iter().map(dimension).collect()
    }

    /// Bytes of a pointer's memory for these launch sizes and scalars; `None` where
    /// any number will do, 0 of a scalar. For whoever allocates. The text says what
    /// is wrong.
    pub fn bytes(
        &self,
        parameter: &Parameter,
        numbers: &BTreeMap<String, u64>,
    ) -> Result<Option<u64>, Refused> {
        let Resolved::Pointer { dtype, .. } = self.resolve(parameter)? else {
            return Ok(Some(0));
        };
        let shape = self.shape(parameter, numbers)?;
        let dims: Option<Vec<u64>> = shape.into_iter().collect();
        Ok(dims.map(|dims| {
            let bytes = dims.iter().fold(1, |all: u64, dim| all.saturating_mul(*dim));
            bytes.saturating_mul(dtype.bytes() as u64)
        }))
    }

    /// Where each parameter lies among the bytes that a launch passes.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.list.places()
    }

    /// The same, where the first byte has this address, of which alignments are.
    pub(crate) fn places_from(&self, base: u32) -> Vec<Place> {
        self.list.places_from(base)
    }
}

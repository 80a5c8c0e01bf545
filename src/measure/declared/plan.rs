//! What a variant takes for one problem, by its declaration: memory, scalars, sizes.
//!
//! Invariant: the same seed gives the same bytes on every machine, whatever else the kernel
//! takes; what a kernel is to write holds no number before, where its type has what is none.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::asked::{Asked, refused, sizes_text};
use super::draw::{draw, element, stream};
use crate::engine::request::dtype::Dtype;
use crate::engine::request::signature::{Resolved, Signature};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::{Access, Fill, FillKind, Parameter, ParameterKind};
use crate::engine::run::arguments::Argument;
use crate::measure::MeasureError;
use crate::measure::npy::{self, Elements};
use crate::measure::number::{bits, bits_of, lanes, value};
use crate::measure::tune::Sizes;

/// What memory that a kernel is to write holds before: NaN of every floating-point type.
const UNWRITTEN: u8 = 0xff;

/// A variant's launch.
pub(super) struct Plan {
    pub(super) spec: KernelSpec,
    pub(super) entry: Option<String>,
    /// The launch sizes, in declared order.
    pub(super) sizes: Vec<(String, u32)>,
    /// Scalars, structs and null pointers.
    pub(super) values: Vec<(String, Argument)>,
    pub(super) buffers: Vec<Buffer>,
}

/// Memory of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buffer {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) access: Access,
    pub(super) alignment: usize,
    holds: Holds,
}

#[derive(Debug, Clone, PartialEq)]
enum Holds {
    /// The same byte everywhere.
    Byte(u8),
    Random(Fill, u64),
    Bytes(Vec<u8>),
}

/// What a parameter is to hold.
enum Meant {
    File(PathBuf),
    Made(Fill),
}

/// What a plan is made of.
struct Making<'a> {
    asked: &'a Asked<'a>,
    signature: Signature,
    numbers: BTreeMap<String, u64>,
}

impl Plan {
    /// The plan of a variant for sizes by name. Reads the files that it is filled from, and
    /// draws nothing yet.
    ///
    /// # Errors
    /// What is not declared or not given, and a file that does not fit, in one line.
    pub(super) fn of(asked: &Asked<'_>, spec: &KernelSpec, sizes: &Sizes) -> Result<Self, MeasureError> {
        let making = Making::of(asked, spec, sizes)?;
        let mut plan = Self {
            spec: spec.clone(),
            entry: asked.entry.clone(),
            sizes: Vec::new(),
            values: Vec::new(),
            buffers: Vec::new(),
        };
        for name in making.signature.sizes() {
            let size = sizes.get(name).copied();
            let size = size.ok_or_else(|| {
                let reason = format!("the launch size `{name}` is missing: give --size {name}=COUNT, or [measure.sizes] in its TOML");
                refused(&spec.family().name, &reason)
            })?;
            plan.sizes.push((name.clone(), size));
        }
        // Scalars first: a shape may have one in it.
        let is_scalar = |p: &&Parameter| matches!(p.kind, ParameterKind::Scalar { .. });
        let (scalars, others): (Vec<_>, Vec<_>) = making.signature.parameters().iter().partition(is_scalar);
        for parameter in scalars.into_iter().chain(others) {
            let wrong = |e: String| {
                refused(
                    &spec.family().name,
                    &format!("parameter `{}`: {e}", parameter.name),
                )
            };
            match making.signature.resolve(parameter).map_err(|e| wrong(e.into()))? {
                Resolved::Scalar { value: Some(_), .. } => {}
                Resolved::Scalar { dtype, value: None } => {
                    let value = making.scalar(parameter, dtype).map_err(wrong)?;
                    plan.values
                        .push((parameter.name.clone(), Argument::Scalar(dtype, value)));
                }
                Resolved::Bytes { size, .. } => {
                    let bytes = making.struct_bytes(parameter, size).map_err(wrong)?;
                    plan.values.push((parameter.name.clone(), Argument::Bytes(bytes)));
                }
                pointer @ Resolved::Pointer { .. } => {
                    match making.buffer(parameter, pointer).map_err(wrong)? {
                        Some(buffer) => plan.buffers.push(buffer),
                        None => plan.values.push((parameter.name.clone(), Argument::Null)),
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Bytes that a launch has to move: what it reads, and what it writes.
    pub(super) fn moved(&self) -> usize {
        let times = |access| match access {
            Access::In | Access::Out => 1,
            Access::InOut => 2,
            Access::Workspace => 0,
        };
        self.buffers
            .iter()
            .map(|buffer| times(buffer.access) * buffer.bytes())
            .sum()
    }

    /// What is compared after a launch.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().filter(|buffer| buffer.is_output())
    }

    /// For people: the variant and the sizes.
    pub(super) fn label(&self, sizes: &Sizes) -> String {
        let (family, variant) = (&self.spec.family().name, self.spec.variant());
        format!("{family} {variant} {}", sizes_text(sizes))
            .trim_end()
            .to_owned()
    }
}

impl<'a> Making<'a> {
    fn of(asked: &'a Asked<'a>, spec: &KernelSpec, sizes: &Sizes) -> Result<Self, MeasureError> {
        let family = &spec.family().name;
        let chosen = |name: &str| asked.entry.as_ref().is_none_or(|entry| entry == name);
        let mut first: Option<Signature> = None;
        for entry in spec.entries().filter(|entry| chosen(&entry.name)) {
            let signature = spec.signature(entry).ok_or_else(|| {
                let reason = format!(
                    "`{}` does not declare its parameters: inputs are made from [[entries.parameters]]",
                    entry.name
                );
                refused(family, &reason)
            })?;
            if let Some(first) = &first
                && !first.same_list(&signature)
            {
                let reason = format!(
                    "`{}` and `{}` take different lists: --entry chooses one",
                    first.entry(),
                    entry.name
                );
                return Err(refused(family, &reason));
            }
            first.get_or_insert(signature);
        }
        let signature = first.ok_or_else(|| {
            let entry = asked.entry.as_deref().unwrap_or_default();
            refused(
                family,
                &format!("--entry {entry}: {} does not have it", spec.variant()),
            )
        })?;
        let mut making = Self {
            asked,
            signature,
            numbers: sizes
                .iter()
                .map(|(name, size)| (name.clone(), u64::from(*size)))
                .collect(),
        };
        // A shape may have whole scalars in it.
        for parameter in making.signature.parameters().to_vec() {
            if let Ok(Resolved::Scalar { dtype, value: None }) = making.signature.resolve(&parameter)
                && dtype.is_integer()
                && let Some(Ok(number)) = making.text(&parameter).map(|text| text.parse::<i128>())
            {
                // A negative one is no length, as where it is bound.
                let number = u64::try_from(number).unwrap_or(0);
                making.numbers.insert(parameter.name.clone(), number);
            }
        }
        Ok(making)
    }

    /// A scalar as somebody wrote it, or as the family declares it.
    fn text(&self, parameter: &Parameter) -> Option<String> {
        let declared = || match &parameter.fill.as_ref()?.kind {
            FillKind::Value(value) => Some(value.to_string()),
            _ => None,
        };
        self.asked.values.get(&parameter.name).cloned().or_else(declared)
    }

    fn scalar(&self, parameter: &Parameter, dtype: Dtype) -> Result<u64, String> {
        let text = self.text(parameter).ok_or_else(|| {
            format!(
                "its value is missing: give --value {}=NUMBER, or `fill` in its declaration",
                parameter.name
            )
        })?;
        let wrong = || format!("`{text}` is not a value of {dtype}");
        if dtype == Dtype::Bool {
            return match text.as_str() {
                "true" | "1" => Ok(1),
                "false" | "0" => Ok(0),
                _ => Err(wrong()),
            };
        }
        if dtype.is_integer() {
            let whole: i128 = text.parse().map_err(|_| wrong())?;
            let width = 8 * u32::try_from(dtype.bytes()).unwrap_or(8);
            let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
            let (low, high) = if signed {
                (-(1_i128 << (width - 1)), (1_i128 << (width - 1)) - 1)
            } else {
                (0, (1_i128 << width) - 1)
            };
            if !(low..=high).contains(&whole) {
                return Err(format!("{whole} is beyond {dtype}, {low} to {high}"));
            }
            // Its low bits are the value's.
            return Ok(u64::try_from(whole & ((1 << width) - 1)).unwrap_or(0));
        }
        let number: f64 = text.parse().map_err(|_| wrong())?;
        Ok(bits(dtype, number))
    }

    fn struct_bytes(&self, parameter: &Parameter, size: u32) -> Result<Box<[u8]>, String> {
        let Some(Meant::File(path)) = self.meant(parameter)? else {
            let name = &parameter.name;
            return Err(format!(
                "is passed by value, and made by a program: give --fill {name}=FILE.npy with its bytes (u8)"
            ));
        };
        let read = npy::read(&path, Dtype::U8).map_err(|e| e.to_string())?;
        if read.dtype != Dtype::U8 || read.bytes.len() != size as usize {
            let (path, bytes, dtype) = (path.display(), read.bytes.len(), read.dtype);
            return Err(format!("{path}: {bytes} bytes of {dtype}: expected {size} of u8"));
        }
        Ok(read.bytes.into())
    }

    /// What somebody said that a parameter holds, or its declaration.
    fn meant(&self, parameter: &Parameter) -> Result<Option<Meant>, String> {
        let meant = |fill: &Fill, path: &dyn Fn(&str) -> Result<PathBuf, String>| match &fill.kind {
            FillKind::File(name) => path(name).map(Meant::File),
            _ => Ok(Meant::Made(fill.clone())),
        };
        // A file of the command line lies where that says.
        if let Some(fill) = self.asked.fills.get(&parameter.name) {
            return meant(fill, &|name| Ok(PathBuf::from(name))).map(Some);
        }
        let below = |name: &str| {
            let folder = self.asked.jit.config().templates();
            let folder =
                folder.ok_or_else(|| format!("{name}: there is no folder of templates it could lie in"))?;
            let mut parts = Path::new(name).components();
            let inside = parts.all(|part| matches!(part, Component::Normal(_)));
            let path = inside.then(|| folder.join(name));
            path.ok_or_else(|| format!("{name}: expected a path below the folder of templates"))
        };
        parameter
            .fill
            .as_ref()
            .map(|fill| meant(fill, &below))
            .transpose()
    }

    fn buffer(&self, parameter: &Parameter, resolved: Resolved) -> Result<Option<Buffer>, String> {
        let Resolved::Pointer {
            dtype,
            access,
            optional,
            alignment,
        } = resolved
        else {
            return Ok(None);
        };
        let meant = self.meant(parameter)?;
        if optional && meant.is_none() {
            return Ok(None);
        }
        let declared = self.signature.shape(parameter, &self.numbers)?;
        let known = || {
            let name = &parameter.name;
            whole(&declared).ok_or_else(|| format!("its length is not declared: give --fill {name}=FILE.npy"))
        };
        let (shape, holds) = match (meant, access) {
            (Some(Meant::File(path)), _) => {
                let read = npy::read(&path, dtype).map_err(|e| e.to_string())?;
                let read = fitting(read, dtype, &declared, &path.display().to_string())?;
                (read.shape, Holds::Bytes(read.bytes))
            }
            (Some(Meant::Made(fill)), _) => {
                fill.check(dtype)?;
                (known()?, self.random(parameter, fill))
            }
            (None, Access::Out) => (known()?, Holds::Byte(UNWRITTEN)),
            (None, Access::Workspace) => (known()?, Holds::Byte(0)),
            (None, Access::In | Access::InOut) => (known()?, self.random(parameter, Fill::usual(dtype))),
        };
        let buffer = Buffer {
            name: parameter.name.clone(),
            dtype,
            shape,
            access,
            alignment: alignment as usize,
            holds,
        };
        let bytes = buffer
            .shape
            .iter()
            .try_fold(dtype.bytes(), |all, n| all.checked_mul(*n));
        match bytes {
            Some(_) => Ok(Some(buffer)),
            None => Err(format!("{:?} elements are more than any memory", buffer.shape)),
        }
    }

    fn random(&self, parameter: &Parameter, fill: Fill) -> Holds {
        let seed = fill.seed.unwrap_or(self.asked.seed);
        Holds::Random(fill, stream(seed, &parameter.name))
    }
}

fn whole(shape: &[Option<u64>]) -> Option<Vec<usize>> {
    shape.iter().map(|dim| usize::try_from((*dim)?).ok()).collect()
}

/// The elements of a file as a parameter takes them; another type's are rounded.
fn fitting(read: Elements, dtype: Dtype, declared: &[Option<u64>], file: &str) -> Result<Elements, String> {
    let same = |(have, want): (&usize, &Option<u64>)| want.is_none_or(|want| want == *have as u64);
    if read.shape.len() != declared.len() || !read.shape.iter().zip(declared).all(same) {
        let dims: Vec<String> = declared
            .iter()
            .map(|d| d.map_or("*".into(), |d| d.to_string()))
            .collect();
        return Err(format!(
            "{file}: shape {:?}: expected {dtype} [{}]",
            read.shape,
            dims.join(", ")
        ));
    }
    if read.dtype == dtype {
        return Ok(read);
    }
    if lanes(dtype) != 1 {
        return Err(format!(
            "{file}: holds {}: expected the bytes of {dtype}",
            read.dtype
        ));
    }
    let numbers = read.bytes.chunks_exact(read.dtype.bytes());
    let numbers = numbers.map(|one| value(read.dtype, bits_of(one), 0));
    let bytes = numbers.flat_map(|number| element(dtype, number)).collect();
    Ok(Elements { dtype, bytes, ..read })
}

impl Buffer {
    #[cfg(test)]
    pub(super) fn plain(name: &str, dtype: Dtype, shape: Vec<usize>, access: Access) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape,
            access,
            alignment: 16,
            holds: Holds::Byte(0),
        }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    pub(super) fn is_output(&self) -> bool {
        matches!(self.access, Access::Out | Access::InOut)
    }

    pub(super) fn is_input(&self) -> bool {
        matches!(self.access, Access::In | Access::InOut)
    }

    /// What it holds before a launch.
    pub(super) fn image(&self) -> Vec<u8> {
        match &self.holds {
            Holds::Byte(byte) => vec![*byte; self.bytes()],
            Holds::Bytes(bytes) => bytes.clone(),
            Holds::Random(fill, seed) => draw(self.dtype, fill, *seed, self.elements()),
        }
    }
}

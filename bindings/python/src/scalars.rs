//! Python's numbers as a kernel's scalars, and its buffers as what is passed by value.
//!
//! Invariant: a number is of the parameter's type exactly, but that a float is rounded to it;
//! bytes are as they are.

use half::{bf16, f16};
use jitc::engine::run::arguments::Argument;
use jitc::engine::run::tensor::Dtype;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// A number as a scalar of this type; the text says what is wrong.
pub(crate) fn of(object: &Bound<'_, PyAny>, dtype: Dtype) -> Result<Argument, String> {
    fn whole<'py, T>(object: &Bound<'py, PyAny>, dtype: Dtype) -> Result<Argument, String>
    where
        T: FromPyObjectOwned<'py> + Into<Argument>,
    {
        let number = object.extract::<T>().map_err(|_| said(object, dtype))?;
        Ok(number.into())
    }
    let real = || object.extract::<f64>().map_err(|_| said(object, dtype));
    match dtype {
        Dtype::U8 => whole::<u8>(object, dtype),
        Dtype::I8 => whole::<i8>(object, dtype),
        Dtype::U16 => whole::<u16>(object, dtype),
        Dtype::I16 => whole::<i16>(object, dtype),
        Dtype::U32 => whole::<u32>(object, dtype),
        Dtype::I32 => whole::<i32>(object, dtype),
        Dtype::U64 => whole::<u64>(object, dtype),
        Dtype::I64 => whole::<i64>(object, dtype),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float is rounded to the parameter's type"
        )]
        Dtype::F32 => Ok((real()? as f32).into()),
        Dtype::Bool => Ok(object.extract::<bool>().map_err(|_| said(object, dtype))?.into()),
        Dtype::F64 => Ok(real()?.into()),
        Dtype::F16 => Ok(f16::from_f64(real()?).into()),
        Dtype::Bf16 => Ok(bf16::from_f64(real()?).into()),
        _ => Err(format!("a value of type {dtype} cannot be given from Python")),
    }
}

/// The bytes of what is passed by value: of anything with a buffer (`bytes`, a structure of
/// ctypes, a structured value of numpy), or a tensor map with its words, as cuda-bindings has
/// it. The text says what is wrong.
pub(crate) fn bytes<'py>(object: &Bound<'py, PyAny>) -> Result<Bound<'py, PyBytes>, String> {
    let py = object.py();
    let read = || -> PyResult<Bound<'py, PyBytes>> {
        if let Some(words) = object.getattr_opt(intern!(py, "opaque"))? {
            let words: Vec<u64> = words
                .try_iter()?
                .map(|word| word?.call_method0(intern!(py, "__index__"))?.extract())
                .collect::<PyResult<_>>()?;
            // Little-endian, as is every machine that has CUDA.
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            return Ok(PyBytes::new(py, &bytes));
        }
        let view = PyMemoryView::from(object)?;
        Ok(view.call_method0(intern!(py, "tobytes"))?.cast_into()?)
    };
    read().map_err(|_| {
        let class = object.get_type();
        let class = class
            .name()
            .map_or_else(|_| "an object".to_owned(), |name| name.to_string());
        format!(
            "expected bytes, a structure of ctypes, a structured value of numpy or anything with a \
             buffer, got {class}"
        )
    })
}

fn said(object: &Bound<'_, PyAny>, dtype: Dtype) -> String {
    let shown = object
        .repr()
        .map_or_else(|_| "an object".to_owned(), |text| text.to_string());
    let shown: String = shown.chars().take(60).collect();
    format!("expected a value of type {dtype}, got {shown}")
}

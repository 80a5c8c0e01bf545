//! Python's numbers as a kernel's scalars.

use half::{bf16, f16};
use jitc::engine::run::arguments::Argument;
use jitc::engine::run::tensor::Dtype;
use pyo3::prelude::*;

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
        Dtype::F64 => Ok(real()?.into()),
        Dtype::F16 => Ok(f16::from_f64(real()?).into()),
        Dtype::Bf16 => Ok(bf16::from_f64(real()?).into()),
        _ => Err(format!("a value of type {dtype} cannot be given from Python")),
    }
}

fn said(object: &Bound<'_, PyAny>, dtype: Dtype) -> String {
    let shown = object
        .repr()
        .map_or_else(|_| "an object".to_owned(), |text| text.to_string());
    let shown: String = shown.chars().take(60).collect();
    format!("expected a value of type {dtype}, got {shown}")
}

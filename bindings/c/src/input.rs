//! What C passes: texts, lists, handles, and structs that may have grown.
//!
//! Invariant: null is an error that names the parameter, unless it is allowed; of a struct
//! no byte is read beyond the size that it gives.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::Failure;

/// A struct whose first member is its size in bytes.
///
/// # Safety
///
/// It is `repr(C)` and plain, its first member is a `usize`, and zeros are a value of it.
pub(crate) unsafe trait HasSize: Copy {
    /// Its name in C.
    const NAME: &str;
}

/// A copy of a struct of any version: members that it does not have are 0.
///
/// # Safety
///
/// It is null, or of as many bytes as its first member says.
pub(crate) unsafe fn sized<T: HasSize>(pointer: *const T) -> Result<T, Failure> {
    let name = T::NAME;
    if pointer.is_null() {
        return Err(Failure::argument(format!("the {name} is NULL")));
    }
    // SAFETY: the caller's promise: it begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() || !size.is_multiple_of(align_of::<T>()) {
        return Err(Failure::argument(format!(
            "a {name} of {size} bytes: expected its size to be sizeof({name})"
        )));
    }
    // SAFETY: the caller's promise.
    let all = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let (known, more) = all.split_at(size.min(size_of::<T>()));
    if more.iter().any(|byte| *byte != 0) {
        return Err(Failure::argument(format!(
            "a {name} of {size} bytes uses members that jitc {} does not have: expected {}",
            env!("CARGO_PKG_VERSION"),
            size_of::<T>()
        )));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: so many bytes are there on both sides, which do not overlap.
    unsafe { (known.as_ptr()).copy_to_nonoverlapping(value.as_mut_ptr().cast(), known.len()) };
    // SAFETY: zeros are a value, and the rest are members of the caller's.
    Ok(unsafe { value.assume_init() })
}

/// Gives a struct to the caller, as far as its version has the members.
///
/// # Safety
///
/// It is null, or of as many bytes as its first member says.
pub(crate) unsafe fn give_sized<T: HasSize>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { sized(pointer.cast_const())? };
    // SAFETY: as above.
    let size = unsafe { pointer.cast::<usize>().read() };
    let from = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: so many bytes are there on both sides, which do not overlap.
    unsafe { from.copy_to_nonoverlapping(pointer.cast(), size.min(size_of::<T>())) };
    // SAFETY: as above: its size is the caller's.
    unsafe { pointer.cast::<usize>().write(size) };
    Ok(())
}

/// What a pointer points at.
///
/// # Safety
///
/// It is null, or points at a `T` that stays for `'a`.
pub(crate) unsafe fn given<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::argument(format!("{what} is NULL")))
}

/// Ends what was handed out; NULL is nothing.
///
/// # Safety
///
/// It is null, or came from `Box::into_raw` and is not used from here on.
pub(crate) unsafe fn end<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// Where an answer goes.
///
/// # Safety
///
/// It is null, or points at room for a `T` that is nobody else's for `'a`.
pub(crate) unsafe fn room<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut MaybeUninit<T>, Failure> {
    // SAFETY: the caller's promise; nothing is read from it.
    unsafe { pointer.cast::<MaybeUninit<T>>().as_mut() }
        .ok_or_else(|| Failure::argument(format!("{what} is NULL: expected where the answer goes")))
}

/// A text that may be missing.
///
/// # Safety
///
/// It is null, or a text with a 0 at its end that stays for `'a`.
pub(crate) unsafe fn optional<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    let text = text
        .to_str()
        .map_err(|_| Failure::argument(format!("{what} is not UTF-8")))?;
    Ok(Some(text))
}

/// A text.
///
/// # Safety
///
/// As for [`optional`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { optional(pointer, what)? };
    text.ok_or_else(|| Failure::argument(format!("{what} is NULL")))
}

/// A path that may be missing: of any bytes.
///
/// # Safety
///
/// As for [`optional`].
pub(crate) unsafe fn path(pointer: *const c_char) -> Option<PathBuf> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    Some(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Several things in a row; none where there are 0 of them, whatever the pointer.
///
/// # Safety
///
/// It is null, or points at so many that stay for `'a`.
pub(crate) unsafe fn row<'a, T>(pointer: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    match (pointer.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::argument(format!(
            "{what} is NULL, and there are to be {count}"
        ))),
        // SAFETY: the caller's promise.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(pointer, count) }),
    }
}

/// Several texts.
///
/// # Safety
///
/// As for [`row`], and each is as for [`optional`].
pub(crate) unsafe fn texts<'a>(
    pointer: *const *const c_char,
    count: usize,
    what: &str,
) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: the caller's promise.
    let row = unsafe { row(pointer, count, what)? };
    let texts = row.iter().enumerate().map(|(at, one)| {
        // SAFETY: the caller's promise.
        unsafe { text(*one, &format!("{what}[{at}]")) }
    });
    texts.collect()
}

//! Codes, the last error of a thread, and the guard around every function.
//!
//! Invariant: a function that fails leaves its message on its own thread, and a panic is
//! a failure like any other.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use jitc::engine::jit::{Error, ErrorKind};
use jitc::engine::run::bind_error::BindError;
use jitc::engine::run::device::DeviceError;
use jitc::engine::run::launch::LaunchError;
use jitc::engine::run::load::LoadError;
use jitc::engine::run::tvm_ffi::TvmFfiError;

/// What became of a call. Numbers keep their meaning; new ones may come.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Ok = 0,
    /// Something that was passed cannot be: a NULL, a size, a value for a parameter.
    Argument = 1,
    /// A setting.
    Config = 2,
    /// A family, or a source that is none.
    Template = 3,
    /// A constant or an arch that cannot be.
    Spec = 4,
    /// No compiler, or one that cannot do it.
    Toolchain = 5,
    /// The cache.
    Cache = 6,
    /// The compiler refused the source; its words are the log of the error.
    Compile = 7,
    /// The driver did not load it.
    Load = 8,
    /// No driver, no GPU, or not this one.
    Device = 9,
    /// A receipt or a signature that is demanded.
    Policy = 10,
    /// The driver did not launch it.
    Launch = 11,
    /// Nothing may compile, and it is not in the cache.
    Forbidden = 12,
    /// It was to be loaded while a stream captures.
    Capturing = 13,
    /// It belongs to the process that this one was forked from.
    Forked = 14,
    /// Anything else.
    Other = 15,
    /// A mistake of jitc itself. The call did nothing further; please report it.
    Panic = 16,
}

/// What went wrong. All text is the library's, and is good until the next call of this
/// thread that fails, or the thread's end.
#[repr(C)]
#[derive(Debug)]
pub struct LastError {
    /// Bytes of this struct as the library has it.
    pub size: usize,
    /// What the call returned.
    pub status: Status,
    /// One line: what was wrong, and where. Never NULL.
    pub message: *const c_char,
    /// What to do about it, lines of text; NULL where there is nothing to say.
    pub hint: *const c_char,
    /// All that the compiler said, of `JITC_STATUS_COMPILE`; else NULL.
    pub log: *const c_char,
    /// The key that was asked for, of `JITC_STATUS_FORBIDDEN`; else NULL.
    pub key: *const c_char,
}

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    message: String,
    hint: Option<String>,
    log: Option<String>,
    key: Option<String>,
}

impl Failure {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            hint: None,
            log: None,
            key: None,
        }
    }

    /// Something that was passed cannot be.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(Status::Argument, message)
    }

    /// A request that the engine never saw.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(Status::Spec, message)
    }

    fn panicked(payload: &(dyn Any + Send)) -> Self {
        let said = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::new(
            Status::Panic,
            format!(
                "a mistake of jitc itself: {}",
                said.unwrap_or("it does not say which")
            ),
        )
    }

    fn with_hint(self, hint: Option<&str>) -> Self {
        Self {
            hint: hint.map(str::to_owned),
            ..self
        }
    }

    /// Makes it this thread's last error.
    fn keep(self) -> Status {
        let status = self.status;
        // A thread that is ending has no place for it any more: the code is all there is.
        let _ = LAST.try_with(|last| *last.borrow_mut() = Some(Box::new(Kept::of(self))));
        status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Load(LoadError::Capturing { .. }) => Status::Capturing,
            Error::Load(LoadError::Device(DeviceError::Forked)) | Error::Device(DeviceError::Forked) => {
                Status::Forked
            }
            Error::Load(LoadError::Device(_)) => Status::Device,
            Error::Forbidden { .. } => Status::Forbidden,
            _ => match error.kind() {
                ErrorKind::Config => Status::Config,
                ErrorKind::Template | ErrorKind::Render => Status::Template,
                ErrorKind::Spec => Status::Spec,
                ErrorKind::Toolchain => Status::Toolchain,
                ErrorKind::Cache => Status::Cache,
                ErrorKind::Compile => Status::Compile,
                ErrorKind::Load => Status::Load,
                ErrorKind::Device => Status::Device,
                ErrorKind::Policy => Status::Policy,
                _ => Status::Other,
            },
        };
        let hints = error.hints();
        Self {
            hint: (!hints.is_empty()).then(|| hints.join("\n")),
            log: error.log().map(str::to_owned),
            key: match &error {
                Error::Forbidden { key, .. } => Some(key.to_string()),
                _ => None,
            },
            ..Self::new(status, error.to_string())
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Error::Device(error).into()
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Device(device) => device.into(),
            other => Self::argument(other.to_string()),
        }
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let status = match error {
            LaunchError::Forked { .. } => Status::Forked,
            LaunchError::Driver { .. } => Status::Launch,
            _ => Status::Argument,
        };
        Self::new(status, error.to_string()).with_hint(error.hint())
    }
}

impl From<TvmFfiError> for Failure {
    fn from(error: TvmFfiError) -> Self {
        let status = match error {
            TvmFfiError::Taken(_) | TvmFfiError::Kernel(_) => Status::Argument,
            _ => Status::Other,
        };
        Self::new(status, error.to_string())
    }
}

/// A failure as C reads it.
struct Kept {
    error: LastError,
    _texts: [Option<CString>; 4],
}

impl Kept {
    fn of(failure: Failure) -> Self {
        let texts = [Some(failure.message), failure.hint, failure.log, failure.key]
            .map(|said| said.map(|said| text(&said)));
        let at = |n: usize| texts[n].as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let error = LastError {
            size: size_of::<LastError>(),
            status: failure.status,
            message: at(0),
            hint: at(1),
            log: at(2),
            key: at(3),
        };
        // A text stays where it is when its owner moves.
        Self { error, _texts: texts }
    }
}

thread_local! {
    static LAST: RefCell<Option<Box<Kept>>> = const { RefCell::new(None) };
}

/// Text for C; what ends a text there is not in it.
pub(crate) fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Does what a function is for. An error, or a panic, is kept as the thread's last error.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    let done = catch_unwind(AssertUnwindSafe(body));
    match done.unwrap_or_else(|payload| Err(Failure::panicked(&*payload))) {
        Ok(()) => Status::Ok,
        Err(failure) => failure.keep(),
    }
}

/// The last failure of a call of this thread; NULL where none failed yet. A call that
/// succeeds leaves it.
#[unsafe(no_mangle)]
pub extern "C" fn jitc_last_error() -> *const LastError {
    let last = LAST.try_with(|last| {
        let last = last.borrow();
        last.as_ref().map_or(ptr::null(), |kept| &raw const kept.error)
    });
    last.unwrap_or(ptr::null())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> &'static LastError {
        // SAFETY: the test fails no further call of this thread while it reads.
        unsafe { jitc_last_error().as_ref() }.expect("an error")
    }

    fn said(text: *const c_char) -> String {
        // SAFETY: a text of the last error.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        text.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_panic_is_a_code_and_a_message() {
        let status = guard(|| panic!("of {}", 3));
        assert_eq!((status, last().status), (Status::Panic, Status::Panic));
        assert_eq!(said(last().message), "a mistake of jitc itself: of 3");
        assert!(last().hint.is_null());
    }

    #[test]
    fn a_zero_byte_cuts_no_message_short() {
        guard(|| Err(Failure::argument("before\0after")));
        assert_eq!(said(last().message), "before\u{fffd}after");
    }

    #[test]
    fn another_thread_has_no_error_and_success_leaves_the_last_one() {
        guard(|| Err(Failure::argument("mine")));
        assert_eq!(guard(|| Ok(())), Status::Ok);
        assert_eq!(said(last().message), "mine");
        let others = std::thread::spawn(|| jitc_last_error().is_null());
        assert!(others.join().expect("joined"));
    }
}

//! The functions as C calls them, without a GPU and without a compiler.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a sequence of calls as C makes them"
)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

use jitc_c::*;

/// What the last failure of this thread said: message and hint.
fn said() -> (String, String) {
    // SAFETY: nothing fails on this thread while it is read.
    let error = unsafe { jitc_last_error().as_ref() }.expect("an error");
    let text = |text: *const c_char| {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: a text of the error.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_str().expect("UTF-8").to_owned()
    };
    (text(error.message), text(error.hint))
}

fn options() -> Options {
    // SAFETY: zeros are settings that say nothing.
    let zeros: Options = unsafe { std::mem::zeroed() };
    Options {
        size: size_of::<Options>(),
        ..zeros
    }
}

/// An engine over an empty cache, which is forbidden to compile if that is said.
struct Open {
    engine: *mut Engine,
    _cache: tempfile::TempDir,
}

impl Open {
    fn new(miss: Option<&CStr>) -> Self {
        let cache = tempfile::tempdir().expect("a folder");
        let folder = CString::new(cache.path().to_str().expect("UTF-8")).expect("no 0");
        let mut engine = null_mut();
        let options = Options {
            cache_dir: folder.as_ptr(),
            miss: miss.map_or(null(), CStr::as_ptr),
            offline: 1,
            ..options()
        };
        // SAFETY: all pointers are to what is said.
        let status = unsafe { jitc_open(&raw const options, &raw mut engine) };
        assert_eq!(status, Status::Ok);
        Self {
            engine,
            _cache: cache,
        }
    }

    fn source(&self, text: &CStr, define: &CStr) -> Result<*mut Kernel, Status> {
        let (entries, defines) = ([c"scale".as_ptr()], [define.as_ptr()]);
        // SAFETY: zeros say nothing.
        let zeros: Source = unsafe { std::mem::zeroed() };
        let source = Source {
            size: size_of::<Source>(),
            text: text.as_ptr(),
            entries: entries.as_ptr(),
            entry_count: 1,
            defines: defines.as_ptr(),
            define_count: 1,
            arch: c"sm_90a".as_ptr(),
            ..zeros
        };
        let mut kernel = null_mut();
        // SAFETY: all pointers are to what is said.
        let status = unsafe { jitc_source(self.engine, &raw const source, &raw mut kernel) };
        if status == Status::Ok {
            Ok(kernel)
        } else {
            Err(status)
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { jitc_close(self.engine) };
    }
}

const TEXT: &CStr = c"extern \"C\" __global__ void scale(float *x) { x[threadIdx.x] *= FACTOR; }";

fn key(kernel: *const Kernel) -> String {
    let mut key = null();
    // SAFETY: a kernel, and room for the answer.
    assert_eq!(unsafe { jitc_key(kernel, &raw mut key) }, Status::Ok);
    // SAFETY: the kernel's key.
    unsafe { CStr::from_ptr(key) }.to_str().expect("UTF-8").to_owned()
}

#[test]
fn null_is_an_error_that_names_the_parameter() {
    let (mut engine, mut kernel, mut text, mut bytes, mut count) =
        (null_mut(), null_mut(), null(), null(), 7);
    let open = Open::new(None);
    // SAFETY: what is not null is what it is said to be.
    unsafe {
        let calls = [
            ("engine", jitc_open(null(), null_mut())),
            ("engine", jitc_forbid(null())),
            ("engine", jitc_warm(null(), null(), null(), 0, null(), null_mut())),
            (
                "family",
                jitc_warm(open.engine, null(), null(), 0, null(), null_mut()),
            ),
            (
                "engine",
                jitc_family(null(), null(), null(), 0, null(), &raw mut kernel),
            ),
            (
                "kernel",
                jitc_family(open.engine, c"x".as_ptr(), null(), 0, null(), null_mut()),
            ),
            (
                "constants",
                jitc_family(open.engine, c"x".as_ptr(), null(), 2, null(), &raw mut kernel),
            ),
            (
                "jitc_source_text",
                jitc_source(open.engine, null(), &raw mut kernel),
            ),
            ("key", jitc_key(null(), null_mut())),
            ("kernel", jitc_key(null(), &raw mut text)),
            ("kernel", jitc_prepare(null(), null_mut())),
            ("kernel", jitc_cubin(null(), &raw mut bytes, &raw mut count)),
            ("count", jitc_cubin(null(), &raw mut bytes, null_mut())),
            ("kernel", jitc_load(null(), 0)),
            ("kernel", jitc_launch(null(), 0, 1, 1, 1, null_mut(), null(), 0)),
            ("kernel", jitc_call(null(), null(), null(), 0, null_mut())),
        ];
        for (at, (_, status)) in calls.iter().enumerate() {
            assert_eq!(*status, Status::Argument, "call {at}");
        }
        jitc_forbid(null());
        assert_eq!(said().0, "engine is NULL");
        jitc_family(open.engine, c"x".as_ptr(), null(), 2, null(), &raw mut kernel);
        assert_eq!(said().0, "constants is NULL, and there are to be 2");
        jitc_close(null_mut());
        jitc_free(null_mut());
        engine = if jitc_open(null(), &raw mut engine) == Status::Ok {
            engine
        } else {
            null_mut()
        };
        assert!(!engine.is_null(), "no options: all of the environment");
        jitc_close(engine);
    }
    assert!(kernel.is_null() && text.is_null() && bytes.is_null());
    assert_eq!(count, 0, "an answer is nothing after a failure");
}

#[test]
fn a_struct_of_an_older_caller_is_taken_and_of_a_newer_one_only_what_is_known() {
    #[repr(C)]
    struct Newer {
        known: Options,
        more: u64,
    }
    let open = |options: *const Options| {
        let mut engine = null_mut();
        // SAFETY: each is as large as it says.
        let status = unsafe { jitc_open(options, &raw mut engine) };
        // SAFETY: null, or just opened.
        unsafe { jitc_close(engine) };
        status
    };
    // Members that an older caller does not have are not read.
    let mut older = options();
    older.size = std::mem::offset_of!(Options, miss);
    older.miss = c"nonsense".as_ptr();
    assert_eq!(open(&raw const older), Status::Ok);
    older.size = size_of::<Options>();
    assert_eq!(open(&raw const older), Status::Argument);
    assert_eq!(said().0, "miss: `nonsense`: expected compile, warn or forbid");
    older.size = 0;
    assert_eq!(open(&raw const older), Status::Argument);
    assert!(said().0.contains("sizeof(jitc_options)"), "{}", said().0);
    let mut newer = Newer {
        known: options(),
        more: 0,
    };
    newer.known.size = size_of::<Newer>();
    assert_eq!(open((&raw const newer).cast()), Status::Ok);
    newer.more = 1;
    assert_eq!(open((&raw const newer).cast()), Status::Argument);
    assert!(said().0.contains("does not have"), "{}", said().0);
}

#[test]
fn a_text_has_a_key_of_its_own_and_outlives_its_engine() {
    let open = Open::new(None);
    let [two, again, three] =
        [c"FACTOR=2", c"FACTOR=2", c"FACTOR=3"].map(|define| open.source(TEXT, define).expect("a kernel"));
    drop(open);
    assert_eq!(key(two), key(again));
    assert_ne!(key(two), key(three));
    assert_eq!(key(two).len(), 64);
    for kernel in [two, again, three] {
        // SAFETY: each once.
        unsafe { jitc_free(kernel) };
    }
}

#[test]
fn where_nothing_may_compile_a_miss_says_its_key() {
    for early in [true, false] {
        let open = Open::new(early.then_some(c"forbid"));
        let kernel = open.source(TEXT, c"FACTOR=2").expect("a kernel");
        // SAFETY: an engine and its kernel.
        unsafe {
            if !early {
                assert_eq!(jitc_forbid(open.engine), Status::Ok);
            }
            assert_eq!(jitc_prepare(kernel, null_mut()), Status::Forbidden);
            let error = jitc_last_error().as_ref().expect("an error");
            assert_eq!(error.status, Status::Forbidden);
            let named = CStr::from_ptr(error.key).to_str().expect("UTF-8").to_owned();
            assert_eq!(named, key(kernel));
            jitc_free(kernel);
        }
    }
}

#[test]
fn warming_counts_what_failed_and_returns_the_first_failure() {
    let open = Open::new(Some(c"forbid"));
    let mut report = Report {
        size: size_of::<Report>(),
        hit: 9,
        built: 9,
        failed: 9,
    };
    let warm = |family: &CStr, constant: &CStr, report: *mut Report| {
        let constants = [constant.as_ptr()];
        // SAFETY: all pointers are to what is said.
        unsafe {
            jitc_warm(
                open.engine,
                family.as_ptr(),
                constants.as_ptr(),
                1,
                c"sm_90a".as_ptr(),
                report,
            )
        }
    };
    let status = warm(c"wo_gemv", c"wo_split=1,2", &raw mut report);
    assert_eq!(status, Status::Forbidden, "{}", said().0);
    assert_eq!((report.hit, report.built, report.failed), (0, 0, 2));
    assert_eq!(warm(c"wo_gemv", c"wo_split", null_mut()), Status::Argument);
    assert!(
        said().0.contains("constant `wo_split`: expected its name"),
        "{}",
        said().0
    );
    assert_eq!(warm(c"wo_gemv", c"wo_split=many", null_mut()), Status::Spec);
    assert!(!said().1.is_empty(), "with a hint");
    assert_eq!(
        warm(c"no_such", c"a=1", null_mut()),
        Status::Template,
        "{}",
        said().0
    );
}

#[test]
fn a_kernel_that_is_not_loaded_launches_nothing() {
    let open = Open::new(None);
    let kernel = open.source(TEXT, c"FACTOR").expect("a kernel");
    // SAFETY: a kernel.
    unsafe {
        assert_eq!(
            jitc_launch(kernel, 0, 1, 1, 1, null_mut(), [0].as_ptr(), 1),
            Status::Argument
        );
        assert_eq!(said().0, "the kernel is not loaded: call jitc_load");
        assert_eq!(jitc_call(kernel, null(), null(), 0, null_mut()), Status::Argument);
        jitc_free(kernel);
    }
}

#[test]
fn text_that_is_not_utf8_and_a_source_for_two_archs_are_refused() {
    let open = Open::new(None);
    assert_eq!(open.source(c"\xff", c"A"), Err(Status::Argument));
    assert_eq!(said().0, "text is not UTF-8");
    assert_eq!(open.source(TEXT, c"A=\xff"), Err(Status::Argument));
    assert_eq!(said().0, "defines[0] is not UTF-8");
}

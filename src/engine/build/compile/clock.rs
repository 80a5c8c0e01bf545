//! A clock that stands still, for the compiler alone.
//!
//! Invariant: `__TIME__` and `__DATE__`, however a source spells them, are those of
//! 1970-01-01 00:00:00 UTC: the time of a compile cannot be in a key, so it must not be
//! in the code.
//!
//! NVRTC gives no way to set them, and a system call filter does not see the clock, which
//! is read without one. So the functions that an opened libnvrtc imports for it are
//! replaced in its own table of imports: nobody else's clock is touched.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use libloading::os::unix::Library;

/// An entry of the dynamic section, `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    _info: [u8; 4],
    _value: u64,
    _size: u64,
}

/// `Elf64_Rela`.
#[repr(C)]
struct Relocation {
    offset: u64,
    info: u64,
    _addend: i64,
}

/// The head of `struct link_map` that `dlinfo` fills in.
#[repr(C)]
struct LinkMap {
    base: usize,
    _name: *const c_char,
    dynamic: *const Dynamic,
}

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;

/// Relocations that hold a function's address: `R_*_GLOB_DAT` and `R_*_JUMP_SLOT`.
#[cfg(target_arch = "x86_64")]
const SLOTS: [u64; 2] = [6, 7];
#[cfg(target_arch = "aarch64")]
const SLOTS: [u64; 2] = [1025, 1026];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SLOTS: [u64; 0] = [];

extern "C" fn time(into: *mut c_long) -> c_long {
    if !into.is_null() {
        // SAFETY: C's `time` writes one `time_t` where the caller has room for it.
        unsafe { into.write(0) };
    }
    0
}

extern "C" fn gettimeofday(into: *mut [c_long; 2], _zone: *mut c_void) -> c_int {
    if !into.is_null() {
        // SAFETY: as above, of a `timeval`.
        unsafe { into.write([0, 0]) };
    }
    0
}

extern "C" fn ctime(_time: *const c_long) -> *const c_char {
    c"Thu Jan  1 00:00:00 1970\n".as_ptr()
}

unsafe extern "C" {
    fn dlinfo(handle: *mut c_void, request: c_int, into: *mut c_void) -> c_int;
    fn gmtime_r(time: *const c_long, into: *mut c_void) -> *mut c_void;
}

extern "C" fn localtime_r(_time: *const c_long, into: *mut c_void) -> *mut c_void {
    let epoch: c_long = 0;
    // SAFETY: `epoch` outlives the call; the caller has room for a `tm`.
    unsafe { gmtime_r(&raw const epoch, into) }
}

const RTLD_DI_LINKMAP: c_int = 2;

/// Stops the clock of an opened libnvrtc; says whether it reads none any more: whether
/// `time`, which `__TIME__` needs, was among its imports.
pub(super) fn stop(library: Library) -> (Library, bool) {
    let handle = library.into_raw();
    let mut map: *const LinkMap = std::ptr::null();
    // SAFETY: the handle is an opened library's; `map` outlives the call.
    let found = unsafe { dlinfo(handle, RTLD_DI_LINKMAP, (&raw mut map).cast()) };
    let stopped = found == 0 && !map.is_null() && {
        // SAFETY: the loader's own map of a library that is open.
        let map = unsafe { &*map };
        // SAFETY: as above, and relocated by RTLD_NOW.
        unsafe { replace_imports(map) }
    };
    // SAFETY: the handle came from `into_raw` and was not closed.
    (unsafe { Library::from_raw(handle) }, stopped)
}

/// # Safety
///
/// The map is of a library that is loaded and stays so during the call.
unsafe fn replace_imports(map: &LinkMap) -> bool {
    let value = |tag: i64| {
        let mut at = map.dynamic;
        loop {
            // SAFETY: the dynamic section ends with a tag of 0.
            let entry = unsafe { &*at };
            match entry.tag {
                0 => return None,
                found if found == tag => return Some(entry.value),
                // SAFETY: not the last one, so another follows.
                _ => at = unsafe { at.add(1) },
            }
        }
    };
    let (Some(symbols), Some(strings)) = (value(DT_SYMTAB), value(DT_STRTAB)) else {
        return false;
    };
    let mut stopped = false;
    for (table, bytes) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
        let (Some(table), Some(bytes)) = (value(table), value(bytes)) else {
            continue;
        };
        let count = usize::try_from(bytes).unwrap_or(0) / size_of::<Relocation>();
        // SAFETY: the loader made these addresses absolute; the table has that many bytes.
        let relocations = unsafe { std::slice::from_raw_parts(address(table) as *const Relocation, count) };
        for relocation in relocations
            .iter()
            .filter(|r| SLOTS.contains(&(r.info & 0xffff_ffff)))
        {
            let index = usize::try_from(relocation.info >> 32).unwrap_or(0);
            let symbol = (address(symbols) as *const Symbol).wrapping_add(index);
            // SAFETY: relocations name symbols of the library's own table.
            let offset = unsafe { (*symbol).name } as usize;
            let name = (address(strings) as *const c_char).wrapping_add(offset);
            // SAFETY: symbols name NUL-terminated strings of its string table.
            let name = unsafe { CStr::from_ptr(name) };
            if let Some(function) = replacement(name) {
                let slot = map.base.wrapping_add(address(relocation.offset)) as *mut usize;
                // SAFETY: the slot is the library's, as large as a pointer, and aligned.
                stopped |= unsafe { overwrite(slot, function) } && name == c"time";
            }
        }
    }
    stopped
}

fn replacement(name: &CStr) -> Option<usize> {
    match name.to_bytes() {
        b"time" => Some(time as *const () as usize),
        b"gettimeofday" => Some(gettimeofday as *const () as usize),
        b"ctime" => Some(ctime as *const () as usize),
        b"localtime_r" => Some(localtime_r as *const () as usize),
        _ => None,
    }
}

fn address(value: u64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

/// # Safety
///
/// `slot` is a function pointer of a loaded library.
unsafe fn overwrite(slot: *mut usize, function: usize) -> bool {
    let page = rustix::param::page_size();
    let start = (slot as usize) & !(page - 1);
    let access = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
    // Where the loader made the table read-only it is left writable: a page of pointers
    // of one library, in a process that trusts that library anyway.
    // SAFETY: the page is mapped, and holds no code.
    if unsafe { rustix::mm::mprotect(start as *mut c_void, page, access) }.is_err() {
        return false;
    }
    // SAFETY: writable now, and aligned; other threads read it whole.
    unsafe { std::sync::atomic::AtomicUsize::from_ptr(slot) }
        .store(function, std::sync::atomic::Ordering::Release);
    true
}

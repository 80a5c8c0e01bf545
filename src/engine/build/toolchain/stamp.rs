//! Digests from one process to the next, so that a hit does not read 110 MB.
//!
//! Invariant: a stamp only ever saves reading the files. One that is damaged, of
//! other files, of other places, or that others could have written says nothing.
//!
//! Three lines of text: a file each, `<sha256> <size> <mtime> <ctime> <inode>`, and
//! the checksum: the SHA-256 of the two lines, of where the files are, and of the pins.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::contents::{Contents, Facts};
use super::pin::pin;
use super::trust;
use crate::engine::atomic_file::write_atomically;

/// Longer than any stamp.
const LONGEST: u64 = 1024;

/// The digests of these two files, if a good stamp of just them stands at `at`.
pub(super) fn read(
    at: &Path,
    nvrtc: &Path,
    builtins: &Path,
    facts: &Contents<Facts>,
) -> Option<Contents<String>> {
    let file = fs_err::File::open(at).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || trust::judge(at, &meta).is_err() || trust::judge_path(at.parent()?).is_err() {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let digest = |line: &str| Some(line.split_once(' ')?.0.to_owned());
    let mut lines = text.lines();
    let held = Contents {
        nvrtc: digest(lines.next()?)?,
        builtins: digest(lines.next()?)?,
    };
    (text == written(nvrtc, builtins, facts, &held)).then_some(held)
}

/// Leaves a stamp, in a folder that is made if need be.
pub(super) fn write(
    at: &Path,
    nvrtc: &Path,
    builtins: &Path,
    facts: &Contents<Facts>,
    read: &Contents<String>,
) -> std::io::Result<()> {
    if let Some(folder) = at.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    let text = written(nvrtc, builtins, facts, read);
    write_atomically(at, 0o644, |out| out.write_all(text.as_bytes()))
}

fn written(nvrtc: &Path, builtins: &Path, facts: &Contents<Facts>, held: &Contents<String>) -> String {
    let mut text = String::new();
    for (sha256, facts) in [(&held.nvrtc, &facts.nvrtc), (&held.builtins, &facts.builtins)] {
        let Facts {
            size,
            mtime,
            ctime,
            inode,
        } = facts;
        let _ = writeln!(
            text,
            "{sha256} {size} {}.{:09} {}.{:09} {inode}",
            mtime.0, mtime.1, ctime.0, ctime.1
        );
    }
    let pins = pin().map_or(["", ""], |pin| [pin.contents.nvrtc, pin.contents.builtins]);
    let mut checksum = Sha256::new();
    let parts: [&[u8]; 6] = [
        b"jitc toolchain stamp 1",
        text.as_bytes(),
        nvrtc.as_os_str().as_bytes(),
        builtins.as_os_str().as_bytes(),
        pins[0].as_bytes(),
        pins[1].as_bytes(),
    ];
    for part in parts {
        checksum.update((part.len() as u64).to_le_bytes());
        checksum.update(part);
    }
    let _ = writeln!(text, "{}", hex::encode(checksum.finalize()));
    text
}

//! Kernels for profilers: with line information, and the text that its lines are of.
//!
//! Invariant: the machine code of a variant without profiling is another entry, under
//! another key, and stays as it is: line information is an option that the key covers.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Error, Jit};
use crate::engine::build::render::RenderedSource;
use crate::engine::request::spec::KernelSpec;

const LINES: &str = "--generate-line-info";

/// Asks for line information, once.
pub(super) fn prepare(rendered: &mut RenderedSource) {
    let has = |option: &String| [LINES, "-lineinfo", "--device-debug", "-G"].contains(&option.as_str());
    if !rendered.options.iter().any(has) {
        rendered.options.push(LINES.to_owned());
    }
}

impl Jit {
    /// Writes the rendered source and the headers of a spec, under the names that line
    /// information has, into a folder of its key below `folder`, and gives that: for a
    /// profiler that is told where to look for source. Header sets are not written.
    ///
    /// # Errors
    /// Those of [`describe`](Self::describe), and of writing.
    pub fn write_source(&self, spec: &KernelSpec, folder: &Path) -> Result<PathBuf, Error> {
        let (request, rendered) = self.describe(spec)?;
        let own = folder.join(request.key().short());
        let headers = rendered.headers.iter().map(|(name, text)| (name, &**text));
        let all = headers.chain([(&rendered.name, rendered.source.as_str())]);
        for (name, text) in all {
            let path = own.join(name);
            let inside = Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                let reason = format!("{name}: a name that leads out of the folder");
                return Err(Error::Source(io::Error::new(io::ErrorKind::InvalidInput, reason)));
            }
            let written = fs_err::create_dir_all(path.parent().unwrap_or(&own));
            written
                .and_then(|()| fs_err::write(&path, text))
                .map_err(Error::Source)?;
        }
        Ok(own)
    }
}

//! What an entry was made from, compiled again: for reading, and to compare.
//!
//! Invariant: only the compiler that made an entry, with the header sets that it names,
//! compiles it again; with any other at hand this is an error, and no other answer.

use super::header_sets::expressions_of;
use super::{Error, Jit};
use crate::engine::build::compile::{Cancel, CompileError};
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::ToolchainError;
use crate::engine::cache::Whole;

impl Jit {
    /// The PTX of an entry, made anew from its own source, headers and options: entries
    /// hold none.
    ///
    /// # Errors
    /// Another NVRTC at hand than the one that made the entry, a header set that is not at
    /// hand, and what the compiler says.
    pub fn ptx(&self, whole: &Whole) -> Result<String, Error> {
        let rendered = self.source_of(whole)?;
        let ptx = self.compiler()?.ptx(&rendered);
        ptx.map_err(|source| not_compiled(whole, source))
    }

    /// Whether compiling an entry again, from its own source, headers and options, gives the
    /// machine code that it holds, byte for byte.
    ///
    /// # Errors
    /// As of [`Jit::ptx`].
    pub fn rebuilds_alike(&self, whole: &Whole) -> Result<bool, Error> {
        let rendered = self.source_of(whole)?;
        let built = self.compiler()?.compile(&rendered, &Cancel::new());
        let built = built.map_err(|source| not_compiled(whole, source))?;
        Ok(built.cubin == whole.entry().code())
    }

    /// The source of an entry, where it can be compiled as it was.
    fn source_of(&self, whole: &Whole) -> Result<RenderedSource, Error> {
        let manifest = whole.entry().manifest();
        let at_hand = self.identity()?;
        if (&at_hand.nvrtc, &at_hand.builtins) != (&manifest.toolchain.nvrtc, &manifest.toolchain.builtins) {
            let made_by = manifest.toolchain.to_string();
            return Err(ToolchainError::Other {
                made_by,
                at_hand: at_hand.to_string(),
            }
            .into());
        }
        self.with_header_sets(RenderedSource {
            name: format!("{}.cu.tera", manifest.family),
            source: whole.texts().source.clone(),
            headers: whole.texts().headers.clone(),
            sets: self.header_sets_of(manifest)?,
            expressions: expressions_of(manifest),
            options: manifest.options.clone(),
        })
    }
}

fn not_compiled(whole: &Whole, source: CompileError) -> Error {
    let manifest = whole.entry().manifest();
    Error::Compile {
        source,
        variant: manifest.family.as_str().into(),
        arch: manifest.arch,
        kept: Box::default(),
        hints: Box::default(),
    }
}

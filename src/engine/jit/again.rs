//! What an entry was made from, compiled again, and its machine code as text: for reading,
//! and to compare.
//!
//! Invariant: only the compiler that made an entry, with the header sets that it names,
//! compiles it again; with any other at hand this is an error, and no other answer.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::header_sets::expressions_of;
use super::{Error, Jit};
use crate::engine::build::compile::{Cancel, CompileError};
use crate::engine::build::key::CacheKey;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::ToolchainError;
use crate::engine::cache::{Load, TierName, Whole};

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

    /// Compiles entries of every folder again, spread over all of a folder: at most `count`
    /// of each, or all. `answer` is told of each whether it is alike; of one that cannot be
    /// read, [`Rebuilt::Unreadable`].
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn rebuild_entries(
        &self,
        count: Option<usize>,
        answer: &mut dyn FnMut(&TierName, &CacheKey, Rebuilt),
    ) -> Result<(), Error> {
        for tier in self.cache.tiers() {
            let Some(store) = tier.store() else { continue };
            let keys = store.keys().map_err(Error::Cache)?;
            let step = count.map_or(1, |count| keys.len().div_ceil(count.max(1)).max(1));
            for key in keys.iter().step_by(step) {
                let rebuilt = match store.whole(key) {
                    Load::Found(whole) => match self.rebuilds_alike(&whole) {
                        Ok(true) => Rebuilt::Alike,
                        Ok(false) => Rebuilt::Differs,
                        Err(error) => Rebuilt::Skipped(error),
                    },
                    _ => Rebuilt::Unreadable,
                };
                answer(tier.name(), key, rebuilt);
            }
        }
        Ok(())
    }

    /// The machine code of an entry as text, by whichever of the vendor's tools is found:
    /// nvdisasm or cuobjdump, on PATH or in a CUDA toolkit.
    ///
    /// # Errors
    /// Neither is found, or the one that is refuses the code.
    pub fn sass(&self, whole: &Whole) -> Result<String, DisassembleError> {
        let mut builder = tempfile::Builder::new();
        let mut file = builder.prefix("jitc-").suffix(".cubin").tempfile()?;
        file.write_all(whole.entry().code())?;
        let tools: [(&str, &[&str]); 2] = [("nvdisasm", &["-c"]), ("cuobjdump", &["-sass"])];
        for (tool, args) in tools {
            let homes = self.config.cuda_homes().into_iter();
            let elsewhere = homes.map(|(_, home)| home.join("bin").join(tool));
            for program in std::iter::once(PathBuf::from(tool)).chain(elsewhere) {
                let Ok(done) = Command::new(&program).args(args).arg(file.path()).output() else {
                    continue;
                };
                if done.status.success() {
                    return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
                }
                let words = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(DisassembleError::Refused { program, words });
            }
        }
        Err(DisassembleError::NoTool)
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

/// What compiling an entry again showed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rebuilt {
    /// The machine code is the same, byte for byte.
    Alike,
    /// It is another.
    Differs,
    /// It could not be compiled as it was: another compiler, or a header set that is not here.
    Skipped(Error),
    /// It is not an entry that can be read.
    Unreadable,
}

impl Rebuilt {
    /// Why it was not compiled again; `None` where it was.
    #[must_use]
    pub fn why_skipped(&self) -> Option<String> {
        match self {
            Self::Alike | Self::Differs => None,
            Self::Skipped(error) => Some(error.to_string()),
            Self::Unreadable => {
                Some("not an entry that can be read; `jitc cache verify` says why".to_owned())
            }
        }
    }
}

/// Why machine code could not be shown as text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisassembleError {
    /// There is no tool.
    #[error(
        "neither nvdisasm nor cuobjdump was found: put one on PATH, or set CUDA_HOME \
         (both come with the CUDA toolkit, and as the packages nvidia-cuda-nvdisasm and nvidia-cuda-cuobjdump)"
    )]
    NoTool,
    /// The tool failed.
    #[error("{}: {words}", program.display())]
    Refused {
        /// Which one.
        program: PathBuf,
        /// What it said.
        words: String,
    },
    /// The code could not be handed over.
    #[error(transparent)]
    Io(#[from] std::io::Error),
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

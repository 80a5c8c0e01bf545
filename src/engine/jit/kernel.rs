//! A kernel of a family, by name: what a program asks of the facade.
//!
//! Invariant: it is a request like any other; what is not legal is an error before anything
//! is rendered.

use std::fmt::Display;
use std::sync::Arc;

use super::{Error, Jit, Prepared};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;

/// A variant of a family that is being put together; made by [`Jit::kernel`].
#[must_use]
pub struct KernelRequest<'j> {
    jit: &'j Jit,
    family: String,
    constants: Vec<(String, String)>,
}

impl Jit {
    /// A kernel of a family, all of whose constants have their defaults unless
    /// [`set`](KernelRequest::set) says otherwise. Settings of constants (`JITC_WO_SPLIT`,
    /// `[constants]`) are the command line's and change nothing here.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = jitc::Config::builder().isolated().load()?;
    /// let jit = jitc::Jit::new(config)?;
    /// let spec = jit.kernel("axpy").set("unroll", 4).spec("sm_90a".parse()?)?;
    /// assert_eq!(spec.constants()["unroll"].to_string(), "4");
    ///
    /// let wrong = jit.kernel("axpy").set("unroll", 3).spec("sm_90a".parse()?);
    /// assert!(wrong.unwrap_err().to_string().contains("expected one of"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn kernel(&self, family: impl Into<String>) -> KernelRequest<'_> {
        KernelRequest {
            jit: self,
            family: family.into(),
            constants: Vec::new(),
        }
    }
}

impl KernelRequest<'_> {
    /// A value for a constant: a number, a switch or a text, as it is written everywhere
    /// (`8`, `true`, `fast`, `[64,128]`). Of two for one constant the later one counts.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = jitc::Config::builder().isolated().templates("examples/hello").load()?;
    /// # let jit = jitc::Jit::new(config)?;
    /// let spec = jit.kernel("hello").set("factor", 0.1).set("block", 512).spec("sm_80".parse()?)?;
    /// assert_eq!(spec.variant(), "factor=0.1 block=512");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set(mut self, constant: impl Into<String>, value: impl Display) -> Self {
        self.constants.push((constant.into(), value.to_string()));
        self
    }

    /// The request for an arch.
    ///
    /// # Errors
    /// A family or a constant that there is not, a value that is not legal, or values that
    /// do not go together, in one line.
    pub fn spec(self, arch: Arch) -> Result<KernelSpec, Error> {
        let named = self.jit.registry().named(&self.family)?;
        let set = self.constants.iter().map(|(name, value)| (&**name, &**value));
        Ok(KernelSpec::new(named, set, arch)?)
    }

    /// Finds or makes the artifact for an arch; needs no GPU.
    ///
    /// # Errors
    /// As those of [`spec`](Self::spec) and [`Jit::prepare`].
    pub fn prepare(self, arch: Arch) -> Result<Prepared, Error> {
        let jit = self.jit;
        jit.prepare(&self.spec(arch)?)
    }

    /// Finds or makes the artifact for a GPU, and loads it. Asked again, it returns the same
    /// kernel.
    ///
    /// # Errors
    /// As those of [`spec`](Self::spec) and [`Jit::load`].
    pub fn load(self, context: &Context) -> Result<Arc<LoadedKernel>, Error> {
        let jit = self.jit;
        jit.load(&self.spec(context.device().arch())?, context)
    }
}

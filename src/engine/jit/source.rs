//! A kernel from a string: no TOML, no folder.
//!
//! Invariant: it is a request like any other: keyed by all that was given, cached, and
//! loaded once a context.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use super::{Error, Jit, Prepared};
use crate::engine::request::header_set::{HeaderSet, SetUse, name_in_full};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Access, Family, Given, TemplateError, declared};
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;

/// A kernel that is being put together from texts; made by [`Jit::source`].
#[must_use]
pub struct SourceKernel<'j> {
    jit: &'j Jit,
    name: String,
    text: String,
    headers: BTreeMap<String, String>,
    sets: Vec<SetUse>,
    used: Vec<String>,
    options: Vec<String>,
    entries: Vec<(String, Option<String>)>,
    sizes: Vec<String>,
    parameters: Vec<(String, String, Access)>,
    grid: Vec<String>,
    block: [u32; 3],
    shared_mem_bytes: u32,
    cooperative: bool,
}

impl Jit {
    /// A kernel from the text of its source, which is compiled as it is.
    ///
    /// ```no_run
    /// # use jitc::engine::config::{Config, Environment, Flags};
    /// # use jitc::engine::jit::Jit;
    /// # use jitc::engine::run::device::Context;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = Config::load(Flags::default(), Environment::default())?;
    /// # let context = Context::new(0)?;
    /// let jit = Jit::new(config)?;
    /// let kernel = jit
    ///     .source("extern \"C\" __global__ void scale(float* x) { x[threadIdx.x] *= FACTOR; }")
    ///     .define("FACTOR", "2.0f")
    ///     .entry("scale")
    ///     .load(&context)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn source(&self, text: impl Into<String>) -> SourceKernel<'_> {
        SourceKernel {
            jit: self,
            name: "source".into(),
            text: text.into(),
            headers: BTreeMap::new(),
            sets: Vec::new(),
            used: Vec::new(),
            options: Vec::new(),
            entries: Vec::new(),
            sizes: Vec::new(),
            parameters: Vec::new(),
            grid: vec!["1".into()],
            block: [256, 1, 1],
            shared_mem_bytes: 0,
            cooperative: false,
        }
    }
}

impl SourceKernel<'_> {
    /// What messages, the key and `jitc cache ls` call it; `source` unless it is given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A header, by the name under which the source includes it. All of them reach the
    /// compiler, so that includes may be computed; a quoted one means the header beside the
    /// including one first.
    pub fn header(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.headers.insert(name.into(), text.into());
        self
    }

    /// A header set of jitc's own: `cuda`, `curand` or `std`.
    pub fn use_set(mut self, name: impl Into<String>) -> Self {
        self.used.push(name.into());
        self
    }

    /// A header set of one's own, read by [`HeaderSet::read`] or made by
    /// [`HeaderSet::from_texts`]. It stands before those of jitc.
    pub fn header_set(mut self, name: &str, set: Arc<HeaderSet>) -> Self {
        self.sets.push(SetUse::of(name, set));
        self
    }

    /// A macro: what stands for it is written as in C++, `2.0f` say.
    pub fn define(mut self, name: &str, value: impl Display) -> Self {
        self.options.push(format!("-D{name}={value}"));
        self
    }

    /// A compiler option, of those that a family may have.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// An `extern "C"` kernel of the source. Others that it defines are compiled, and not
    /// loaded.
    pub fn entry(mut self, name: impl Into<String>) -> Self {
        self.entries.push((name.into(), None));
        self
    }

    /// A kernel that C++ names, `ns::scale<float, 8>` say, and the name that it is asked
    /// for by.
    pub fn expression(mut self, name: impl Into<String>, expression: impl Into<String>) -> Self {
        self.entries.push((name.into(), Some(expression.into())));
        self
    }

    /// A launch size: a number that a launch gives, and that shapes and the grid may name.
    pub fn size(mut self, name: impl Into<String>) -> Self {
        self.sizes.push(name.into());
        self
    }

    /// The next parameter of every entry point: `f32[n, 4]`, `f32[n], aligned to 4 or null`,
    /// `u32`, `u32 = n` for a launch size, `struct of 24 bytes, aligned to 8` or `tensor_map`.
    /// `access`: what the kernels do with a pointer's memory. With parameters the kernel can
    /// be bound, and they are checked as those of a family are.
    pub fn parameter(mut self, name: impl Into<String>, written: impl Into<String>, access: Access) -> Self {
        self.parameters.push((name.into(), written.into(), access));
        self
    }

    /// Blocks in x, y and z, numbers or expressions over launch sizes, `ceil_div(a=n, b=256)`
    /// say; one unless it is given. Who launches by a grid of his own needs none.
    pub fn grid(mut self, axes: impl IntoIterator<Item = impl Display>) -> Self {
        self.grid = axes.into_iter().map(|axis| axis.to_string()).collect();
        self
    }

    /// Threads a block, in x alone; 256 unless it is given.
    pub fn block(self, threads: u32) -> Self {
        self.block_of([threads, 1, 1])
    }

    /// Threads a block in x, y and z.
    pub fn block_of(mut self, threads: [u32; 3]) -> Self {
        self.block = threads;
        self
    }

    /// Dynamic shared memory, bytes a block; none unless it is given.
    pub fn shared_mem_bytes(mut self, bytes: u32) -> Self {
        self.shared_mem_bytes = bytes;
        self
    }

    /// Launches are cooperative.
    pub fn cooperative(mut self) -> Self {
        self.cooperative = true;
        self
    }

    /// The request for an arch.
    ///
    /// # Errors
    /// A name, entry point or header set that cannot be, in one line.
    pub fn spec(self, arch: Arch) -> Result<KernelSpec, Error> {
        let family = self.family()?;
        Ok(KernelSpec::new(&Arc::new(family), [], arch)?)
    }

    /// Finds or makes the artifact for an arch.
    ///
    /// # Errors
    /// As those of [`spec`](Self::spec) and [`Jit::prepare`].
    pub fn prepare(self, arch: Arch) -> Result<Prepared, Error> {
        let jit = self.jit;
        jit.prepare(&self.spec(arch)?)
    }

    /// Finds or makes the artifact for a GPU, and loads it. Asked again with the same
    /// texts, it returns the same kernel.
    ///
    /// # Errors
    /// As those of [`spec`](Self::spec) and [`Jit::load`].
    pub fn load(self, context: &Context) -> Result<Arc<LoadedKernel>, Error> {
        let jit = self.jit;
        jit.load(&self.spec(context.device().arch())?, context)
    }

    fn family(self) -> Result<Family, TemplateError> {
        let declarations = self.declarations()?;
        let known = |name: &str| self.headers.contains_key(name);
        let headers = self.headers.iter().map(|(name, text)| {
            let text = name_in_full(name, text, known);
            (name.clone(), Arc::from(text))
        });
        let given = Given::new(headers.collect(), self.sets, self.options);
        Family::of_source(&self.name, &declarations, self.text, given)
    }

    /// What a family's TOML would say of it.
    fn declarations(&self) -> Result<String, TemplateError> {
        let refused = |reason: String| TemplateError::Declaration {
            file: self.name.clone(),
            reason,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_name) {
            return Err(refused(
                "is not a name of a source: expected letters, digits, `_` and `-`".into(),
            ));
        }
        if self.entries.is_empty() {
            return Err(refused(
                "no entry point: expected `.entry(..)` or `.expression(..)`".into(),
            ));
        }
        let number = |n: u32| toml::Value::Integer(n.into());
        let block = toml::Value::Array(self.block.map(number).to_vec());
        // A number stays one: what is written is a name or an expression.
        let axis = |text: &String| text.parse().map_or_else(|_| text.as_str().into(), number);
        let grid = toml::Value::Array(self.grid.iter().map(axis).collect());
        let entries = self.entries.iter().map(|(name, expression)| {
            let mut entry = toml::Table::new();
            entry.insert("name".into(), name.as_str().into());
            if let Some(cxx) = expression {
                // It is C++ whatever is in it.
                entry.insert(
                    "expression".into(),
                    format!("{{% raw %}}{cxx}{{% endraw %}}").into(),
                );
            }
            entry.insert("grid".into(), grid.clone());
            entry.insert("block".into(), block.clone());
            entry.insert("shared_mem_bytes".into(), number(self.shared_mem_bytes));
            entry.insert("cooperative".into(), self.cooperative.into());
            toml::Value::Table(entry)
        });
        let entries: Vec<toml::Value> = entries.collect();
        let used = self.used.iter().map(|name| name.as_str().into());
        let used: Vec<toml::Value> = used.collect();
        let mut declarations = toml::Table::new();
        declarations.insert("summary".into(), "a source of a program".into());
        declarations.insert("other_kernels".into(), true.into());
        declarations.insert(
            "headers".into(),
            toml::Table::from_iter([("use".to_owned(), used.into())]).into(),
        );
        declarations.insert("constants".into(), toml::Table::new().into());
        declarations.insert("entries".into(), entries.into());
        if !self.sizes.is_empty() {
            declarations.insert("sizes".into(), self.sizes.clone().into());
        }
        if !self.parameters.is_empty() {
            let parameters = self.parameters.iter().map(|(name, written, access)| {
                let table = declared(name, written, *access);
                table.map_err(|reason| refused(format!("parameter `{name}`: {reason}")))
            });
            let parameters: Vec<toml::Table> = parameters.collect::<Result<_, _>>()?;
            declarations.insert("parameters".into(), parameters.into());
        }
        toml::to_string(&declarations).map_err(|e| refused(e.to_string()))
    }
}

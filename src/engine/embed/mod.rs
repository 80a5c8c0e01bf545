//! For build scripts: families and machine code that a program carries in itself.
//!
//! Invariant: what is written lies in the folder that cargo gives the build script, and
//! nothing is fetched unless the build script says that it may be.

mod error;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

pub use error::EmbedError;

use crate::engine::atomic_file::write_atomically;
use crate::engine::build::compile::WorkerChoice;
use crate::engine::cache::Provenance;
use crate::engine::cache::bundle::{BundleError, export_noting};
use crate::engine::config::settings::SETTINGS;
use crate::engine::config::{ArchMatch, Config, Environment, Flags, ToolchainChoice};
use crate::engine::jit::tuned::note_of;
use crate::engine::jit::{Jit, Jobs, Progress};
use crate::engine::regular_file::{MAX_RECORDS, read_text};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Registry, rust_of, texts_of};
use crate::engine::run::tuned::Record;

/// The texts of the families of a folder, from the file that
/// [`embed_templates`](embed_templates) or
/// [`Kernels::embed`](Kernels::embed) wrote for it, as
/// [`Templates`](crate::engine::request::template::Templates).
#[macro_export]
macro_rules! include_templates {
    ($folder:literal) => {
        $crate::engine::request::template::Templates::new(
            $folder,
            include!(concat!(env!("OUT_DIR"), "/jitc/", $folder, "/templates.rs")),
        )
    };
}

/// The bundle that [`Kernels::embed`](Kernels::embed) wrote for a folder of
/// families, as bytes for [`JitBuilder::embedded`](crate::engine::jit::JitBuilder::embedded).
#[macro_export]
macro_rules! embed {
    ($folder:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/jitc/", $folder, "/kernels.jitc"))
    };
}

/// Where a build reads and writes, and who builds.
#[derive(Debug, Clone)]
pub struct Build {
    /// The package's folder, below which the families lie.
    pub package: PathBuf,
    /// Where it writes: `jitc/FOLDER/` below it.
    pub out: PathBuf,
    /// What the program is built for, and what builds it, where the two differ.
    pub cross: Option<(String, String)>,
    /// Settings are read from it: the compiler's place, say.
    pub env: Environment,
}

impl Build {
    /// The build of the build script that calls it.
    ///
    /// # Errors
    /// [`EmbedError::NoBuildScript`], where cargo does not run it as one.
    pub fn of_cargo() -> Result<Self, EmbedError> {
        let env = Environment::capture();
        let path = |name| {
            env.bytes(name)
                .map(PathBuf::from)
                .ok_or(EmbedError::NoBuildScript(name))
        };
        let text = |name| env.get(name).map(String::from);
        let cross = text("TARGET")
            .zip(text("HOST"))
            .filter(|(target, host)| target != host);
        Ok(Self {
            package: path("CARGO_MANIFEST_DIR")?,
            out: path("OUT_DIR")?,
            cross,
            env,
        })
    }
}

/// Writes the families of a folder of the package, `kernels` say, for
/// `jitc::include_templates!`, and tells cargo when to do it again.
///
/// # Errors
/// A folder that is not there, and a family that is not consistent.
pub fn embed_templates(folder: &str) -> Result<(), EmbedError> {
    let build = Build::of_cargo()?;
    let lines = Kernels::of(folder).write_templates(&build)?.lines;
    tell(&lines)
}

/// The kernels of a folder of families that a program carries, compiled when it is built.
///
/// Without [`variant`](Self::variant) every family of the folder is compiled at its
/// defaults, for those of the archs that it can do with.
#[derive(Debug, Clone)]
#[must_use]
pub struct Kernels {
    folder: String,
    archs: Vec<String>,
    variants: Vec<Variant>,
    tuned: Option<PathBuf>,
    may_fetch: bool,
    worker: WorkerChoice,
}

#[derive(Debug, Clone)]
struct Variant {
    family: String,
    constants: Vec<(String, String)>,
}

/// What was embedded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Embedded {
    /// The number of kernels in the bundle.
    pub kernels: u64,
    /// How many of them were compiled now; the rest were in the build's cache.
    pub compiled: u64,
    /// The bundle's length, bytes.
    pub bytes: u64,
    /// What cargo is told, a line each.
    pub lines: Vec<String>,
}

/// The families that were written, and what cargo is told of them.
struct Written {
    folder: PathBuf,
    out: PathBuf,
    families: Vec<String>,
    lines: Vec<String>,
}

impl Kernels {
    /// Of the families of a folder of the package, `kernels` say.
    pub fn of(folder: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            archs: Vec::new(),
            variants: Vec::new(),
            tuned: None,
            may_fetch: false,
            worker: WorkerChoice::default(),
        }
    }

    /// What is compiled for, such as `["sm_80", "sm_90a"]`: one for each kind of GPU that
    /// the program is to run on.
    pub fn archs<A: Into<String>>(mut self, archs: impl IntoIterator<Item = A>) -> Self {
        self.archs.extend(archs.into_iter().map(Into::into));
        self
    }

    /// A variant of a family: constants by name, as people write them; the rest at their
    /// defaults.
    pub fn variant<'a>(
        mut self,
        family: impl Into<String>,
        constants: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let constants = constants
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.variants.push(Variant {
            family: family.into(),
            constants: constants.collect(),
        });
        self
    }

    /// What was measured of these kernels: a record of `jitc tune`, `tuned.json` of a cache, by
    /// its path below the package. Winners whose kernel is not among the variants are left out.
    pub fn tuned(mut self, file: impl Into<PathBuf>) -> Self {
        self.tuned = Some(file.into());
        self
    }

    /// A compiler or header set that is not here may be fetched. Without this a build asks
    /// no network, and ends with a line that says what is missing.
    pub fn fetch(mut self) -> Self {
        self.may_fetch = true;
        self
    }

    /// Where it compiles; in the program's worker where that is found.
    pub fn worker(mut self, choice: WorkerChoice) -> Self {
        self.worker = choice;
        self
    }

    /// Compiles them, and writes the bundle for `jitc::embed!` and the families
    /// for `jitc::include_templates!`.
    ///
    /// # Errors
    /// The first kernel that cannot be compiled, or what is missing for it, in one line.
    pub fn embed(&self) -> Result<Embedded, EmbedError> {
        let embedded = self.embed_into(&Build::of_cargo()?)?;
        tell(&embedded.lines)?;
        Ok(embedded)
    }

    /// The same for a build that is not cargo's: nothing is said.
    ///
    /// # Errors
    /// As those of [`embed`](Self::embed).
    pub fn embed_into(&self, build: &Build) -> Result<Embedded, EmbedError> {
        let written = self.write_templates(build)?;
        let jit = self.jit(build, &written)?;
        let specs = self.specs(jit.registry(), &written.families)?;
        let tuned = self.record(build, &jit)?;
        let asked: Vec<&KernelSpec> = specs.iter().collect();
        let (mut keys, mut compiled) = (vec![None; specs.len()], 0);
        let mut failed: Option<(usize, crate::engine::jit::Error)> = None;
        jit.prepare_all(&asked, Jobs::Auto, &mut |progress| {
            let Progress::Done { index, result } = progress else {
                return;
            };
            match *result {
                Ok(prepared) => {
                    let there = matches!(prepared.fetched.provenance, Provenance::Hit(_));
                    compiled += u64::from(!there);
                    keys[index] = Some(*prepared.request.key());
                }
                Err(error) if failed.as_ref().is_none_or(|(first, _)| index < *first) => {
                    failed = Some((index, error));
                }
                Err(_) => {}
            }
        });
        if let Some((_, error)) = failed {
            return Err(EmbedError::of_compile(error, build));
        }
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        let path = written.out.join("kernels.jitc");
        let notes = note_of(tuned, &keys);
        let exported = write_atomically(&path, 0o644, |mut file| -> Result<_, BundleError> {
            export_noting(|key| jit.cache().whole(key), &keys, &notes, &mut file)
        })?;
        if let Some(key) = exported.skipped.first() {
            return Err(EmbedError::NotKept {
                key: key.short(),
                out: written.out,
            });
        }
        let mut lines = written.lines;
        // Not an instruction: cargo shows it where a build is told to say much.
        lines.push(format!(
            "{}: {} kernels for {} by {}{}",
            self.folder,
            exported.entries,
            self.archs.join(", "),
            jit.identity()?,
            build.cross.as_ref().map_or(String::new(), |(target, host)| format!(
                " of this machine ({host}), for a program of {target}, which requests them by that compiler"
            ))
        ));
        Ok(Embedded {
            kernels: exported.entries,
            compiled,
            bytes: exported.bytes,
            lines,
        })
    }

    /// What was measured.
    fn record(&self, build: &Build, jit: &Jit) -> Result<Record, EmbedError> {
        let Some(file) = &self.tuned else {
            return Ok(Record::default());
        };
        let path = build.package.join(file);
        let record = Record::parse(&read_text(&path, MAX_RECORDS)?, jit.registry());
        record.map_err(|refused| EmbedError::Tuned {
            file: path,
            reason: refused.into(),
        })
    }

    /// Checks the families and writes their texts.
    fn write_templates(&self, build: &Build) -> Result<Written, EmbedError> {
        let refused = |reason| EmbedError::Folder {
            folder: self.folder.clone(),
            reason,
        };
        let path = Path::new(&self.folder);
        let plain = |part| matches!(part, Component::Normal(_));
        // The macros put the same words into a path.
        if self.folder.is_empty() || !path.components().all(plain) {
            return Err(refused("expected a folder below the package, such as `kernels`"));
        }
        let folder = build.package.join(path);
        if !folder.is_dir() {
            return Err(refused("there is no such folder in the package"));
        }
        let (texts, families) = texts_of(&folder)?;
        let out = build.out.join("jitc").join(path);
        fs_err::create_dir_all(&out)?;
        write_atomically(&out.join("templates.rs"), 0o644, |file| {
            file.write_all(rust_of(&texts).as_bytes())
        })?;
        let tuned = self.tuned.iter().map(|file| build.package.join(file));
        let watched = std::iter::once(folder.clone()).chain(tuned);
        let lines = watched.map(|path| format!("cargo:rerun-if-changed={}", path.display()));
        Ok(Written {
            folder,
            out,
            families,
            lines: lines.chain(variables()).collect(),
        })
    }

    /// A facade over the folder, whose cache is the build's own.
    fn jit(&self, build: &Build, written: &Written) -> Result<Jit, EmbedError> {
        let flags = Flags {
            templates: Some(written.folder.clone()),
            cache_dir: Some(build.out.join("jitc-cache")),
            offline: !self.may_fetch,
            ..Flags::default()
        };
        let config = Config::load(flags, build.env.clone()).map_err(crate::engine::jit::Error::from)?;
        Ok(Jit::builder(config)
            .toolchain(ToolchainChoice::Found)
            .arch_match(ArchMatch::Exact)
            .worker(self.worker.clone())
            .build()?)
    }

    /// Every variant for every arch, each once.
    fn specs(&self, registry: &Registry, families: &[String]) -> Result<Vec<KernelSpec>, EmbedError> {
        let archs: Vec<Arch> = (self.archs.iter())
            .map(|arch| arch.parse().map_err(EmbedError::Arch))
            .collect::<Result<_, _>>()?;
        if archs.is_empty() {
            return Err(EmbedError::NoArch);
        }
        let (mut specs, mut seen) = (Vec::new(), BTreeSet::new());
        let mut add = |name: &str, constants: &[(String, String)], arch| -> Result<(), EmbedError> {
            let family = registry.named(name).map_err(crate::engine::jit::Error::from)?;
            let set = constants
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            let spec = KernelSpec::new(family, set, arch).map_err(crate::engine::jit::Error::from)?;
            if seen.insert((name.to_owned(), spec.variant(), arch)) {
                specs.push(spec);
            }
            Ok(())
        };
        for variant in &self.variants {
            for arch in &archs {
                add(&variant.family, &variant.constants, *arch)?;
            }
        }
        if !self.variants.is_empty() {
            return Ok(specs);
        }
        for name in families {
            let family = registry.get(name).map_err(crate::engine::jit::Error::from)?;
            let does: Vec<Arch> = archs.iter().copied().filter(|arch| family.does(*arch)).collect();
            // One that can do with none of them says so.
            for arch in if does.is_empty() { &archs[..1] } else { &does } {
                add(name, &[], *arch)?;
            }
        }
        Ok(specs)
    }
}

/// The settings that a build depends on.
fn variables() -> impl Iterator<Item = String> {
    let of_settings = SETTINGS.iter().filter(|setting| setting.variable);
    let names = of_settings.map(crate::engine::config::settings::KnownSetting::variable_name);
    names.map(|name| format!("cargo:rerun-if-env-changed={name}"))
}

fn tell(lines: &[String]) -> Result<(), EmbedError> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

//! What is to be warmed: from a list of specs, a matrix or a trace; which part of it is this
//! machine's; and what a load would not find of it.
//!
//! Invariant: shards of one plan are disjoint and together complete, whatever the order in
//! which it was written: they are dealt out in the order of keys.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::{Error, Jit, TraceLine, read_trace};
use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Judged, passed_over};
use crate::engine::config::Source;
use crate::engine::request::matrix::{Expansion, Matrix};
use crate::engine::request::select::SelectError;
use crate::engine::request::spec::{KernelSpec, count_variants};
use crate::engine::request::target::Arch;

/// A variant to warm.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Planned {
    /// What is requested.
    pub spec: KernelSpec,
    /// What the compiler would be given, and its key.
    pub request: CompileRequest,
}

/// Variants to warm, each key once.
#[derive(Debug, Clone)]
pub struct Plan {
    requests: Vec<Planned>,
}

/// A variant that a load would not find.
#[derive(Debug)]
#[non_exhaustive]
pub struct Gap<'p> {
    /// What is requested.
    pub spec: &'p KernelSpec,
    /// Its request.
    pub request: CompileRequest,
    /// `missing`, `bad` or `refused`.
    pub word: &'static str,
    /// Why it is bad or refused.
    pub reason: Option<String>,
}

impl Plan {
    /// All of these specs, those of one key once.
    ///
    /// # Errors
    /// A template cannot be rendered, or the compiler's identity not be worked out.
    pub fn of(jit: &Jit, specs: Vec<KernelSpec>) -> Result<Self, Error> {
        let mut seen = BTreeSet::new();
        let mut requests = Vec::new();
        for spec in specs {
            let (request, _) = jit.describe(&spec)?;
            if seen.insert(*request.key()) {
                requests.push(Planned { spec, request });
            }
        }
        Ok(Self { requests })
    }

    /// Part `part` of `parts`, counted from 1.
    #[must_use]
    pub fn shard(mut self, part: usize, parts: usize) -> Self {
        let keys: BTreeSet<CacheKey> = self.requests.iter().map(|r| *r.request.key()).collect();
        let dealt = keys.into_iter().skip(part.saturating_sub(1));
        let ours: BTreeSet<CacheKey> = dealt.step_by(parts.max(1)).collect();
        self.requests.retain(|r| ours.contains(r.request.key()));
        self
    }

    /// The variants.
    #[must_use]
    pub fn requests(&self) -> &[Planned] {
        &self.requests
    }

    /// Tells of each variant that a load would not find, and answers with the sentences of
    /// tiers that were passed over on the way. Nothing is compiled or written.
    ///
    /// # Errors
    /// A template cannot be rendered, or the compiler's identity not be worked out.
    pub fn gaps(&self, jit: &Jit, gap: &mut dyn FnMut(Gap)) -> Result<BTreeSet<String>, Error> {
        let mut why_passed_over = BTreeSet::new();
        for Planned { spec, .. } in &self.requests {
            let (request, judged) = jit.judge(spec)?;
            let (word, reason) = match judged {
                Judged::Hit { .. } => continue,
                _ if jit.stand_in(spec)?.is_some() => continue,
                Judged::Bad { tier, fault } => ("bad", Some(format!("{tier}: {fault}"))),
                Judged::Refused(drift) => ("refused", Some(format!("as a receipt is required: {drift}"))),
                _ => ("missing", None),
            };
            why_passed_over.extend(passed_over(jit.cache().tiers(), request.key()));
            gap(Gap {
                spec,
                request,
                word,
                reason,
            });
        }
        Ok(why_passed_over)
    }
}

impl Jit {
    /// What a matrix lists; `archs` are for where it names none.
    ///
    /// # Errors
    /// The file is no matrix, or lists what is not legal.
    pub fn specs_of_matrix(&self, path: &Path, archs: Vec<Arch>) -> Result<Expansion, Error> {
        let expanded = Matrix::read(path).and_then(|m| m.expand(self.registry(), self.config(), || archs));
        expanded.map_err(|source| Error::Matrix {
            path: path.to_path_buf(),
            source,
        })
    }

    /// What each line of a trace requested, each once: it has every constant and the arch.
    ///
    /// # Errors
    /// The file is no trace, or a line of it is not legal.
    pub fn specs_of_trace(&self, path: &Path) -> Result<Vec<KernelSpec>, Error> {
        let spec = |line: &TraceLine| -> Result<KernelSpec, SelectError> {
            let family = self.registry().named(&line.family)?;
            let texts = line.texts();
            let set = texts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Ok(KernelSpec::written(
                &family,
                set,
                line.arch,
                &Source::Line(line.line),
            )?)
        };
        let mut specs = Vec::new();
        // Every process of a fleet records what it compiled.
        let mut seen = HashSet::new();
        for line in read_trace(path).map_err(Error::Trace)? {
            let spec = spec(&line).map_err(|source| Error::TraceLine {
                path: path.to_path_buf(),
                line: line.line,
                source: Box::new(source),
            })?;
            if seen.insert(spec.id()) {
                count_variants("the trace", [1], specs.len())?;
                specs.push(spec);
            }
        }
        Ok(specs)
    }
}

/// A line an arch whose blocks have less shared memory than some variants take: these
/// compile, and a GPU refuses them when they are loaded.
#[must_use]
pub fn too_large(specs: &[&KernelSpec]) -> Vec<String> {
    let mut found: BTreeMap<(&str, Arch), (usize, u32)> = BTreeMap::new();
    for spec in specs {
        let bytes = spec.shared_mem_bytes();
        if spec
            .arch()
            .shared_mem_per_block()
            .is_some_and(|room| bytes > room)
        {
            let (count, most) = found.entry((&spec.family().name, spec.arch())).or_default();
            *count += 1;
            *most = bytes.max(*most);
        }
    }
    let lines = found.into_iter().map(|((family, arch), (count, most))| {
        format!(
            "note: {family}: {count} of these take up to {most} bytes of shared memory a block, and {arch} has {}: \
             no such GPU will load them; `jitc families {family}` lists presets that take less",
            arch.shared_mem_per_block().unwrap_or(0)
        )
    });
    lines.collect()
}

//! What a failed compile leaves: an error in the terms of the family's files.

use std::path::PathBuf;

use super::{Error, Jit};
use crate::engine::build::compile::{CompileError, hints, in_files};
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::Store;
use crate::engine::request::spec::KernelSpec;

/// NVRTC's words for an arch that it does not know.
const ARCH_REFUSED: &str = "invalid value for --gpu-architecture";

impl Jit {
    /// Names the files as a person finds them, adds what to do about the first mistakes,
    /// and keeps the source and the log.
    pub(super) fn compile_error(
        &self,
        source: CompileError,
        spec: &KernelSpec,
        request: &CompileRequest,
    ) -> Error {
        if source.log().is_some_and(|log| log.contains(ARCH_REFUSED)) {
            return Error::UnknownArch {
                arch: spec.arch(),
                nvrtc: request.toolchain().version.clone(),
            };
        }
        // The compiler knows names only: a path would be in the key.
        let place = |name: &str| {
            if spec.family().given().is_some() {
                // No file has it, whatever others are called.
                return None;
            }
            let place = self.registry.place_of(name);
            self.registry.has_file(name).then(|| place.display().to_string())
        };
        let source_name = spec.family().source_name();
        let beside = |header: &str| {
            let template = self.registry.place_of(&source_name);
            let path = template.parent()?.join(header);
            path.is_file().then_some(path)
        };
        let hints = source.log().map_or_else(Vec::new, |log| {
            hints(log, &spec.family().header_sets, &beside, &place)
        });
        let source = match source {
            CompileError::Refused { first, log } => CompileError::Refused {
                first: in_files(&first, &place),
                log: in_files(&log, &place),
            },
            other => other,
        };
        // There is nothing wrong with a source that nobody looked at.
        let looked_at = !matches!(source, CompileError::Canceled | CompileError::NoWorker(_));
        let kept = looked_at.then(|| self.keep_failure(&source, request)).flatten();
        Error::Compile {
            variant: format!("{} {}", spec.family().name, spec.variant()).into(),
            arch: spec.arch(),
            kept: kept.map_or_else(Box::default, |path| {
                format!("; source and log: {}", path.display()).into()
            }),
            hints: hints.into(),
            source,
        }
    }

    /// Where they were kept; nowhere without a cache that can be written to.
    fn keep_failure(&self, source: &CompileError, request: &CompileRequest) -> Option<PathBuf> {
        let trust = self.config.cache_trust().ok()?;
        let store = Store::new(self.config.cache_dir()?).with_trust(trust);
        let name = format!("{}-{}", request.family(), request.key().short());
        let log = source.log().map_or_else(|| source.to_string(), str::to_owned);
        match store.keep_failure(&name, request.source(), &log) {
            Ok(path) => Some(path),
            Err(reason) => {
                tracing::debug!(%reason, "a failed source is not kept");
                None
            }
        }
    }
}

//! A variant once more under ncu: the command line that asks for it, and the launch that
//! is counted.

use super::super::config::{WeightLayout, WoFormat};
use super::buffers::Buffers;
use super::files::Case;
use super::session::WoSession;
use crate::engine::config::Config;
use crate::measure::MeasureError;
use crate::measure::ncu::{self, Counters, NcuError};
use crate::measure::tune::Choice;

/// Runs this program under ncu for one case.
pub(super) fn count(case: &Case, choice: &Choice, config: &Config) -> Result<Counters, NcuError> {
    let shape = &case.shape;
    let mut words: Vec<String> = ["bench", "wo_gemv", "--under-ncu", "--quiet"]
        .map(str::to_owned)
        .to_vec();
    let mut flag = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    flag("wo-split", shape.wo_split.to_string());
    flag("accumulate", case.accumulate.to_string());
    flag("geometry", case.geometry.to_string());
    flag("tokens", case.num_tokens.to_string());
    flag("global-scale", case.global_scale.to_string());
    flag("seed", case.seed.to_string());
    flag("set", format!("hidden={}", shape.hidden));
    flag("set", format!("num_q_heads={}", case.heads.0));
    flag("set", format!("head_dim={}", case.heads.1));
    flag("set", format!("num_kv_heads={}", shape.num_kv_heads));
    if case.packed {
        flag("set", format!("weight_layout={}", WeightLayout::Packed.name()));
    }
    if case.format == WoFormat::Fp8 {
        flag("set", format!("wo_format={}", case.format.name()));
        flag("set", format!("row_scales={}", case.row_scales));
    }
    for (name, value) in &choice.geometry {
        flag("set", format!("{name}={value}"));
    }
    let folders = [
        ("cache-dir", config.cache_dir()),
        ("templates", config.templates()),
    ];
    for (name, path) in folders {
        if let Some(path) = path {
            flag(name, path.to_string_lossy().into_owned());
        }
    }
    ncu::count("wo_gemv", &words, shape.hidden * shape.k)
}

/// One cold launch of each variant, for ncu to count.
pub(super) fn child(run: &WoSession<'_>) -> Result<(), MeasureError> {
    let num_tokens = run.request.tokens.iter().copied().max().unwrap_or(1);
    for variant in &run.request.variants {
        let shape = run.request.wo_shape(variant.wo_split);
        let gs = run.request.global_scales.first().copied().unwrap_or(1.0);
        let inputs = run.request.random(&shape, num_tokens, gs, run.session.seed);
        let mut buffers = Buffers::new(
            &run.session.context,
            &shape,
            &inputs,
            run.another(&shape),
            run.layout(),
            shape.num_slots(),
        )?;
        let choice = run.choose(variant, num_tokens);
        let kernel = run
            .session
            .jit
            .load(&run.spec(variant, &choice)?, &run.session.context)?;
        // The sets after the first were uploaded later: nothing of the first is in L2.
        let bound = buffers.bind(&kernel)?;
        buffers.run(&bound, &shape, u32::try_from(num_tokens).unwrap_or(1))?;
    }
    Ok(())
}

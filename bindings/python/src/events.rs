//! Events and counters of the cache, for Python.

use jitc::engine::build::key::CacheKey;
use jitc::engine::cache::Event as Told;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// One thing that happened.
#[pyclass(frozen, get_all, module = "jitc")]
pub(crate) struct Event {
    /// `lookup`, `memory_hit`, `hit`, `miss`, `building`, `built`, `published`,
    /// `not_published`, `healed`, `tier_unavailable`, `late_compile`, `refused`,
    /// `lock_timed_out`, `pruned`; of stores `asked`, `promoted`, `sent`, `not_sent`,
    /// `store_left_alone`, `store_asked_again`.
    kind: &'static str,
    /// The key of the request, in hex.
    key: Option<String>,
    /// The tier, by name.
    tier: Option<String>,
    /// Why, in one line; of `asked` how it answered.
    reason: Option<String>,
    /// How long it took, seconds.
    seconds: Option<f64>,
    /// Time inside the compiler, seconds.
    compile_seconds: Option<f64>,
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        let key = self.key.as_deref().unwrap_or("");
        format!("<jitc.Event {} {}>", self.kind, key.get(..12).unwrap_or(key))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a compile are far below 2^52"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

impl Event {
    fn bare(kind: &'static str) -> Self {
        Self {
            kind,
            key: None,
            tier: None,
            reason: None,
            seconds: None,
            compile_seconds: None,
        }
    }

    fn keyed(kind: &'static str, key: &CacheKey) -> Self {
        Self {
            key: Some(key.to_string()),
            ..Self::bare(kind)
        }
    }

    pub(crate) fn of(event: &Told) -> Self {
        match event {
            Told::Lookup { key } => Self::keyed("lookup", key),
            Told::MemoryHit { key } => Self::keyed("memory_hit", key),
            Told::Hit { key, tier, elapsed } => Self {
                tier: Some(tier.to_string()),
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("hit", key)
            },
            Told::Miss { key, elapsed } => Self {
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("miss", key)
            },
            Told::Building { key } => Self::keyed("building", key),
            Told::Built {
                key,
                elapsed,
                compile_us,
                ..
            } => Self {
                seconds: Some(elapsed.as_secs_f64()),
                compile_seconds: Some(seconds(*compile_us)),
                ..Self::keyed("built", key)
            },
            Told::Published {
                key, tier, elapsed, ..
            } => Self {
                tier: Some(tier.to_string()),
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("published", key)
            },
            Told::NotPublished { key, reason } => Self {
                reason: Some(reason.clone()),
                ..Self::keyed("not_published", key)
            },
            Told::Healed { key, tier, fault, .. } => Self {
                tier: Some(tier.to_string()),
                reason: Some(fault.to_string()),
                ..Self::keyed("healed", key)
            },
            Told::TierUnavailable { tier, reason } => Self {
                tier: Some(tier.to_string()),
                reason: Some(reason.clone()),
                ..Self::bare("tier_unavailable")
            },
            Told::LateCompile { key, compile_us } => Self {
                compile_seconds: Some(seconds(*compile_us)),
                ..Self::keyed("late_compile", key)
            },
            Told::Refused { key, reason } => Self {
                reason: Some(reason.clone()),
                ..Self::keyed("refused", key)
            },
            Told::LockTimedOut { key, waited } => Self {
                seconds: Some(waited.as_secs_f64()),
                ..Self::keyed("lock_timed_out", key)
            },
            Told::Pruned { entries, .. } => Self {
                reason: Some(format!("{entries} entries")),
                ..Self::bare("pruned")
            },
            of_a_store => Self::of_a_store(of_a_store),
        }
    }

    fn of_a_store(event: &Told) -> Self {
        match event {
            Told::Asked {
                key,
                tier,
                answer,
                elapsed,
                ..
            } => Self {
                tier: Some(tier.to_string()),
                reason: Some(answer.label().to_owned()),
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("asked", key)
            },
            Told::Promoted {
                key, tier, elapsed, ..
            } => Self {
                tier: Some(tier.to_string()),
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("promoted", key)
            },
            Told::Sent {
                key, tier, elapsed, ..
            } => Self {
                tier: Some(tier.to_string()),
                seconds: Some(elapsed.as_secs_f64()),
                ..Self::keyed("sent", key)
            },
            Told::NotSent { key, tier, reason } => Self {
                tier: Some(tier.to_string()),
                reason: Some(reason.clone()),
                ..Self::keyed("not_sent", key)
            },
            Told::StoreLeftAlone { tier, reason } => Self {
                tier: Some(tier.to_string()),
                reason: Some(reason.clone()),
                ..Self::bare("store_left_alone")
            },
            Told::StoreAskedAgain { tier } => Self {
                tier: Some(tier.to_string()),
                ..Self::bare("store_asked_again")
            },
            _ => Self::bare("other"),
        }
    }
}

/// Counters by name.
pub(crate) fn counters(jit: &jitc::engine::jit::Jit) -> Vec<(String, u64)> {
    let all = serde_json::to_value(jit.cache().counters()).unwrap_or_default();
    let all = all.as_object().cloned().unwrap_or_default();
    let number = |value: serde_json::Value| value.as_u64().unwrap_or(0);
    all.into_iter()
        .map(|(name, value)| (name, number(value)))
        .collect()
}

/// Counters as a dict.
pub(crate) fn to_dict(py: Python<'_>, counters: Vec<(String, u64)>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in counters {
        dict.set_item(name, count)?;
    }
    Ok(dict)
}

/// Counters in Prometheus' text format, those of the engine, with `jitc_build_info`.
pub(crate) fn prometheus(jit: &jitc::engine::jit::Jit) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let counters = jit.cache().prometheus();
    format!("# TYPE jitc_build_info gauge\njitc_build_info{{version=\"{version}\"}} 1\n{counters}")
}

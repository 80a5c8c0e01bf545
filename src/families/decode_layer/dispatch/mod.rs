//! Which prepared variant runs a decode step, and why.
//!
//! Invariant: choosing is pure, allocates nothing and takes no lock; a forced
//! cooperative launch that does not fit is refused, never replaced by another
//! path. [`select`] compiles nothing: what was not prepared cannot be chosen.

mod explain;
mod policy;
mod text;

use std::fmt;

use serde::Serialize;

use super::{Launch, LayerConfig, LayerGeometry};
use crate::engine::request::spec::KernelSpec;

pub use explain::{Candidate, Explanation, Missing, Target, explain};
pub use policy::{Layers, Path, Policy};

/// One decode step of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Tokens of the step.
    pub num_tokens: u32,
    /// Index of the layer.
    pub layer: u32,
    /// Whether every sequence of the step decodes.
    pub decode_only: bool,
}

/// How a variant is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One cooperative launch.
    Cooperative,
    /// Ordinary launches.
    Separate,
}

/// A variant that is ready to be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// How it is launched.
    pub kind: Kind,
    /// Tokens that share one pass over its weights.
    pub tokens_per_pass: u32,
    /// Blocks of its grid that do not depend on the tokens.
    pub blocks: u32,
    /// Whether the grid has as many blocks again for every token.
    pub per_token: bool,
    /// Blocks that are resident on the whole GPU at once, by true occupancy.
    pub capacity: u32,
}

impl Variant {
    /// A variant of the decode layer; nothing of another family. Of the
    /// capacity: [`crate::engine::run::load::EntryPoint::capacity`] where the GPU is, else
    /// [`capacity`](crate::engine::run::occupancy::capacity).
    #[must_use]
    pub fn of(spec: &KernelSpec, capacity: u32) -> Option<Self> {
        let config = LayerConfig::try_from(spec).ok()?;
        Some(Self {
            kind: match config.launch {
                Launch::Cooperative => Kind::Cooperative,
                Launch::Separate => Kind::Separate,
            },
            tokens_per_pass: config.tokens_per_pass,
            blocks: config.blocks,
            per_token: config.geometry == LayerGeometry::Original,
            capacity,
        })
    }

    /// Blocks of the grid for `num_tokens` tokens.
    #[must_use]
    pub fn grid_blocks(&self, num_tokens: u32) -> u64 {
        u64::from(self.blocks) * if self.per_token { u64::from(num_tokens) } else { 1 }
    }

    /// Whether it may be launched: waiting blocks have to be resident together.
    #[must_use]
    pub fn fits(&self, num_tokens: u32) -> bool {
        self.kind == Kind::Separate || self.grid_blocks(num_tokens) <= u64::from(self.capacity)
    }
}

/// Why a choice is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Cooperative, and its grid is resident.
    Fits,
    /// Separate launches, because that was asked for.
    Asked,
    /// Separate launches, because no cooperative variant fits: the blocks of the one that
    /// needs fewest, and the capacity.
    OverCapacity {
        /// Blocks.
        blocks: u64,
        /// Resident blocks.
        capacity: u32,
    },
    /// Separate launches, because no cooperative variant was prepared.
    NoneCooperative,
    /// Nothing: a sequence does not decode.
    NotDecoding,
    /// Nothing: the layer does not take part.
    Layer,
    /// Nothing: more tokens than the workspace has rows, or none.
    Tokens {
        /// Tokens that there is room for.
        room: u32,
    },
    /// Nothing: cooperative was forced and does not fit.
    ForcedOverCapacity {
        /// Blocks.
        blocks: u64,
        /// Resident blocks.
        capacity: u32,
    },
    /// Nothing: no variant of the path was prepared.
    NotPrepared,
    /// Nothing: it depends on the capacity of a cooperative variant whose kernel is not
    /// in the cache.
    CapacityUnknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits => f.write_str("its grid is resident at once"),
            Self::Asked => f.write_str("separate launches were requested"),
            Self::OverCapacity { blocks, capacity } => {
                write!(
                    f,
                    "a cooperative grid of {blocks} blocks is over the {capacity} that are resident at once"
                )
            }
            Self::NoneCooperative => f.write_str("no cooperative variant was prepared"),
            Self::NotDecoding => f.write_str("not every sequence of the step decodes"),
            Self::Layer => f.write_str("the layer is not among those that take part"),
            Self::Tokens { room } => {
                write!(f, "a step has 1 to {room} tokens: the workspace has no more room")
            }
            Self::ForcedOverCapacity { blocks, capacity } => write!(
                f,
                "cooperative was forced, and its grid of {blocks} blocks is over the {capacity} that are resident at once"
            ),
            Self::NotPrepared => f.write_str("no variant of that path was prepared"),
            Self::CapacityUnknown => f.write_str(
                "capacity unknown: the kernel of a cooperative variant is not in the cache, and so not its registers",
            ),
        }
    }
}

/// What was chosen: the index of a variant, or nothing; and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// Index into the prepared variants.
    pub variant: Option<usize>,
    /// Why it was chosen.
    pub reason: Reason,
}

impl Choice {
    fn none(reason: Reason) -> Self {
        Self {
            variant: None,
            reason,
        }
    }
}

/// Chooses among prepared variants.
#[must_use]
pub fn select(variants: &[Variant], policy: &Policy, problem: &Problem) -> Choice {
    if !problem.decode_only {
        return Choice::none(Reason::NotDecoding);
    }
    if !policy.layers.allow(problem.layer) {
        return Choice::none(Reason::Layer);
    }
    let num_tokens = problem.num_tokens;
    if num_tokens == 0 || num_tokens > policy.max_tokens {
        return Choice::none(Reason::Tokens {
            room: policy.max_tokens,
        });
    }
    let separate = best(variants, Kind::Separate, num_tokens);
    if policy.path == Path::Separate {
        return Choice {
            variant: separate,
            reason: if separate.is_some() {
                Reason::Asked
            } else {
                Reason::NotPrepared
            },
        };
    }
    if let Some(cooperative) = best(variants, Kind::Cooperative, num_tokens) {
        return Choice {
            variant: Some(cooperative),
            reason: Reason::Fits,
        };
    }
    let smallest = variants
        .iter()
        .filter(|v| v.kind == Kind::Cooperative)
        .map(|v| (v.grid_blocks(num_tokens), v.capacity))
        .min();
    match (policy.path, smallest) {
        (Path::Cooperative, Some((blocks, capacity))) => {
            Choice::none(Reason::ForcedOverCapacity { blocks, capacity })
        }
        (Path::Cooperative, None) => Choice::none(Reason::NotPrepared),
        (_, smallest) if separate.is_some() => Choice {
            variant: separate,
            reason: smallest.map_or(Reason::NoneCooperative, |(blocks, capacity)| {
                Reason::OverCapacity { blocks, capacity }
            }),
        },
        _ => Choice::none(Reason::NotPrepared),
    }
}

/// The variant of a kind that needs fewest passes over the weights, and among
/// those the one for fewest tokens.
fn best(variants: &[Variant], kind: Kind, num_tokens: u32) -> Option<usize> {
    (0..variants.len())
        .filter(|at| variants[*at].kind == kind && variants[*at].fits(num_tokens))
        .min_by_key(|at| {
            (
                num_tokens.div_ceil(variants[*at].tokens_per_pass.max(1)),
                variants[*at].tokens_per_pass,
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Problem = Problem {
        num_tokens: 1,
        layer: 3,
        decode_only: true,
    };

    fn variant(kind: Kind, tokens: u32, per_token: bool, blocks: u32, capacity: u32) -> Variant {
        Variant {
            kind,
            tokens_per_pass: tokens,
            blocks,
            per_token,
            capacity,
        }
    }

    /// nvllm's grid, 64 blocks a token, where 96 are resident; and separate launches.
    fn nvllms() -> [Variant; 2] {
        [
            variant(Kind::Cooperative, 1, true, 64, 96),
            variant(Kind::Separate, 1, true, 64, 96),
        ]
    }

    fn choose(variants: &[Variant], path: Path, num_tokens: u32) -> (Option<usize>, Reason) {
        let policy = Policy {
            path,
            layers: Layers::all(),
            max_tokens: 8,
        };
        let choice = select(variants, &policy, &Problem { num_tokens, ..STEP });
        (choice.variant, choice.reason)
    }

    #[test]
    fn the_selection_table_is_nvllms() {
        let over = |blocks| Reason::OverCapacity { blocks, capacity: 96 };
        assert_eq!(choose(&nvllms(), Path::Auto, 1), (Some(0), Reason::Fits));
        assert_eq!(choose(&nvllms(), Path::Auto, 2), (Some(1), over(128)));
        assert_eq!(choose(&nvllms(), Path::Cooperative, 1), (Some(0), Reason::Fits));
        assert_eq!(choose(&nvllms(), Path::Separate, 1), (Some(1), Reason::Asked));
        assert_eq!(choose(&nvllms(), Path::Separate, 2), (Some(1), Reason::Asked));
    }

    #[test]
    fn forced_cooperative_over_capacity_is_nothing_and_says_by_how_much() {
        let (variant, reason) = choose(&nvllms(), Path::Cooperative, 2);
        assert_eq!(variant, None);
        assert_eq!(
            reason.to_string(),
            "cooperative was forced, and its grid of 128 blocks is over the 96 that are resident at once"
        );
    }

    #[test]
    fn what_was_not_prepared_is_not_chosen() {
        let [cooperative, separate] = nvllms();
        assert_eq!(choose(&[cooperative], Path::Auto, 2), (None, Reason::NotPrepared));
        assert_eq!(
            choose(&[cooperative], Path::Separate, 1),
            (None, Reason::NotPrepared)
        );
        assert_eq!(
            choose(&[separate], Path::Cooperative, 1),
            (None, Reason::NotPrepared)
        );
        assert_eq!(
            choose(&[separate], Path::Auto, 1),
            (Some(0), Reason::NoneCooperative)
        );
        assert_eq!(choose(&[], Path::Auto, 1), (None, Reason::NotPrepared));
    }

    #[test]
    fn an_inactive_step_chooses_nothing() {
        let policy = Policy {
            path: Path::Auto,
            layers: Layers::parse("7, 3").expect("list"),
            max_tokens: 4,
        };
        let reason = |problem| select(&nvllms(), &policy, &problem).reason;
        assert_eq!(reason(STEP), Reason::Fits);
        assert_eq!(reason(Problem { layer: 4, ..STEP }), Reason::Layer);
        let tokens = Reason::Tokens { room: 4 };
        assert_eq!(
            reason(Problem {
                num_tokens: 5,
                ..STEP
            }),
            tokens
        );
        assert_eq!(
            reason(Problem {
                num_tokens: 0,
                ..STEP
            }),
            tokens
        );
        let prefill = Problem {
            decode_only: false,
            ..STEP
        };
        assert_eq!(reason(prefill), Reason::NotDecoding);
    }

    #[test]
    fn the_fewest_passes_win_and_then_the_smallest_variant() {
        let spread: Vec<Variant> = [1, 2, 4]
            .into_iter()
            .map(|tokens| variant(Kind::Cooperative, tokens, false, 132, 132))
            .collect();
        let chosen: Vec<_> = (1..=8)
            .map(|num_tokens| {
                spread[choose(&spread, Path::Auto, num_tokens).0.expect("fits")].tokens_per_pass
            })
            .collect();
        assert_eq!(chosen, [1, 2, 4, 4, 4, 4, 4, 4]);
        assert_eq!(choose(&spread, Path::Auto, 8), (Some(2), Reason::Fits));
    }
}

//! The geometry of a variant: asked for, measured on this GPU, or worked out.
//!
//! Invariant: choosing is pure, never fails and always says which of the three it
//! was; geometry changes times, so a stale record costs microseconds. It never
//! changes bits, but for a decode layer's `wo_split`, which orders the sums of `W_O`.
//! (Tensor cores sum in one order where up to two tokens share a decode and in another
//! where more do: of a launch's geometries, all that are chosen from share one.)

mod space;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::jit::Jit;
use crate::measure::MeasureError;

pub use crate::engine::run::tuned::{Geometry, Gpu, Policy, Problem, Record, Sizes, Winner};
pub use space::{
    Space, combinations, empty_search_space, geometry_text, keep_faster, read_space, set_constants,
};

/// Where a geometry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Somebody set one of its constants.
    Forced,
    /// It was the fastest when `jitc tune` tried this problem on this GPU.
    Tuned,
    /// By rule.
    Heuristic,
}

/// A geometry and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Choice {
    /// Where it comes from.
    pub origin: Origin,
    /// Constants to set; what is absent has its default.
    pub geometry: Geometry,
}

impl Record {
    /// Where what is tuned is kept: beside the entries of this cache.
    ///
    /// # Errors
    /// [`MeasureError::Request`] where there is no cache folder.
    pub fn beside_cache(jit: &Jit) -> Result<PathBuf, MeasureError> {
        let dir = jit.config().cache_dir();
        dir.map(|dir| Self::path(&dir))
            .ok_or_else(|| MeasureError::Request("there is no cache folder to keep the record beside".into()))
    }
}

/// A family's rule: a geometry for a problem on a GPU; empty where it has none.
pub type Rule = fn(&Gpu, &Problem) -> Geometry;

/// Chooses. `forced` is what somebody set; with any of it, nothing else is touched;
/// `rule` is the family's own.
#[must_use]
pub fn choose(record: &Record, gpu: &Gpu, problem: &Problem, forced: &Geometry, rule: Rule) -> Choice {
    let (origin, geometry) = if !forced.is_empty() {
        (Origin::Forced, forced.clone())
    } else if let Some(winner) = record.find(gpu, problem) {
        (Origin::Tuned, winner.geometry.clone())
    } else {
        (Origin::Heuristic, rule(gpu, problem))
    };
    Choice { origin, geometry }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::request::template::Registry;

    pub(crate) fn gpu(sm_count: u32) -> Gpu {
        Gpu {
            name: "NVIDIA H200".into(),
            compute_capability: "9.0".into(),
            sm_count,
            shared_mem_per_block: 232_448,
        }
    }

    pub(crate) fn problem(split: u32, tokens: u32) -> Problem {
        let constants = [
            ("hidden", 5120),
            ("num_q_heads", 24),
            ("head_dim", 256),
            ("num_kv_heads", 4),
            ("wo_split", split),
        ];
        Problem {
            family: "wo_gemv".into(),
            constants: constants
                .iter()
                .map(|(n, v)| ((*n).into(), v.to_string()))
                .collect(),
            tokens,
            sizes: Sizes::new(),
        }
    }

    fn none(_: &Gpu, _: &Problem) -> Geometry {
        Geometry::new()
    }

    fn rows(rows: &str) -> Geometry {
        [("rows_per_cta".to_owned(), rows.to_owned())].into()
    }

    fn winner(geometry: Geometry) -> Winner {
        Winner {
            gpu: gpu(132),
            problem: problem(8, 1),
            geometry,
            median_us: 9.0,
            tried: 12,
            policy: None,
        }
    }

    #[test]
    fn a_forced_geometry_beats_a_tuned_one_and_that_the_rule() {
        let mut record = Record::default();
        let origin = |record: &Record, forced: &Geometry| {
            let choice = choose(record, &gpu(132), &problem(8, 1), forced, none);
            (choice.origin, choice.geometry.get("rows_per_cta").cloned())
        };
        assert_eq!(origin(&record, &Geometry::new()).0, Origin::Heuristic);
        record.put(winner(rows("24")));
        assert_eq!(
            origin(&record, &Geometry::new()),
            (Origin::Tuned, Some("24".into()))
        );
        assert_eq!(origin(&record, &rows("8")), (Origin::Forced, Some("8".into())));
    }

    #[test]
    fn a_winner_holds_for_its_gpu_and_its_problem_alone() {
        let mut record = Record::default();
        record.put(winner(rows("24")));
        let origin = |g: &Gpu, p: &Problem| choose(&record, g, p, &Geometry::new(), none).origin;
        assert_eq!(origin(&gpu(132), &problem(8, 1)), Origin::Tuned);
        assert_eq!(origin(&gpu(66), &problem(8, 1)), Origin::Heuristic);
        assert_eq!(origin(&gpu(132), &problem(4, 1)), Origin::Heuristic);
        assert_eq!(origin(&gpu(132), &problem(8, 2)), Origin::Heuristic);
    }

    #[test]
    fn a_new_winner_replaces_the_old_one() {
        let mut record = Record::default();
        record.put(winner(rows("24")));
        record.put(winner(rows("28")));
        assert_eq!(record.winners().len(), 1);
        let found = record.find(&gpu(132), &problem(8, 1)).expect("winner");
        assert_eq!(found.geometry, rows("28"));
    }

    #[test]
    fn a_record_survives_its_file_and_a_broken_file_is_an_empty_record() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = Record::path(dir.path());
        let registry = Registry::load(None).expect("families");
        assert_eq!(Record::load(&path, &registry), Record::default());
        let mut record = Record::default();
        record.put(winner(rows("24")));
        record.save(&path).expect("saved");
        let read = Record::load(&path, &registry);
        assert!(read.find(&gpu(132), &problem(8, 1)).is_some());
        fs_err::write(&path, "{\"format\": 99, \"winners\": []}").expect("written");
        assert_eq!(Record::load(&path, &registry), Record::default());
        fs_err::write(&path, "half a rec").expect("written");
        assert_eq!(Record::load(&path, &registry), Record::default());
    }
}

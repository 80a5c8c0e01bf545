//! The last race: the fastest candidate and the rules' choice, in turn.
//!
//! Invariant: what is not faster by the margin does not win, whatever was timed before.

/// How often each of the two has its turn.
pub(super) const ROUNDS: usize = 5;

/// Samples of one turn, of so many in all.
pub(super) fn samples_of_a_turn(samples: usize) -> usize {
    samples.div_ceil(ROUNDS).max(3)
}

/// How a race ended: medians, microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finish {
    pub(super) candidate_us: f64,
    pub(super) rule_us: f64,
    pub(super) wins: bool,
}

/// Judges a race: each side's samples of all turns. It wins where its median is less by the
/// margin, and where it was the faster one in most of the turns: one lucky turn wins
/// nothing.
pub(super) fn finish(candidate: &[Vec<f64>], rule: &[Vec<f64>], margin: f64) -> Finish {
    let all = |turns: &[Vec<f64>]| median(&turns.concat());
    let (candidate_us, rule_us) = (all(candidate), all(rule));
    let faster = |(a, b): (&Vec<f64>, &Vec<f64>)| median(a) < median(b);
    let most = candidate.len().min(rule.len());
    let turns = candidate.iter().zip(rule).filter(|pair| faster(*pair)).count();
    let wins = candidate_us <= rule_us * (1.0 - margin) && turns * 2 > most;
    Finish {
        candidate_us,
        rule_us,
        wins,
    }
}

/// NaN of nothing: that wins against nothing.
pub(super) fn median(samples: &[f64]) -> f64 {
    crate::measure::timing::Summary::of(samples).map_or(f64::NAN, |summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(medians: [f64; 5]) -> Vec<Vec<f64>> {
        medians.map(|m| vec![m - 0.1, m, m + 0.1]).to_vec()
    }

    #[test]
    fn what_is_faster_by_less_than_the_margin_does_not_win() {
        let rule = turns([10.0; 5]);
        for (us, margin, wins) in [
            (9.0, 0.02, true),
            (9.9, 0.02, false),
            (9.9, 0.0, true),
            (10.0, 0.0, false),
            (11.0, 0.02, false),
        ] {
            let finish = finish(&turns([us; 5]), &rule, margin);
            assert_eq!(finish.wins, wins, "{us} against 10 by {margin}");
        }
    }

    #[test]
    fn one_lucky_turn_wins_nothing() {
        // The clock fell while the rules' choice had most of its turns.
        let candidate = turns([9.0, 9.0, 9.0, 9.0, 9.0]);
        let rule = turns([8.9, 8.9, 14.0, 14.0, 8.9]);
        assert!(!finish(&candidate, &rule, 0.02).wins);
        assert!(!finish(&[], &[], 0.0).wins, "nothing was timed");
        assert!(!finish(&turns([f64::NAN; 5]), &turns([10.0; 5]), 0.0).wins);
    }

    #[test]
    fn every_sample_is_timed_in_some_turn() {
        assert_eq!(samples_of_a_turn(50), 10);
        assert_eq!(samples_of_a_turn(1), 3);
        assert!(samples_of_a_turn(52) * ROUNDS >= 52);
    }
}

//! A choice as JSON and as the rows of a table.

use serde_json::json;

use super::{Candidate, Explanation, Kind, Policy};
use crate::measure::tune::Origin;

impl Explanation {
    /// The choice, for programs.
    #[must_use]
    pub fn to_json(&self, policy: &Policy) -> serde_json::Value {
        let chosen = self.chosen();
        json!({"event": "choice", "device": self.device.name, "num_tokens": self.problem.num_tokens,
            // Its former name, for one release.
            "nat": self.problem.num_tokens,
            "layer": self.problem.layer, "path": policy.path, "kind": chosen.map(|c| c.variant.kind),
            "family": chosen.map(|c| &c.spec.family().name), "variant": chosen.map(|c| c.spec.variant()),
            "wo_split": chosen.map(|c| c.config.wo_split),
            "origin": chosen.map(|c| c.origin), "cached": chosen.map(|c| c.registers.is_some()),
            "reason": self.choice.reason.to_string()})
    }
}

impl Candidate {
    /// What [`Candidate::row`] gives.
    pub const TITLES: [&str; 8] = [
        "family",
        "variant",
        "wo_split",
        "blocks",
        "resident",
        "registers",
        "shared",
        "fits",
    ];

    /// `8, tuned`.
    #[must_use]
    pub fn split(&self) -> String {
        let origin = match self.origin {
            Origin::Forced => "set",
            Origin::Tuned => "tuned",
            Origin::Heuristic => "by rule",
        };
        format!("{}, {origin}", self.config.wo_split)
    }

    /// A candidate for a step of this many tokens, for programs.
    #[must_use]
    pub fn to_json(&self, num_tokens: u32) -> serde_json::Value {
        json!({"event": "candidate", "family": self.spec.family().name,
            "variant": self.spec.variant(), "origin": self.origin, "blocks": self.variant.grid_blocks(num_tokens),
            "resident": self.resident, "registers": self.registers, "shared_bytes": self.config.shared_bytes,
            "tokens_per_pass": self.variant.tokens_per_pass,
            // Its former name, for one release.
            "tokens": self.variant.tokens_per_pass, "fits": self.fits(num_tokens)})
    }

    /// The same for people.
    #[must_use]
    pub fn row(&self, num_tokens: u32) -> [String; 8] {
        let or_unknown = |number: Option<u32>| number.map_or("unknown".to_owned(), |n| n.to_string());
        let fits = self.fits(num_tokens);
        [
            self.spec.family().name.clone(),
            self.spec.variant(),
            self.split(),
            self.variant.grid_blocks(num_tokens).to_string(),
            match self.variant.kind {
                Kind::Separate => "need not be".to_owned(),
                Kind::Cooperative => or_unknown(self.resident),
            },
            or_unknown(self.registers),
            self.config.shared_bytes.to_string(),
            fits.map_or("unknown", |fits| if fits { "yes" } else { "no" })
                .to_owned(),
        ]
    }

    /// Whether its grid fits the GPU; `None` where its capacity is unknown.
    fn fits(&self, num_tokens: u32) -> Option<bool> {
        let known = self.variant.kind == Kind::Separate || self.resident.is_some();
        known.then(|| self.variant.fits(num_tokens))
    }
}

//! The header sets of NVIDIA's that jitc can fetch, by the SHA-256 of what is in them.
//!
//! Invariant: an identity stands in keys, so it is never changed: other headers are
//! another version. It is known where the headers are not, so keys are worked out and a
//! warmed cache hits without them.

/// A set that is fetched when a compile first needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedSet {
    /// Its name in `[headers] use`.
    pub name: &'static str,
    /// The version of CUDA that it belongs to, or its own.
    pub version: &'static str,
    /// The digest of the set, the same for every kind of machine.
    pub digest: &'static str,
    /// What it has.
    pub summary: &'static str,
}

/// Every one of them.
pub const PINNED_SETS: [PinnedSet; 2] = [
    PinnedSet {
        name: "cuda",
        version: "13.0.88",
        digest: "21171297c7d762294f780b1773b43a5aaf18c7ee865b44bc7a4ffb80a103bcc1",
        summary: "fp16, bf16, fp8, fp6, fp4, cooperative_groups, mma.h, cub, thrust, cuda/, cuda/std, nv/target",
    },
    PinnedSet {
        name: "curand",
        version: "10.4.0.35",
        digest: "a85d21e889ce80f536230915d7c9fbc2f5c2faa23a2bd301eb39ca2474ffac3f",
        summary: "curand_kernel.h and the headers that it includes",
    },
];

impl PinnedSet {
    /// The set of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PINNED_SETS.iter().find(|set| set.name == name)
    }

    /// What keys say of it.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{} {}", self.version, self.digest)
    }
}

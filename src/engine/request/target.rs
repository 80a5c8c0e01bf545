//! What code is made for and by: the arch and the toolchain's identity.
//!
//! Invariant: an [`Arch`] is one that NVRTC's `--gpu-architecture=sm_*` can be
//! given; whether the NVRTC at hand knows it is the compiler's to say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An architecture such as `sm_90a`: number and variant suffix.
///
/// No suffix: code that later minor revisions of the same major version run.
/// `a`: only exactly this compute capability. `f`: this family. `compute_90` is PTX, which
/// the driver of any GPU from 9.0 on compiles when it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arch {
    number: u16,
    suffix: Option<Suffix>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Suffix {
    A,
    F,
    /// No machine code: PTX.
    Ptx,
}

/// The GPUs that are supported, by compute capability, oldest first: A100; A10 and A40; L4
/// and L40S; H100 and H200; B200; B300; RTX PRO 6000; GB10.
pub const SUPPORTED: [(u16, u16); 8] = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)];

/// Every compute capability of a major version that may run code made for another one.
const NUMBERS: [u16; 12] = [80, 86, 87, 88, 89, 90, 100, 101, 103, 110, 120, 121];

/// Systems on a chip, which share machine code with no other compute capability.
const ON_CHIP: [u16; 7] = [53, 62, 72, 87, 88, 101, 110];

/// Why a text is no arch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a GPU architecture: expected sm_ and a number, such as sm_80, sm_90a or sm_120a; or, for PTX, \
     compute_ and a number alone"
)]
pub struct ArchError(String);

impl Arch {
    /// The architectures that `warm` builds for where no GPU is present: the best one of
    /// each of [`SUPPORTED`], in its order, which is what such a GPU asks for.
    pub const DEFAULTS: [Self; SUPPORTED.len()] = {
        let mut archs = [Self::plain(0); SUPPORTED.len()];
        let mut n = 0;
        while n < archs.len() {
            archs[n] = Self::of_device(SUPPORTED[n].0, SUPPORTED[n].1);
            n += 1;
        }
        archs
    };

    /// Every architecture that the built-in families are tested to compile for.
    pub const TESTED: [Self; 9] = [
        Self::plain(80),
        Self::plain(86),
        Self::plain(89),
        Self::plain(90),
        Self::specific(90),
        Self::specific(100),
        Self::specific(103),
        Self::specific(120),
        Self::specific(121),
    ];

    const fn plain(number: u16) -> Self {
        Self { number, suffix: None }
    }

    const fn specific(number: u16) -> Self {
        Self {
            number,
            suffix: Some(Suffix::A),
        }
    }

    /// The best arch for a device: `sm_90a` for compute capability 9.0. From 9.0
    /// on the `a` variant is taken, whose instructions only that device has.
    #[must_use]
    pub const fn of_device(major: u16, minor: u16) -> Self {
        let number = major * 10 + minor;
        if number >= 90 {
            Self::specific(number)
        } else {
            Self::plain(number)
        }
    }

    /// Every arch whose code a device of this compute capability runs, best first: `sm_89`,
    /// `sm_86` and `sm_80` for 8.9; `sm_103a`, `sm_103f`, `sm_100f`, `sm_103` and `sm_100`
    /// for 10.3.
    #[must_use]
    pub fn running_on(major: u16, minor: u16) -> Vec<Self> {
        let of = |suffix| {
            let newest_first = NUMBERS.into_iter().rev();
            newest_first.map(move |number| Self { number, suffix })
        };
        // What a compiler knows as a family begins with 10.0, and as specific with 9.0.
        let specific = of(Some(Suffix::A)).filter(|arch| arch.number >= 90);
        let family = of(Some(Suffix::F)).filter(|arch| arch.number >= 100);
        let archs = specific.chain(family).chain(of(None));
        archs.filter(|arch| arch.runs_on(major, minor)).collect()
    }

    /// Archs other than this one whose code runs on every GPU that runs this one's, best
    /// first: `sm_86` and `sm_80` for `sm_89`.
    #[must_use]
    pub fn stand_ins(self) -> Vec<Self> {
        if self.is_ptx() {
            return Vec::new();
        }
        // Code for one GPU alone stands in for nothing that others run, too.
        let as_wide = |other: &Self| self.is_specific() || !other.is_specific();
        let mut archs = Self::running_on(self.number / 10, self.number % 10);
        archs.retain(|other| *other != self && as_wide(other));
        archs
    }

    /// The virtual archs whose PTX a driver can compile for every GPU that runs this arch's
    /// machine code, newest first: `compute_90`, `compute_89` and so on for `sm_90a`.
    #[must_use]
    pub fn ptx_stand_ins(self) -> Vec<Self> {
        let older = NUMBERS.into_iter().rev().filter(|number| *number <= self.number);
        let older = older.filter(|number| !self.is_ptx() && !ON_CHIP.contains(number));
        let suffix = Some(Suffix::Ptx);
        older.map(|number| Self { number, suffix }).collect()
    }

    /// Whether a device of this compute capability runs this arch's cubins, or compiles its
    /// PTX.
    #[must_use]
    pub fn runs_on(self, major: u16, minor: u16) -> bool {
        let device = major * 10 + minor;
        match self.suffix {
            Some(Suffix::Ptx) => device >= self.number,
            _ if device == self.number => true,
            Some(Suffix::A) => false,
            // A family (sm_100f) is one major version, from its number upwards; so is
            // plain code.
            Some(Suffix::F) | None => {
                let on_chip = ON_CHIP.contains(&device) || ON_CHIP.contains(&self.number);
                !on_chip && device / 10 == self.number / 10 && device > self.number
            }
        }
    }

    /// The most shared memory that a block can have, bytes; `None` where jitc does not
    /// know it.
    #[must_use]
    pub fn shared_mem_per_block(self) -> Option<u32> {
        let kib = match self.number {
            80 | 87 => 163,
            86 | 89 | 120 | 121 => 99,
            90 | 100 | 101 | 103 | 110 => 227,
            _ => return None,
        };
        Some(kib << 10)
    }

    /// The number, 90 for `sm_90a`.
    #[must_use]
    pub fn number(self) -> u16 {
        self.number
    }

    /// Whether it is `compute_90` and its like: PTX, which the driver compiles.
    #[must_use]
    pub fn is_ptx(self) -> bool {
        self.suffix == Some(Suffix::Ptx)
    }

    /// Whether it is `sm_90a` and its like: code for that one GPU, with instructions
    /// that the plain architecture lacks.
    #[must_use]
    pub fn is_specific(self) -> bool {
        self.suffix == Some(Suffix::A)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, suffix) = match self.suffix {
            None => ("sm", ""),
            Some(Suffix::A) => ("sm", "a"),
            Some(Suffix::F) => ("sm", "f"),
            Some(Suffix::Ptx) => ("compute", ""),
        };
        f.pad(&format!("{kind}_{}{suffix}", self.number))
    }
}

impl FromStr for Arch {
    type Err = ArchError;

    fn from_str(text: &str) -> Result<Self, ArchError> {
        let error = || ArchError(text.to_owned());
        let text = text.trim();
        let ptx = text.strip_prefix("compute_");
        let rest = ptx.or_else(|| text.strip_prefix("sm_")).ok_or_else(error)?;
        let (digits, suffix) = match rest.as_bytes().last() {
            _ if ptx.is_some() => (rest, Some(Suffix::Ptx)),
            Some(b'a') => (&rest[..rest.len() - 1], Some(Suffix::A)),
            Some(b'f') => (&rest[..rest.len() - 1], Some(Suffix::F)),
            _ => (rest, None),
        };
        let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let number = digits.parse().map_err(|_| error())?;
        if !canonical || !(50..1000).contains(&number) {
            return Err(error());
        }
        Ok(Self { number, suffix })
    }
}

impl TryFrom<String> for Arch {
    type Error = ArchError;

    fn try_from(text: String) -> Result<Self, ArchError> {
        text.parse()
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.to_string()
    }
}

/// A version of CUDA, as a driver and a compiler have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CudaVersion {
    /// Before the point.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

impl CudaVersion {
    /// Whether a driver of this version loads machine code that a compiler of that one made:
    /// within a major version any driver loads any compiler's.
    #[must_use]
    pub fn loads_code_of(self, compiler: Self) -> bool {
        self.major >= compiler.major
    }

    /// The version at the start of a text such as `13.0.88`.
    #[must_use]
    pub fn at_start_of(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = || parts.next()?.parse().ok();
        Some(Self {
            major: next()?,
            minor: next()?,
        })
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The compiler that made, or will make, a cubin: what the key knows of it.
///
/// Identity is that of the content: its SHA-256, or, of just the pinned files, the
/// names that are pinned with their SHA-256. A version number or a build-id alone
/// would let two different builds share keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainIdentity {
    /// Version as far as it is known without loading the library, `13.0.88`.
    /// For people; not part of the key.
    pub version: String,
    /// `sha256:<hex>` of libnvrtc; `build-id:<hex>` if it is the pinned one.
    pub nvrtc: String,
    /// The same of libnvrtc-builtins.
    pub builtins: String,
}

impl fmt::Display for ToolchainIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVRTC {} ({})", self.version, self.nvrtc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arch_reads_back_as_written() {
        for text in ["sm_80", "sm_90a", "sm_100f", "sm_121a", "compute_90"] {
            assert_eq!(text.parse::<Arch>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_arch_is_refused() {
        for text in [
            "",
            "90a",
            "sm_",
            "sm_a",
            "sm_090",
            "sm_90b",
            "compute_90a",
            "compute_100f",
            "compute_",
            "sm_+90",
            "sm_9",
        ] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_specific_arch_runs_only_on_its_own_device() {
        let sm_90a: Arch = "sm_90a".parse().expect("arch");
        assert!(sm_90a.runs_on(9, 0));
        assert!(!sm_90a.runs_on(10, 0));
        let sm_80: Arch = "sm_80".parse().expect("arch");
        assert!(sm_80.runs_on(8, 0) && sm_80.runs_on(8, 6) && sm_80.runs_on(8, 9));
        assert!(!sm_80.runs_on(9, 0));
        let sm_89: Arch = "sm_89".parse().expect("arch");
        assert!(!sm_89.runs_on(8, 6));
    }

    #[test]
    fn ptx_is_for_every_later_gpu_and_stands_in_where_it_is_older() {
        let arch = |text: &str| text.parse::<Arch>().expect("arch");
        let ptx = arch("compute_90");
        assert!(ptx.is_ptx() && !ptx.is_specific() && !arch("sm_90").is_ptx());
        let gpus = [(8, 9), (9, 0), (10, 3), (12, 1), (13, 0)];
        assert_eq!(
            gpus.map(|(major, minor)| ptx.runs_on(major, minor)),
            [false, true, true, true, true]
        );
        let list = |archs: Vec<Arch>| archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            list(arch("sm_89").ptx_stand_ins()),
            "compute_89 compute_86 compute_80"
        );
        assert!(list(arch("sm_130a").ptx_stand_ins()).starts_with("compute_121 compute_120 compute_103 "));
        assert!(ptx.ptx_stand_ins().is_empty() && ptx.stand_ins().is_empty());
        assert!(!list(Arch::running_on(9, 0)).contains("compute"), "machine code");
    }

    #[test]
    fn shared_memory_is_known_of_every_tested_arch_and_of_no_other_by_guess() {
        for arch in Arch::TESTED {
            assert!(arch.shared_mem_per_block().is_some(), "{arch}");
        }
        let of = |text: &str| text.parse::<Arch>().expect("arch").shared_mem_per_block();
        assert_eq!(of("sm_89"), Some(101_376));
        assert_eq!(of("sm_90"), of("sm_90a"));
        assert_eq!(of("sm_130a"), None);
    }

    #[test]
    fn a_driver_loads_code_of_every_compiler_of_its_major_version_and_of_older_ones() {
        let version = |text| CudaVersion::at_start_of(text).expect(text);
        assert_eq!(version("13.0.88"), CudaVersion { major: 13, minor: 0 });
        assert_eq!(version("12.9").to_string(), "12.9");
        for text in ["", "13", "13.x", "cuda 13.0"] {
            assert_eq!(CudaVersion::at_start_of(text), None, "{text}");
        }
        assert!(version("13.0").loads_code_of(version("13.2")));
        assert!(version("13.0").loads_code_of(version("12.9")));
        assert!(!version("12.9").loads_code_of(version("13.0")));
    }

    #[test]
    fn a_device_gets_the_arch_with_all_its_instructions() {
        assert_eq!(Arch::of_device(9, 0).to_string(), "sm_90a");
        assert_eq!(Arch::of_device(8, 6).to_string(), "sm_86");
        assert_eq!(Arch::of_device(12, 1).to_string(), "sm_121a");
    }

    #[test]
    fn the_default_archs_hold_what_every_supported_gpu_requests_and_no_more() {
        let of_gpus = SUPPORTED.map(|(major, minor)| Arch::of_device(major, minor));
        assert_eq!(Arch::DEFAULTS, of_gpus);
        assert!(Arch::DEFAULTS.is_sorted_by(|a, b| a < b));
        for arch in Arch::DEFAULTS {
            assert!(Arch::TESTED.contains(&arch), "{arch}");
        }
    }

    #[test]
    fn what_runs_on_a_gpu_is_listed_best_first() {
        let on = |major, minor| {
            let archs = Arch::running_on(major, minor);
            archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(on(8, 0), "sm_80");
        assert_eq!(on(8, 6), "sm_86 sm_80");
        assert_eq!(on(8, 9), "sm_89 sm_86 sm_80");
        assert_eq!(on(9, 0), "sm_90a sm_90");
        assert_eq!(on(10, 0), "sm_100a sm_100f sm_100");
        assert_eq!(on(10, 3), "sm_103a sm_103f sm_100f sm_103 sm_100");
        assert_eq!(on(12, 0), "sm_120a sm_120f sm_120");
        assert_eq!(on(12, 1), "sm_121a sm_121f sm_120f sm_121 sm_120");
        for (major, minor) in SUPPORTED {
            let best = Arch::running_on(major, minor)[0];
            assert_eq!(best, Arch::of_device(major, minor));
        }
    }

    #[test]
    fn what_stands_in_for_an_arch_runs_wherever_it_does() {
        let of = |text: &str| {
            let archs = text.parse::<Arch>().expect("arch").stand_ins();
            archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("sm_80"), "");
        assert_eq!(of("sm_89"), "sm_86 sm_80");
        assert_eq!(of("sm_90"), "", "sm_90a is narrower");
        assert_eq!(of("sm_100"), "sm_100f");
        assert_eq!(of("sm_121a"), "sm_121f sm_120f sm_121 sm_120");
        for arch in Arch::TESTED.into_iter().chain(Arch::running_on(10, 3)) {
            let gpus = || {
                SUPPORTED
                    .into_iter()
                    .filter(|(major, minor)| arch.runs_on(*major, *minor))
            };
            for other in arch.stand_ins() {
                assert!(
                    gpus().all(|(major, minor)| other.runs_on(major, minor)),
                    "{other} for {arch}"
                );
            }
        }
    }

    #[test]
    fn a_system_on_a_chip_shares_machine_code_with_no_other_gpu() {
        let on = |major, minor| Arch::running_on(major, minor);
        assert_eq!(on(8, 7), [Arch::plain(87)]);
        let sm_87: Arch = "sm_87".parse().expect("arch");
        assert!(sm_87.runs_on(8, 7) && !sm_87.runs_on(8, 9));
        assert!(on(11, 0).iter().all(|arch| arch.number() == 110));
    }
}

//! jitc compiles CUDA kernels for exactly the constants that a program needs, at run time
//! through NVRTC, and keeps the machine code in a verified cache on disk. Compiling needs
//! no GPU and no CUDA toolkit; what is loaded was verified byte for byte.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use jitc::{Config, Context, Dtype, Jit, Tensor};
//!
//! let jit = Jit::new(Config::builder().cache_dir(folder.path()).load()?)?;
//! // No GPU is needed to compile. Asked again, in this process or the next, it is a hit.
//! let prepared = jit.kernel("axpy").set("unroll", 4).prepare("sm_90a".parse()?)?;
//! println!("{}: {} registers", prepared.request.key(), prepared.fetched.artifact.registers());
//!
//! let Ok(context) = Context::new(0) else { return Ok(()) };
//! let kernel = jit.kernel("axpy").set("unroll", 4).load(&context)?;
//! let stream = context.cuda().default_stream();
//! let (x, y) = (stream.clone_htod(&[1.0_f32; 1000])?, stream.clone_htod(&[2.0_f32; 1000])?);
//! let all_of = |slice| Tensor::all_of::<f32>(&stream, slice, Dtype::F32);
//! // Names, types and lengths are checked here, once; a launch only launches.
//! let bound = kernel.bind().size("n", 1000).arg("a", 3.0_f32).arg("x", all_of(&x)).arg("y", all_of(&y)).finish()?;
//! // SAFETY: the memory lives to the end of the stream's work, which the copy waits for.
//! unsafe { bound.launch(&[1000], stream.cu_stream()) }?;
//! assert_eq!(stream.clone_dtoh(&y)?, [5.0; 1000]);
//! # Ok(())
//! # }
//! ```
//!
//! `axpy` is a family that comes with jitc. One of your own is a folder with two files
//! (`jitc new hello` writes one), named by [`Config::builder`]'s `templates` or carried in
//! the program by [`include_templates!`]; or a text: [`Jit::source`].
//!
//! # Core concepts
//!
//! * A **family** is a template with typed *constants*, declared in TOML: their legal values,
//!   what is derived from them, what its kernels take.
//! * A [`KernelSpec`] is a family, a value for every constant, and an [`Arch`]: validated
//!   when it is made, so that no later stage checks again. [`Jit::kernel`] makes one.
//! * The **key** is SHA-256 over everything that the compiler is given: source, headers,
//!   options, constants, arch, and the compiler's own bytes. No path, time or host is in it,
//!   so that another machine has the same key.
//! * The **cache** is a list of tiers: bundles in the program, read-only folders, this user's
//!   folder, stores of a fleet. A hit is verified; anything less is a miss, put aside and
//!   built again. Of 32 processes that miss at once one compiles.
//! * [`Jit::prepare`] finds or makes the machine code, [`Jit::load`] also loads it into a
//!   [`Context`]; [`LoadedKernel::bind`] checks values against the declaration and gives a
//!   [`BoundKernel`], whose launches allocate nothing and read no environment.
//! * [`Jit::why`] says of a miss what differs from the nearest entry: the constant, the first
//!   differing line of a header, the compiler.
//!
//! # The architecture of a server
//!
//! 1. **When the image is built**: `jitc warm` compiles what it will launch, on a machine
//!    without a GPU, into a read-only folder or a bundle, and writes a receipt.
//! 2. **At start**: one [`Jit`] a process, shared by its threads. [`Jit::prepare_all`] or
//!    [`Jit::prepare_each`] finds every variant, then [`Jit::forbid`]: from here on a miss is
//!    an error that names the key and the command that would warm it, and not a pause.
//! 3. **Each request**: choose among prepared variants
//!    ([`Dispatcher`](engine::run::dispatch::Dispatcher) by a family's own rules), launch on
//!    the caller's stream. Where a variant may be missing, [`MissPolicy::Behind`] launches a
//!    more general one with the same bits and compiles behind it.
//! 4. **All along**: [`JitBuilder::listener`] is told of every [`Event`], and the
//!    [cache](Jit::cache) counts hits, misses and compiles as Prometheus text.
//!
//! `examples/embed.rs` is such a loop around a decode layer. NVRTC runs in a process of its
//! own wherever the program `jitc` is found; a program may name another
//! ([`JitBuilder::worker`]).
//!
//! # Features
//!
//! * `cli` (default): the program `jitc` and what only it needs. A library takes
//!   `default-features = false`.
//! * `cuda-13000` (default), `cuda-12090`, `cuda-12080`: which CUDA's driver interface
//!   [`cudarc`] has. One of them, in the whole program; whoever uses `cudarc` beside jitc says
//!   it there, takes `default-features = false` here, or uses the re-export.
//! * `remote`: stores that a fleet shares.
//!
//! # Where things are
//!
//! Data goes one way: request → [`KernelSpec`] →
//! [`RenderedSource`](engine::build::render::RenderedSource) →
//! [`CacheKey`](engine::build::key::CacheKey) → cache (miss: compile) →
//! [`Artifact`](engine::build::artifact::Artifact) → [`LoadedKernel`].
//!
//! * [`engine`] knows no family: requests, builds, the cache, loading and launching;
//! * [`measure`] works for any kernel: timing, comparing, tuning, regions;
//! * [`families`] are the kernels that come with jitc, each with all of its host side;
//! * [`mod@build`] is for build scripts.
//!
//! Every error is an enum of its stage that says in one line what was wrong, where, and what
//! would be right; [`Error`] folds them, [`Error::kind`] tells them apart and
//! [`Error::hints`] says what to do.
//!
//! # Versions
//!
//! Rust 1.95 is what is tested, and what `rust-version` says; a newer one is demanded in a
//! minor release, never in a patch. Before 1.0 a minor release may break the interface and
//! a patch does not; what is re-exported on this page breaks last. Enums of errors and events
//! and structs that are returned may grow. Keys and cache formats have versions of their own:
//! an old entry is a miss, never a wrong hit.

// For `main.rs` alone: it parses and prints, and what it does is in the three wings.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod engine;
pub mod families;
pub mod measure;

/// The CUDA bindings that contexts, streams and memory are of.
pub use cudarc;

/// For build scripts: see [`engine::embed`].
pub use engine::embed as build;

pub use engine::cache::{Event, Provenance};
pub use engine::config::{Config, Environment, MissPolicy};
pub use engine::jit::{Error, ErrorKind, Jit, JitBuilder, Prepared};
pub use engine::request::spec::KernelSpec;
pub use engine::request::target::Arch;
pub use engine::run::bind::BoundKernel;
pub use engine::run::device::Context;
pub use engine::run::load::LoadedKernel;
pub use engine::run::tensor::{Dtype, Tensor};

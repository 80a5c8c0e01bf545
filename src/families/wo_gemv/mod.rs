//! `wo_gemv`: the `W_O` GEMV over NVFP4 weights, whose order of sums is fixed.

pub mod problem;
pub mod reference;
pub mod tune;

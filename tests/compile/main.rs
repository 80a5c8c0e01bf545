//! What takes compiles of the largest kernels: CI always runs it; a developer does where
//! templates or headers have changed (`just compile`).

#[path = "../it/command.rs"]
mod command;
#[path = "../it/region_code.rs"]
mod region_code;
mod regions;
mod spills;

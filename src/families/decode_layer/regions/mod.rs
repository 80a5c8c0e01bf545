//! Region timing of the layer: launches on a GPU, made-up ones, and how buffers of its
//! sets reduce.

mod live;
mod synthetic;

pub use live::live;
pub use synthetic::synthetic;

#[cfg(test)]
mod sets;
#[cfg(test)]
mod tests;

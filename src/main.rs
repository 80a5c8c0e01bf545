//! jitc
fn main() {}

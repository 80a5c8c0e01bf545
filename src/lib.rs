//! jitc

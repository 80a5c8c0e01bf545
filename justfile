# `just` lists these. The README's commands need nothing but cargo.

default:
    @just --list

# Formatting, lints, documentation.
check:
    cargo fmt --all --check
    cargo clippy --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# The whole suite.
test:
    cargo test --locked


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

# 3,000 writers of the cache killed at random and at every step of publishing.
crash:
    cargo test --locked --lib three_thousand -- --ignored

# Ten million inputs for the readers of manifests and bundles.
fuzz executions="10000000" seed="2026":
    cargo run --release --locked --example fuzz -- {{executions}} {{seed}}

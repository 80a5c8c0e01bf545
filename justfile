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

# The inner loop: everything but compiles of the largest kernels.
quick:
    cargo test --locked --lib --test it --test library

# Compiles of the largest kernels: where templates or headers have changed.
compile:
    cargo test --locked --test compile

# What takes a GPU: its tests, none skipped, and every bit of the kernels.
gpu:
    JITC_REQUIRE_GPU=1 cargo test --locked --test gpu
    cargo run --release --locked -- verify
    cargo run --release --locked -- verify decode_layer

# Random launches of the decode layer on four streams, each held to the bit.
soak launches="100000":
    cargo run --release --locked -- verify decode_layer --launch cooperative --soak {{launches}} --streams 4

# Times of the host's side: cache, keys, a cold warm.
bench:
    cargo bench --locked

# 3,000 writers of the cache killed at random and at every step of publishing.
crash:
    cargo test --locked --lib three_thousand -- --ignored

# Ten million inputs for the readers of manifests and bundles.
fuzz executions="10000000" seed="2026":
    cargo run --release --locked --example fuzz -- {{executions}} {{seed}}

# The index of benches/runs, made anew from the front matter of its READMEs.
runs-index:
    JITC_BLESS=1 cargo test --locked --test it runs_index

# A thousand hostile sources through a server that answers others meanwhile.
hostile count="1000" seed="2026":
    cargo build --release --locked
    cargo run --release --locked --example hostile -- {{count}} {{seed}} target/release/jitc

# Mutants of what the promises of docs/SECURITY.md rest on (`cargo install cargo-mutants`): hours.
mutants:
    cargo mutants -f src/engine/build/key.rs -f src/engine/build/options.rs -f src/engine/build/render.rs \
        -f src/engine/request/spec.rs -f 'src/engine/request/template/**' -f 'src/engine/config/**' \
        -f 'src/engine/build/compile/**' -f src/engine/run/load.rs -f src/engine/run/launch.rs -- --locked

# Licenses, advisories and sources of dependencies (`cargo install cargo-deny`).
deny:
    cargo deny --config .ci/deny.toml check

# The book of docs/ (`cargo install mdbook`), into target/site.
site:
    mdbook build docs

# The picture of README, drawn again from benches/runs.
figures:
    python3 docs/figures/front.py

# The page of commands, made anew from --help.
commands:
    JITC_BLESS=1 cargo test --locked --test it commands_page

//! The program; see [`jitc::cli`].

fn main() -> std::process::ExitCode {
    jitc::cli::run()
}

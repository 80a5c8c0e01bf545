//! Templates are embedded with `include_dir!`, which tracks the contents of the
//! files that it found but not new files: ask cargo to look at the folder.

fn main() {
    println!("cargo:rerun-if-changed=templates");
    println!("cargo:rerun-if-changed=build.rs");
}

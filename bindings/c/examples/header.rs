//! Prints the header: `cargo run -p jitc-c --example header > bindings/c/include/jitc.h`.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;

/// The header of the sources as they are.
pub(crate) fn header() -> Result<Vec<u8>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(folder.join("cbindgen.toml"))?)
        .with_src(folder.join("src/lib.rs"))
        .generate()?;
    let mut text = Vec::new();
    made.write(&mut text);
    Ok(text)
}

#[cfg_attr(test, expect(dead_code, reason = "a test asks for the header alone"))]
fn main() -> Result<(), Box<dyn Error>> {
    std::io::stdout().write_all(&header()?)?;
    Ok(())
}

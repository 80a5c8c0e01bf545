//! A parameter written in one line, as `type_text` prints it, for programs that have no TOML.
//!
//! Invariant: it says nothing that the TOML cannot: what is made of it is checked as that is.

use super::parameters::Access;

/// The TOML of a parameter that is written as `f32[n, 4]`, `f32[n], aligned to 4 or null`,
/// `u32`, `u32 = n`, `struct of 24 bytes, aligned to 8` or `tensor_map`. The text says what
/// is wrong.
pub(crate) fn declared(name: &str, written: &str, access: Access) -> Result<toml::Table, String> {
    let mut table = toml::Table::new();
    table.insert("name".into(), name.into());
    let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
    let mut rest = written.trim();
    if let Some(text) = rest.strip_suffix(" or null") {
        set("optional", true.into());
        rest = text.trim_end();
    }
    if let Some((text, number)) = rest.rsplit_once(", aligned to ") {
        set("alignment", whole(number)?.into());
        rest = text.trim_end();
    }
    if let Some(bytes) = rest
        .strip_prefix("struct of ")
        .and_then(|rest| rest.strip_suffix(" bytes"))
    {
        set("bytes", whole(bytes)?.into());
        set("type", "struct".into());
    } else if let Some(dtype) = rest.strip_suffix(']') {
        let (dtype, dims) = dtype.split_once('[').ok_or_else(|| expected(written))?;
        set("type", dtype.trim().into());
        set("shape", dimensions(dims).into());
        set("access", access.name().into());
    } else if let Some((dtype, size)) = rest.split_once('=') {
        set("type", dtype.trim().into());
        set("value", size.trim().into());
    } else {
        set("type", rest.into());
    }
    Ok(table)
}

fn whole(text: &str) -> Result<i64, String> {
    let number: Result<u32, _> = text.trim().parse();
    number.map(i64::from).map_err(|_| {
        let text = text.trim();
        format!("`{text}` is not a whole number of bytes")
    })
}

fn expected(written: &str) -> String {
    format!(
        "`{written}`: expected such as `f32[n, 4]`, `u32`, `u32 = n`, `struct of 24 bytes, aligned to 8` or `tensor_map`"
    )
}

/// What commas part, but for those within parentheses and brackets.
fn dimensions(text: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let part = |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let all: Vec<String> = text.split(part).map(|dim| dim.trim().to_owned()).collect();
    if all == [""] { Vec::new() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(written: &str) -> String {
        toml::to_string(&declared("x", written, Access::Out).unwrap())
            .unwrap()
            .replace('\n', "; ")
    }

    #[test]
    fn a_parameter_of_one_line_says_what_its_toml_does() {
        assert_eq!(
            toml("f32[ceil_div(a=n, b=4), 8], aligned to 4 or null"),
            "name = \"x\"; optional = true; alignment = 4; type = \"f32\"; shape = [\"ceil_div(a=n, b=4)\", \"8\"]; access = \"out\"; "
        );
        assert_eq!(toml("u32 = n"), "name = \"x\"; type = \"u32\"; value = \"n\"; ");
        assert_eq!(toml("u64"), "name = \"x\"; type = \"u64\"; ");
        assert_eq!(
            toml("struct of 24 bytes, aligned to 8"),
            "name = \"x\"; alignment = 8; bytes = 24; type = \"struct\"; "
        );
        assert_eq!(toml("tensor_map"), "name = \"x\"; type = \"tensor_map\"; ");
    }

    #[test]
    fn a_parameter_that_is_none_says_what_would_be() {
        let wrong = |written| declared("x", written, Access::In).unwrap_err();
        assert!(wrong("f32 n]").contains("expected such as `f32[n, 4]`"));
        assert!(
            wrong("struct of some bytes, aligned to 8").contains("`some` is not a whole number of bytes")
        );
    }
}

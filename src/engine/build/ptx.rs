//! What PTX says of itself: for which arch, with which entry points and parameters.
//!
//! Invariant: PTX that was read is whole, as far as its text tells: a head, and every brace
//! closed. The driver compiles it when it is loaded, and judges the rest.

use crate::engine::refused::Refused;
use crate::engine::request::template::Place;

/// What was read of PTX.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ptx {
    /// The number of the arch, 90 of `compute_90`.
    pub arch: u32,
    /// Entry points by name, with the places of their parameters.
    pub entries: Vec<(String, Vec<Place>)>,
    /// `__constant__` and `__device__` variables, with their bytes.
    pub variables: Vec<(String, u64)>,
}

/// Whether code is PTX, and not an ELF image.
#[must_use]
pub fn is_ptx(code: &[u8]) -> bool {
    let text = code.trim_ascii_start();
    text.starts_with(b"//") || text.starts_with(b".version")
}

/// Reads PTX as NVRTC writes it. The text says why it is none.
pub fn read(code: &[u8]) -> Result<Ptx, Refused> {
    let text = std::str::from_utf8(code).map_err(|e| format!("it is not text: {e}"))?;
    if text.contains('\0') {
        return Err("it has a NUL byte".into());
    }
    let lines = || {
        text.lines()
            .map(|line| line.split("//").next().unwrap_or_default().trim())
    };
    let after = |word: &str| lines().find_map(|line| line.strip_prefix(word)).map(str::trim);
    if after(".version").is_none() {
        return Err("it has no .version".into());
    }
    let target = after(".target").and_then(|target| target.split(',').next());
    let arch = target
        .and_then(|target| target.trim().strip_prefix("sm_")?.parse().ok())
        .ok_or("its .target is not a plain architecture")?;
    let mut ptx = Ptx {
        arch,
        entries: Vec::new(),
        variables: Vec::new(),
    };
    let (mut depth, mut open) = (0_usize, None);
    for line in lines() {
        if let Some((_, entry)) = line.split_once(".entry ") {
            let (name, rest) = entry.split_once('(').unwrap_or((entry, ""));
            ptx.entries.push((name.trim().to_owned(), Vec::new()));
            open = (!rest.contains(')')).then_some(0);
        } else if let Some(end) = open {
            if line.contains(".param") {
                let (place, _) = declared(line, end).ok_or_else(|| format!("`{line}` is not a parameter"))?;
                let end = place.offset.checked_add(place.size);
                open = Some(end.ok_or("its parameters are too large")?);
                ptx.entries
                    .last_mut()
                    .ok_or("a parameter of nothing")?
                    .1
                    .push(place);
            }
            if line.contains(')') {
                open = None;
            }
        } else if depth == 0 && is_variable(line) {
            ptx.variables
                .extend(declared(line, 0).map(|(place, name)| (name, u64::from(place.size))));
        }
        depth = (depth + line.matches('{').count())
            .checked_sub(line.matches('}').count())
            .ok_or("it closes more than it opens")?;
    }
    if depth != 0 || open.is_some() {
        return Err("it ends within a function".into());
    }
    Ok(ptx)
}

/// Whether a line defines a variable that a host can name.
fn is_variable(line: &str) -> bool {
    let line = line
        .trim_start_matches(".visible")
        .trim_start_matches(".weak")
        .trim_start();
    line.starts_with(".const") || line.starts_with(".global")
}

/// The name that a line declares, and its place behind so many bytes.
fn declared(line: &str, end: u32) -> Option<(Place, String)> {
    let line = line.split('=').next()?.trim_end_matches([',', ';', ' ', ')']);
    let mut words = line.split_whitespace();
    let (mut alignment, mut size) = (None, None);
    let mut name = "";
    while let Some(word) = words.next() {
        match word {
            // Behind the type it is that of what a pointer points to.
            ".align" if size.is_none() => alignment = words.next()?.parse::<u32>().ok(),
            ".align" => {
                words.next();
            }
            _ if word.starts_with('.') => size = size.or_else(|| bytes_of(word)),
            _ => name = word,
        }
    }
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => (name, count.trim_end_matches(']').parse().ok()?),
        None => (name, 1),
    };
    let size: u32 = size?;
    let place = Place {
        offset: end.checked_next_multiple_of(alignment.unwrap_or(size).max(1))?,
        size: size.checked_mul(count)?,
    };
    Some((place, name.to_owned()))
}

/// The bytes of a type, `.u32`.
fn bytes_of(word: &str) -> Option<u32> {
    let bits: u32 = word
        .strip_prefix(['.'])?
        .strip_prefix(['b', 'u', 's', 'f'])?
        .parse()
        .ok()?;
    matches!(bits, 8 | 16 | 32 | 64 | 128).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "//\n// Generated by NVIDIA NVVM Compiler\n//\n\n.version 9.0\n.target sm_90\n.address_size 64\n\n\
        \t// .globl\tk\n.const .align 4 .b8 table[28];\n.global .align 8 .f64 _ZN2ns5countE;\n\
        .visible .global .align 4 .u32 set = 256;\n.extern .shared .align 4 .b8 room[];\n\n\
        .visible .entry k(\n\t.param .align 16 .b8 k_param_0[32],\n\t.param .u8 k_param_1,\n\
        \t.param .u64 .ptr .align 1 k_param_2\n)\n.maxntid 64, 1, 1\n{\n\t.reg .b32 %r<5>;\n\tret;\n}\n\
        .visible .entry none()\n{\n\tret;\n}\n";

    #[test]
    fn ptx_says_its_arch_its_kernels_what_they_take_and_its_variables() {
        assert!(is_ptx(TEXT.as_bytes()) && !is_ptx(b"\x7fELF"));
        let ptx = read(TEXT.as_bytes()).expect("PTX");
        let place = |offset, size| Place { offset, size };
        assert_eq!(ptx.arch, 90);
        assert_eq!(
            ptx.entries,
            [
                ("k".to_owned(), vec![place(0, 32), place(32, 1), place(40, 8)]),
                ("none".to_owned(), Vec::new())
            ]
        );
        let variables = [("table", 28), ("_ZN2ns5countE", 8), ("set", 4)];
        assert_eq!(
            ptx.variables,
            variables.map(|(name, size)| (name.to_owned(), size))
        );
    }

    #[test]
    fn a_part_of_ptx_is_none() {
        for end in [0, 40, 60, 300, TEXT.len() - 2] {
            assert!(read(&TEXT.as_bytes()[..end]).is_err(), "{end}");
        }
        for (from, to) in [("sm_90", "sm_90a"), (".version", ".versoin"), ("ret;", "ret;\0")] {
            assert!(read(TEXT.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}

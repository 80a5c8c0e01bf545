//! What a compile yields: machine code, its entry points, what they use, the log.
//!
//! Invariant: an [`Artifact`] is plain bytes and numbers. It holds nothing of the
//! process that made it, so it can be stored, carried and compared.

use serde::{Deserialize, Serialize};

/// What one entry point uses, as ptxas reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// The entry point's name, as its family has it.
    pub entry: String,
    /// Its name in the cubin, where C++ made that: a template's instance has its types in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Registers a thread.
    pub registers: u32,
    /// Spill stores and spill loads together, bytes a thread.
    pub spill_bytes: u32,
    /// Stack frame, bytes a thread.
    pub stack_bytes: u32,
    /// Static shared memory, bytes a block.
    pub shared_bytes: u32,
}

/// The result of one compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The ELF image for one arch, as the driver loads it; of a virtual arch its PTX.
    pub cubin: Vec<u8>,
    /// What each entry point uses, in the order of the log.
    pub resources: Vec<Resources>,
    /// The compiler's log, warnings and the ptxas report in its own words; empty where the
    /// artifact comes from a cache, whose entry keeps it.
    pub compile_log: String,
    /// Time spent inside NVRTC, microseconds.
    pub compile_us: u64,
}

impl Artifact {
    /// The largest number of registers that any entry uses.
    #[must_use]
    pub fn registers(&self) -> u32 {
        self.resources.iter().map(|r| r.registers).max().unwrap_or(0)
    }

    /// The name in the cubin of the entry point that its family calls so.
    #[must_use]
    pub fn symbol<'a>(&'a self, entry: &'a str) -> &'a str {
        symbol_in(&self.resources, entry)
    }

    /// Spilled bytes over all entries.
    #[must_use]
    pub fn spill_bytes(&self) -> u32 {
        self.resources.iter().map(|r| r.spill_bytes).sum()
    }
}

/// As [`Artifact::symbol`], of what the entry points use.
#[must_use]
pub fn symbol_in<'a>(resources: &'a [Resources], entry: &'a str) -> &'a str {
    let named = resources.iter().find(|used| used.entry == entry);
    named.and_then(|used| used.symbol.as_deref()).unwrap_or(entry)
}

/// Gives the entry points that C++ names the names that their family has for them: each a
/// declared name and the one in the cubin. An instance may have several.
pub(crate) fn name_entries(resources: &mut Vec<Resources>, named: &[(String, String)]) {
    let ours = named.iter().filter_map(|(entry, symbol)| {
        let used = resources.iter().find(|used| used.entry == *symbol)?;
        Some(Resources {
            entry: entry.clone(),
            symbol: Some(symbol.clone()),
            ..used.clone()
        })
    });
    let ours: Vec<Resources> = ours.collect();
    resources.retain(|used| named.iter().all(|(_, symbol)| *symbol != used.entry));
    resources.extend(ours);
}

/// Reads the `ptxas -v` part of a compile log.
///
/// The report names a function on one line and gives its numbers on the next
/// ones; lines that say nothing of interest are passed over. Functions that an
/// entry calls are reported after it: their spills are its own.
#[must_use]
pub fn parse_ptxas_report(log: &str) -> Vec<Resources> {
    let mut out: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            out.push(Resources {
                entry: name.to_owned(),
                ..Resources::default()
            });
        }
        let Some(current) = out.last_mut() else {
            continue;
        };
        if line.contains("bytes stack frame") {
            let stack_bytes = number_before(line, " bytes stack frame").unwrap_or(0);
            current.stack_bytes = current.stack_bytes.max(stack_bytes);
            current.spill_bytes += number_before(line, " bytes spill stores").unwrap_or(0)
                + number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(rest) = line.split("Used ").nth(1) {
            current.registers = leading_number(rest).unwrap_or(0);
            current.shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    out
}

/// The log without what differs between two builds of the same source: the lines in which
/// ptxas says how long it took.
#[must_use]
pub fn reproducible_log(log: &str) -> String {
    let lines = log.split_inclusive('\n');
    lines.filter(|line| !line.contains("Compile time = ")).collect()
}

fn between<'a>(line: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = line.split_once(start)?.1;
    Some(rest.split_once(end)?.0)
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    let head = line.split_once(unit)?.0;
    head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'wo_gemv' for 'sm_90a'
ptxas info    : Function properties for wo_gemv
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 1028 bytes smem
ptxas info    : Compile time = 41.000 ms
ptxas info    : Function properties for _ZN4jitc5chainEv
    0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'wo_gather' for 'sm_90a'
ptxas info    : Function properties for wo_gather
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers
";

    #[test]
    fn the_ptxas_report_is_read_entry_by_entry() {
        let report = parse_ptxas_report(LOG);
        assert_eq!(report.len(), 2);
        assert_eq!(report[0].entry, "wo_gemv");
        assert_eq!(report[0].registers, 64);
        assert_eq!(report[0].spill_bytes, 24, "with the function that it calls");
        assert_eq!(report[0].stack_bytes, 16);
        assert_eq!(report[0].shared_bytes, 1028);
        assert_eq!(report[1].entry, "wo_gather");
        assert_eq!(report[1].registers, 20);
        assert_eq!(report[1].spill_bytes, 0);
    }

    #[test]
    fn two_logs_that_differ_in_their_times_are_kept_alike() {
        let other = LOG.replace("41.000", "39.125");
        assert_eq!(reproducible_log(LOG), reproducible_log(&other));
        assert_eq!(reproducible_log(LOG).lines().count(), LOG.lines().count() - 1);
        assert_eq!(
            parse_ptxas_report(&reproducible_log(LOG)),
            parse_ptxas_report(LOG)
        );
    }

    #[test]
    fn an_entry_point_that_cxx_names_goes_by_its_familys_name() {
        let mut resources = parse_ptxas_report(LOG);
        let in_cxx = [("a", "wo_gather"), ("b", "wo_gather")].map(|(n, s)| (n.to_owned(), s.to_owned()));
        name_entries(&mut resources, &in_cxx);
        let names: Vec<&str> = resources.iter().map(|used| used.entry.as_str()).collect();
        assert_eq!(names, ["wo_gemv", "a", "b"]);
        assert_eq!(resources[2].registers, 20);
        assert_eq!(symbol_in(&resources, "b"), "wo_gather");
        assert_eq!(symbol_in(&resources, "wo_gemv"), "wo_gemv");
    }

    #[test]
    fn a_log_without_a_report_names_no_entry() {
        assert!(parse_ptxas_report("warning: something\n").is_empty());
    }
}

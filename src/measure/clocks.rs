//! The clocks of a GPU, as its driver's own program says them.
//!
//! Invariant: what nobody says is none, and never a number.

use std::process::Command;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;

use crate::engine::run::device::Context;
use crate::engine::run::tuned::Clocks;

/// The clocks now. Asked right behind launches, they are those of the launches.
#[must_use]
pub fn clocks(context: &Context) -> Option<Clocks> {
    let part = |which| context.cuda().attribute(which).ok();
    let domain = part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?;
    let bus = part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?;
    let device = part(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?;
    let query = [
        "--query-gpu=clocks.sm,clocks.mem",
        "--format=csv,noheader,nounits",
    ];
    let output = Command::new("nvidia-smi")
        .args(query)
        .arg(format!("--id={domain:08x}:{bus:02x}:{device:02x}.0"))
        .output()
        .ok()?;
    parsed(&String::from_utf8(output.stdout).ok()?)
}

/// `1980, 3201`, in MHz.
fn parsed(line: &str) -> Option<Clocks> {
    let (sm, memory) = line.trim().split_once(',')?;
    Some(Clocks {
        sm_mhz: sm.trim().parse().ok()?,
        memory_mhz: memory.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_two_numbers_or_none() {
        let clocks = parsed("1980, 3201\n").expect("clocks");
        assert_eq!((clocks.sm_mhz, clocks.memory_mhz), (1980, 3201));
        for line in [
            "",
            "No devices were found",
            "[N/A], [N/A]",
            "1980",
            "1980, 3201, 7",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}

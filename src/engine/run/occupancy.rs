//! What GPUs that need not be here have, and how many blocks of a kernel fit on one.

use crate::engine::refused::Refused;
use crate::engine::run::device::Device;

/// Blocks of a kernel that are resident on the whole GPU at once, worked out from
/// its resources as the driver does: registers come in 256 a warp, shared memory
/// in 128 bytes with 1 KiB of the system's a block. For a GPU that is not here;
/// where it is, the driver is asked.
#[must_use]
pub fn capacity(device: &Device, registers: u32, threads: u32, shared_mem_bytes: u32) -> u32 {
    let warps = threads.div_ceil(32).max(1);
    let warp_registers = (registers * 32).next_multiple_of(256).max(256);
    // Each of the four schedulers has a quarter of the registers to itself.
    let by_registers = (device.registers_per_sm / 4 / warp_registers * 4) / warps;
    let block_bytes = (shared_mem_bytes + 1024).next_multiple_of(128);
    let by_shared = device.shared_mem_per_sm / block_bytes;
    let by_threads = device.threads_per_sm / (warps * 32);
    by_registers.min(by_shared).min(by_threads).min(32) * device.sm_count
}

/// Facts of a GPU that need not be here, by a short name.
#[must_use]
pub fn known_device(name: &str) -> Option<Device> {
    let (full, capability, sm_count, shared_kib, block_kib, threads_per_sm, l2_mib) =
        match name.to_ascii_lowercase().as_str() {
            "a100" => ("NVIDIA A100", (8, 0), 108, 164, 163, 2048, 40),
            "h100" => ("NVIDIA H100 80GB HBM3", (9, 0), 132, 228, 227, 2048, 50),
            "h200" => ("NVIDIA H200", (9, 0), 132, 228, 227, 2048, 60),
            "b200" => ("NVIDIA B200", (10, 0), 148, 228, 227, 2048, 126),
            "l40s" => ("NVIDIA L40S", (8, 9), 142, 100, 99, 1536, 96),
            "gb10" => ("NVIDIA GB10", (12, 1), 48, 100, 99, 1536, 24),
            _ => return None,
        };
    Some(Device {
        ordinal: 0,
        name: full.to_owned(),
        major: capability.0,
        minor: capability.1,
        sm_count,
        shared_mem_per_sm: shared_kib * 1024,
        shared_mem_per_block: block_kib * 1024,
        registers_per_sm: 65_536,
        threads_per_sm,
        l2_bytes: l2_mib << 20,
        cooperative: true,
        pageable_memory: false,
    })
}

/// The GPUs of a list of such names, `h200,l40s`.
///
/// # Errors
/// A name that is none of theirs, in one line.
pub fn known_devices(list: &str) -> Result<Vec<Device>, Refused> {
    let named = |name: &str| {
        known_device(name.trim()).ok_or_else(|| {
            let known = KNOWN_DEVICES.join(", ");
            Refused::new(format_args!(
                "`{name}` is not a known GPU: expected names of {known}"
            ))
        })
    };
    list.split(',').map(named).collect()
}

/// The names of [`known_device`].
pub const KNOWN_DEVICES: [&str; 6] = ["a100", "l40s", "h100", "h200", "b200", "gb10"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_registers_threads_and_shared_memory() {
        let h200 = known_device("H200").expect("known");
        assert_eq!(capacity(&h200, 128, 512, 227_328), 132);
        assert_eq!(capacity(&h200, 128, 512, 100_000), 132);
        assert_eq!(capacity(&h200, 64, 512, 100_000), 2 * 132);
        assert_eq!(capacity(&h200, 255, 512, 1000), 0);
        assert_eq!(capacity(&h200, 32, 128, 0), 16 * 132);
        let gb10 = known_device("gb10").expect("known");
        // nvllm's estimate from shared memory alone.
        assert_eq!(capacity(&gb10, 60, 128, 45_568), 96);
        assert!(known_device("h300").is_none());
    }
}

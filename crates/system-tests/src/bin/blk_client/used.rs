//! Blocks written all over the disk, read back, and read again by whoever comes later.

use system_tests::Result;
use system_tests::blk_client::Used;
use system_tests::verify::BLOCK_BYTES;
use system_tests::verify::content::{Stamp, find, mix};

use crate::disk::{Disk, Op, SLOTS};

/// Groups of requests that are out together.
const GROUPS: u64 = 16;

/// Uses the disk; with `again` an earlier use with this seed must have written it.
pub fn run(disk: &mut Disk, blocks: u64, again: bool, seed: u64) -> Result<Used> {
    let mut used = Used { blocks, ..Used::default() };
    let run = mix(seed);
    for group in 0..GROUPS {
        let places: Vec<(u16, u64)> =
            (0..SLOTS).map(|slot| (slot, place(run, blocks, group, slot))).collect();
        if !again {
            for &(slot, block) in &places {
                let mut bytes = vec![0; BLOCK_BYTES];
                Stamp { run, block, sequence: group }.fill(&mut bytes);
                disk.set_data(slot, &bytes);
                disk.place(slot, Op::Write(block));
            }
            disk.kick()?;
            used.writes += disk.wait()?.len() as u64;
            disk.perform(0, Op::Flush)?;
        }
        for &(slot, block) in &places {
            disk.set_data(slot, &[0; BLOCK_BYTES]);
            disk.place(slot, Op::Read(block));
        }
        disk.kick()?;
        used.reads += disk.wait()?.len() as u64;
        for &(slot, block) in &places {
            match find(&disk.data(slot), run, block) {
                Ok(Some(sequence)) if sequence == group => {}
                found => used.violations.push(format!("block {block}: {found:?}, not {group}")),
            }
        }
    }
    Ok(used)
}

/// Each request has a stripe of the disk for itself, so none meets another.
fn place(run: u64, blocks: u64, group: u64, slot: u16) -> u64 {
    let stripes = GROUPS * u64::from(SLOTS);
    let stripe = group * u64::from(SLOTS) + u64::from(slot);
    let width = (blocks / stripes).max(1);
    stripe * width + mix(run ^ stripe) % width
}

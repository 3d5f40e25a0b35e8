//! Blocks written all over the disk, read back, some of them erased, and read again by whoever
//! comes later.

use system_tests::Result;
use system_tests::blk_client::Used;
use system_tests::verify::BLOCK_BYTES;
use system_tests::verify::content::{Stamp, find, mix};

use crate::disk::{Disk, Op, SLOTS};

/// Groups of requests that are out together. The blocks of the last one are erased in the end.
const GROUPS: u64 = 16;
const ERASED: u64 = GROUPS - 1;

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
            }
            used.writes += all(disk, &places, Op::Write)?;
            disk.perform(0, Op::Flush)?;
            read_back(disk, &places, run, Some(group), &mut used)?;
        }
        if !again && group == ERASED {
            let (zeroed, discarded) = places.split_at(places.len() / 2);
            all(disk, zeroed, Op::WriteZeroes)?;
            all(disk, discarded, if disk.has_discard() { Op::Discard } else { Op::WriteZeroes })?;
        }
        if again || group == ERASED {
            let right = (group != ERASED).then_some(group);
            read_back(disk, &places, run, right, &mut used)?;
        }
    }
    Ok(used)
}

/// The same request for all of these places; how many were answered.
fn all(disk: &mut Disk, places: &[(u16, u64)], op: fn(u64) -> Op) -> Result<u64> {
    for &(slot, block) in places {
        disk.place(slot, op(block));
    }
    disk.kick()?;
    Ok(disk.wait()?.len() as u64)
}

fn read_back(
    disk: &mut Disk,
    places: &[(u16, u64)],
    run: u64,
    right: Option<u64>,
    used: &mut Used,
) -> Result<()> {
    for &(slot, _) in places {
        disk.set_data(slot, &[0xff; BLOCK_BYTES]);
    }
    used.reads += all(disk, places, Op::Read)?;
    for &(slot, block) in places {
        let found = find(&disk.data(slot), run, block);
        if found != Ok(right) {
            used.violations.push(format!("block {block}: {found:?}, not {right:?}"));
        }
    }
    Ok(())
}

/// Each request has a stripe of the disk for itself, so none meets another.
fn place(run: u64, blocks: u64, group: u64, slot: u16) -> u64 {
    let stripes = GROUPS * u64::from(SLOTS);
    let stripe = group * u64::from(SLOTS) + u64::from(slot);
    let width = (blocks / stripes).max(1);
    stripe * width + mix(run ^ stripe) % width
}

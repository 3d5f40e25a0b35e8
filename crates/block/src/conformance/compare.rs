//! Compare-and-write: alone, against itself, and against plain writes through every handle.

use std::rc::Rc;

use super::Boxed;
use super::kit::{
    Context, Random, Verdict, all, compare, elsewhere, ensure, ensure_bytes, ensure_eq, kind,
    linger, read, stamp_of, stamped, write, yield_now,
};
use crate::device::{Device, OpSet};
use crate::error::ErrorKind;

pub(super) async fn one_at_a_time(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(256, OpSet::COMPARE_AND_WRITE).await?;
    let limit = u64::from(lu.device.geometry().exclusive_max).min(200 * lu.block);
    let mut random = Random::new(6);
    for len in [lu.block, 2 * lu.block, limit] {
        if len > limit {
            continue;
        }
        for offset in [0, 5 * lu.block, 256 * lu.block - len] {
            let around = random.bytes(256 * lu.block);
            lu.write(0, &around).await?;
            let old = around[offset as usize..][..len as usize].to_vec();
            let new = random.bytes(len);
            for at in [0, 1, len as usize / 2 + 1, len as usize - 1] {
                let mut other = old.clone();
                other[at] ^= 0x40;
                // A later difference must not be the one that is named.
                other[len as usize - 1] ^= 1;
                let outcome = compare(&*lu.device, offset, &other, &new).await;
                let wanted = Some(ErrorKind::Miscompare { at: at as u32 });
                ensure_eq(kind(&outcome), wanted, "where the data differ")?;
            }
            ensure_bytes(&lu.read(0, 256 * lu.block).await?, &around, "after a miscompare")?;
            let outcome = compare(&*lu.device, offset, &old, &new).await;
            ensure_eq(outcome, Ok(0), "compare-and-write of what is there")?;
            let mut wanted = around;
            wanted[offset as usize..][..len as usize].copy_from_slice(&new);
            ensure_bytes(&lu.read(0, 256 * lu.block).await?, &wanted, "after compare-and-write")?;
        }
    }
    Ok(())
}

/// Raises the number in a block so many times; answers how often it had to try again.
pub(super) async fn raise(device: &dyn Device, offset: u64, block: u64, times: u64) -> Verdict {
    let mut mixed = 0;
    for _ in 0..times {
        loop {
            let bytes = read(device, offset, block).await?;
            let Some(stamp) = stamp_of(&bytes) else {
                // Through the kernel's page cache a read may, beside a write; not each time.
                mixed += 1;
                ensure!(mixed < times, "a counter is a mix of two writes");
                yield_now().await;
                continue;
            };
            let next = stamped(stamp + 1, block);
            let outcome = compare(device, offset, &bytes, &next).await;
            yield_now().await;
            match kind(&outcome) {
                None => break,
                Some(ErrorKind::Miscompare { .. }) => {}
                Some(_) => ensure_eq(outcome, Ok(0), "compare-and-write of a counter")?,
            }
        }
    }
    Ok(())
}

const TASKS: u64 = 6;
pub(super) const TIMES: u64 = 20;

pub(super) async fn counters(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(16, OpSet::COMPARE_AND_WRITE).await?;
    let lu = &lu;
    let task = |_| {
        Box::pin(async move { raise(&*lu.device, 3 * lu.block, lu.block, TIMES).await })
            as Boxed<'_, Verdict>
    };
    all((0..TASKS).map(task).collect()).await?;
    let bytes = lu.read(3 * lu.block, lu.block).await?;
    ensure_eq(stamp_of(&bytes), Some(TASKS * TIMES), "the counter")
}

/// The writer's part: only it changes its block, so what it wrote must be there afterwards. The
/// write covers the block after it as well, which nobody else uses.
pub(super) async fn mark(device: Rc<dyn Device>, offset: u64, block: u64, times: u64) -> Verdict {
    let mut random = Random::new(9);
    for round in 1..=times {
        let bytes = stamped(round << 32, block);
        write(&*device, offset, &[&bytes[..], &bytes].concat()).await?;
        linger(&mut random).await;
        let found = read(&*device, offset, block).await?;
        ensure_bytes(&found, &bytes, &format!("mark {round}, next to exclusive steps"))?;
    }
    Ok(())
}

/// The comparer's part: raises the counter in the first block and writes the mark in the second as
/// it was, as one compare-and-write of both.
async fn raise_beside(device: Rc<dyn Device>, offset: u64, block: u64, times: u64) -> Verdict {
    let (mut raised, mut random) = (0, Random::new(10));
    while raised < times {
        let both = read(&*device, offset, 2 * block).await?;
        let (counter, mark) = both.split_at(block as usize);
        let next = stamped(stamp_of(counter).unwrap_or(u64::MAX - 1) + 1, block);
        let outcome = compare(&*device, offset, &both, &[&next[..], mark].concat()).await;
        linger(&mut random).await;
        match kind(&outcome) {
            None => raised += 1,
            Some(ErrorKind::Miscompare { .. }) => {}
            Some(_) => ensure_eq(outcome, Ok(0), "compare-and-write beside a mark")?,
        }
    }
    Ok(())
}

pub(super) async fn markers(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(16, OpSet::COMPARE_AND_WRITE).await?;
    let block = lu.block;
    if u64::from(lu.device.geometry().exclusive_max) < 2 * block {
        return counters(c).await;
    }
    let parts: Vec<Boxed<'_, Verdict>> = vec![
        Box::pin(mark(lu.device.clone(), 5 * block, block, 4 * TIMES)),
        Box::pin(raise_beside(lu.device.clone(), 4 * block, block, TIMES)),
        Box::pin(raise_beside(lu.device.clone(), 4 * block, block, TIMES)),
    ];
    all(parts).await?;
    let bytes = lu.read(4 * block, block).await?;
    ensure_eq(stamp_of(&bytes), Some(2 * TIMES), "the counter beside the mark")
}

/// All of it from two cores: each has the marks that the other compares beside.
pub(super) async fn from_two_cores(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(32, OpSet::COMPARE_AND_WRITE).await?;
    let block = lu.block;
    let there = elsewhere(&lu, move |device| share(device, block, 5, 20))?;
    all(vec![there, Box::pin(share(lu.device.clone(), block, 21, 4))]).await?;
    let counter = |at: u64, times: u64| {
        let lu = &lu;
        async move {
            let bytes = lu.read(at * block, block).await?;
            ensure_eq(stamp_of(&bytes), Some(times), &format!("the counter in block {at}"))
        }
    };
    counter(9, 2 * TIMES).await?;
    counter(4, 4 * TIMES).await?;
    counter(20, 4 * TIMES).await
}

/// One core's share, with its mark and its comparing in these blocks.
async fn share(device: Rc<dyn Device>, block: u64, marked: u64, compared: u64) -> Verdict {
    let raised = device.clone();
    let parts: Vec<Boxed<'_, Verdict>> = vec![
        Box::pin(async move { raise(&*raised, 9 * block, block, TIMES).await }),
        Box::pin(mark(device.clone(), marked * block, block, 16 * TIMES)),
        Box::pin(raise_beside(device, compared * block, block, 4 * TIMES)),
    ];
    all(parts).await
}

//! Those who use the LU of a world, and know what they may read.

use super::super::super::super::scrub::Cursor;
use super::super::scrub::scrub_some;
use super::*;

const TASKS_PER_CORE: u64 = 4;
/// The one of a core that looks whether everything is good.
const SCRUBBER: u64 = TASKS_PER_CORE + 1;
const SNAPSHOTS_MAX: usize = 3;
/// While it is waited for an LU to fail: where disks are fast much would happen else.
const REST: Duration = Duration::from_millis(2);
/// Each of these is one more to be looked into by whoever reads, and read from a disk again where
/// there is little memory.
const DOOMED_MAX: usize = 12;
/// Numbers of slabs that the LU has now and then, and some that it never has.
const SLABS: u64 = 6;
/// At most.
const MOVES_APART_US: u64 = 4_000;
const SCRUBS_APART_US: u64 = 10_000;

/// Starts those of one core.
pub(super) fn start_users(core: &Core, lu: &Arc<Lu>, model: &Shared, seed: u64) {
    let device = lu.device(core);
    let is_whole = model.lock().unwrap().is_whole;
    for task in 0..TASKS_PER_CORE + 2 + u64::from(!is_whole) {
        let random = Random::new(seed << 8 | task);
        model.lock().unwrap().users += 1;
        let (model, lu, device) = (model.clone(), lu.clone(), device.clone());
        let user = User { model, lu, device, core: core.clone(), random };
        match task {
            0..TASKS_PER_CORE => core.spawn(user.go()),
            TASKS_PER_CORE => core.spawn(user.move_slabs()),
            SCRUBBER => core.spawn(user.scrub()),
            _ => core.spawn(user.bring()),
        }
    }
}

/// Looks at some more of the LU: it is good at every place. Gives what comes next.
pub(super) async fn scrub_on(
    lu: &Arc<Lu>,
    model: &Shared,
    from: Cursor,
    random: &mut Random,
) -> Result<Option<Cursor>, Error> {
    let found = scrub_some(lu, from, random).await?;
    let mut model = model.lock().unwrap();
    assert!(found.is_good() || model.is_dying, "{found:?}");
    model.scrubbed += found.extents;
    Ok(found.next)
}

/// One of those who use the LU.
struct User {
    model: Shared,
    lu: Arc<Lu>,
    device: Rc<dyn Device>,
    /// Whose it is.
    core: Core,
    random: Random,
}

impl User {
    /// Sectors that nobody is at, often whole blocks.
    fn range(&mut self) -> Option<(u64, u64)> {
        let random = &mut self.random;
        let unit = *random.pick(&[1, 8, 8]);
        let most = *random.pick(&[1, 4, 24]);
        let count = unit * (1 + random.below(most));
        let count = count.min(AREA_SECTORS / 2);
        let at = random.below(AREA_SECTORS - count) / unit * unit;
        let first = random.pick(&AREAS) / SECTOR + at;
        (!self.model.lock().unwrap().is_busy(first, count)).then_some((first, count))
    }

    async fn go(mut self) {
        loop {
            let done = match self.random.below(20) {
                0..9 => self.write(false).await,
                9 => self.write(true).await,
                10..13 => self.zero().await,
                13..17 => self.read().await,
                17 => self.flush().await,
                _ => self.layers().await,
            };
            if let Err(error) = done {
                if error.kind() == ErrorKind::Offline {
                    return;
                }
                self.model.lock().unwrap().failed += 1;
                self.core.sleep(Duration::from_millis(1)).await;
            }
            if self.model.lock().unwrap().is_slow {
                self.core.sleep(REST).await;
            }
            self.core.yield_now().await;
        }
    }

    async fn write(&mut self, fua: bool) -> Result<(), Error> {
        let Some((first, count)) = self.range() else { return Ok(()) };
        let value = self.begin(first, count);
        let mut bytes = vec![0; (count * SECTOR) as usize];
        fill(&mut bytes, first, value);
        let buffer = Buffer::from_bytes(&bytes);
        let op = Op::Write { fua, atomic: false };
        let request = Request { op, ..Request::write(first * SECTOR, buffer.sgl()) };
        self.change(first, count, &request, fua).await
    }

    async fn zero(&mut self) -> Result<(), Error> {
        let Some((first, count)) = self.range() else { return Ok(()) };
        self.model.lock().unwrap().begin(first, count, Some(0));
        let op = match self.random.coin() {
            true => Op::Discard,
            false => Op::WriteZeroes { unmap: true, fua: false },
        };
        let request = Request::plain(op, first * SECTOR, count * SECTOR);
        self.change(first, count, &request, false).await
    }

    fn begin(&self, first: u64, count: u64) -> u64 {
        let mut model = self.model.lock().unwrap();
        model.last += 1;
        let value = model.last;
        model.begin(first, count, Some(value));
        value
    }

    async fn change(
        &self,
        first: u64,
        count: u64,
        request: &Request<'_>,
        durable: bool,
    ) -> Result<(), Error> {
        let done = self.device.io(request).await;
        let mut guard = self.model.lock().unwrap();
        let model = &mut *guard;
        model.end(first, count, done.is_ok());
        if durable && done.is_ok() {
            let covered = (first..first + count).map(|at| (at, model.sectors[&at].answered));
            let covered = covered.collect();
            model.flushed(covered);
        }
        model.answered += u64::from(done.is_ok());
        done.map(drop)
    }

    async fn read(&mut self) -> Result<(), Error> {
        let Some((first, count)) = self.range() else { return Ok(()) };
        self.model.lock().unwrap().begin(first, count, None);
        let buffer = Buffer::from_bytes(&vec![0xee; (count * SECTOR) as usize]);
        let done = self.device.io(&Request::read(first * SECTOR, buffer.sgl())).await;
        let mut model = self.model.lock().unwrap();
        model.end(first, count, false);
        done?;
        for (sector, value) in (first..).zip(values(&buffer.to_vec(), first)) {
            let past = &model.sectors[&sector];
            assert!(past.may_be(value, past.answered), "sector {sector} reads {value}: {past:?}");
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        let (covered, snapshots) = {
            let model = self.model.lock().unwrap();
            (model.covered(), model.snapshots.keys().copied().collect::<Vec<_>>())
        };
        self.device.io(&Request::flush()).await?;
        let mut model = self.model.lock().unwrap();
        model.flushed(covered);
        model.snapshots_flushed(&snapshots);
        Ok(())
    }

    /// Now and then something with snapshots.
    async fn layers(&mut self) -> Result<(), Error> {
        let (count, any, is_deep) = {
            let model = self.model.lock().unwrap();
            let any = self.random.below(model.snapshots.len().max(1) as u64) as usize;
            let any = model.snapshots.keys().nth(any).copied();
            (model.snapshots.len(), any, model.doomed.len() > DOOMED_MAX)
        };
        let done = match (self.random.below(14), any) {
            (0, _) if count < SNAPSHOTS_MAX => self.snapshot().await,
            (1, Some(layer)) => self.look_at(layer).await,
            (2, Some(layer)) => {
                let mut model = self.model.lock().unwrap();
                let snapshot = model.snapshots.remove(&layer);
                model.going.extend(snapshot.map(|it| (layer, it)));
                model.doomed.push(layer);
                Ok(())
            }
            (3..8, Some(layer)) if !is_deep => self.roll_back(layer).await,
            (8.., _) => self.fold().await,
            _ => Ok(()),
        };
        match done {
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            done => done,
        }
    }

    /// Slabs go to and fro between the disks, and copies that have missed something are brought up
    /// to date, until the LU is closed.
    async fn move_slabs(mut self) {
        loop {
            self.core.sleep(Duration::from_micros(self.random.below(MOVES_APART_US))).await;
            if let Ok(Mended { lacking, .. }) = self.lu.mend(1).await {
                self.model.lock().unwrap().mended += u64::from(lacking > 0);
            }
            let (number, from) = (self.random.below(SLABS), self.random.below(2));
            let moved = self.lu.move_slab(number as u32, from as u32, None).await;
            self.model.lock().unwrap().moved += u64::from(moved.is_ok());
            if moved.is_err_and(|error| error.kind() == ErrorKind::Offline) {
                return;
            }
        }
    }

    /// Everything is good at every place at any time.
    async fn scrub(mut self) {
        let starts = [Cursor::Root, Cursor::Map { number: 0, layer: 0, extent: 0 }];
        let mut cursor = *self.random.pick(&starts);
        loop {
            self.core.sleep(Duration::from_micros(self.random.below(SCRUBS_APART_US))).await;
            match scrub_on(&self.lu, &self.model, cursor, &mut self.random).await {
                Ok(next) => cursor = next.unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Offline => return,
                Err(_) => self.heal().await,
            }
        }
    }

    /// One that has failed is written again some time.
    async fn heal(&mut self) {
        if self.lu.has_failed() && self.random.coin() {
            let is_healed = self.lu.reopen().await.is_ok();
            self.model.lock().unwrap().healed += u64::from(is_healed);
        }
    }

    /// Brings the LU from its source, a little at a time, until it is closed.
    async fn bring(mut self) {
        loop {
            self.core.sleep(Duration::from_micros(self.random.below(1_000))).await;
            match self.lu.bring(1 + self.random.below(40) as usize).await.0 {
                Ok(Brought::Done) => return self.model.lock().unwrap().is_whole = true,
                Err(error) if error.kind() == ErrorKind::Offline => return,
                Ok(Brought::Part { .. }) | Err(_) => self.model.lock().unwrap().brought += 1,
            }
        }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        let (top, since) = {
            let mut model = self.model.lock().unwrap();
            (model.next_layer(), model.sectors.clone())
        };
        let layer = self.lu.snapshot(top).await?;
        let mut model = self.model.lock().unwrap();
        let snapshot = model.snapshot_since(&since);
        model.snapshots.insert(layer, snapshot);
        Ok(())
    }

    /// Reads a snapshot, which is always the same.
    async fn look_at(&self, layer: LayerId) -> Result<(), Error> {
        // It may have been deleted meanwhile.
        let Ok(view) = self.lu.view(layer).await else { return Ok(()) };
        let read = read_all(&view.device(&self.core)).await?;
        let mut model = self.model.lock().unwrap();
        let Some(snapshot) = model.snapshots.get_mut(&layer) else { return Ok(()) };
        for (sector, value) in read {
            let past = snapshot.sectors.get_mut(&sector).unwrap();
            past.is_now(value, &format!("sector {sector} of a snapshot"));
        }
        Ok(())
    }

    /// What was deleted goes, a little at a time.
    async fn fold(&mut self) -> Result<(), Error> {
        let doomed = self.model.lock().unwrap().doomed.clone();
        let Some(&layer) = doomed.get(self.random.below(doomed.len().max(1) as u64) as usize)
        else {
            return Ok(());
        };
        let extents = 1 + self.random.below(5) as usize;
        if self.lu.fold(layer, extents).await? == Folded::Gone {
            let mut model = self.model.lock().unwrap();
            model.doomed.retain(|other| *other != layer);
            model.deleted += 1;
        }
        Ok(())
    }

    async fn roll_back(&mut self, layer: LayerId) -> Result<(), Error> {
        if std::mem::replace(&mut self.model.lock().unwrap().is_still, true) {
            return Ok(());
        }
        while !self.model.lock().unwrap().busy.is_empty() {
            self.core.sleep(Duration::from_micros(100)).await;
        }
        // So that it is known what it reads.
        let mut done = self.look_at(layer).await;
        if done.is_ok() {
            done = self.back_to(layer).await;
        }
        self.model.lock().unwrap().is_still = false;
        done
    }

    async fn back_to(&self, layer: LayerId) -> Result<(), Error> {
        let top = {
            let mut guard = self.model.lock().unwrap();
            let model = &mut *guard;
            let Some(snapshot) = model.snapshots.get(&layer) else { return Ok(()) };
            for (sector, past) in &mut model.sectors {
                let then = &snapshot.sectors[sector];
                past.values.push(then.values[then.answered]);
            }
            model.next_layer()
        };
        let left = self.lu.roll_back(layer, top).await?;
        let mut model = self.model.lock().unwrap();
        model.sectors.values_mut().for_each(|past| past.answered = past.values.len() - 1);
        model.doomed.push(left);
        model.rolled_back += 1;
        Ok(())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.model.lock().unwrap().users -= 1;
    }
}

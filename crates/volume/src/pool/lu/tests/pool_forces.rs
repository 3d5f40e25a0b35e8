//! Pools of which only failure groups are left that lack something, and that are forced: what was
//! used since counts, and what only the others have is there when they come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use model::limits::GROUPS_MAX;
use rt::sim::{Fault, Harm, On, Random};

use super::super::super::crash::{is_one_seed, seeds};
use super::super::super::home::{CopyHere, Found, Registry, Unforced};
use super::super::super::label::Label;
use super::super::super::places::numbers_of;
use super::super::super::survey::{Unsaid, survey};
use super::deaths::{another, open};
use super::groups::{
    LU_BYTES, PATHS, backings, catch_up, find, holds, is_refused, make, with_bare_disks,
    with_disks, write,
};
use super::splits::Kept;
use super::*;

/// An LU that only the group knows that is about to be away.
const ONLY: u8 = 4;
/// One of which not all slabs were brought to the other one.
const HALF: u8 = 6;
/// One that has missed something there.
const OLD: u8 = 8;
/// One that is removed without the first group.
const GONE: u8 = 10;
/// One that is made without it.
const NEW: u8 = 12;

fn id(lu: u8) -> [u8; 16] {
    [lu; 16]
}

/// The pool with everything that is there, or what there is without all of it.
async fn find_some(core: &Core, disks: &[usize]) -> Found {
    Pool::find_some(core, backings(core, disks).await).await.unwrap()
}

async fn opened(core: &Core, kept: &Kept, disks: &[usize]) -> Rc<Pool> {
    kept.open(find(core, disks).await.unwrap()).await
}

async fn close(pool: Rc<Pool>, lus: Vec<Arc<Lu>>) {
    for lu in lus {
        lu.close().await;
    }
    pool.close().await.unwrap();
}

pub(super) async fn force(
    core: &Core,
    kept: &Kept,
    here: &[usize],
    group: u16,
) -> Result<(), Unforced> {
    let found = find_some(core, here).await;
    let epoch = kept.forced_epoch(&found);
    found.force(group, epoch).await
}

/// A pool whose second group, which is `here`, lacks something of each kind.
async fn lag(core: &Core, kept: &Kept, away: usize) {
    let pool = opened(core, kept, &[0, 1]).await;
    let old = another(core, &pool, OLD).await;
    write(core, &old, 1).await;
    let gone = another(core, &pool, GONE).await;
    write(core, &gone, 1).await;
    close(pool, vec![old, gone]).await;

    let pool = opened(core, kept, &[away]).await;
    let mut lus = vec![open(core, &pool, LU).await, open(core, &pool, id(OLD)).await];
    for (lu, value) in lus.iter().zip([2, 2]) {
        write(core, lu, value).await;
    }
    for new in [ONLY, HALF] {
        let lu = another(core, &pool, new).await;
        write(core, &lu, new).await;
        // More slabs than one.
        let (device, data) = (lu.device(core), Buffer::from_bytes(&[9; 1 << 20]));
        for at in (0..6).map(|index| LU_BYTES / 2 + (index << 20)) {
            device.io(&Request::write(at, data.sgl())).await.unwrap();
        }
        device.io(&Request::flush()).await.unwrap();
        lus.push(lu);
    }
    close(pool, lus).await;

    let pool = opened(core, kept, &[0, 1]).await;
    let mut lus = Vec::new();
    for lu in [LU, id(GONE)] {
        let lu = open(core, &pool, lu).await;
        catch_up(&pool, &lu).await;
        lus.push(lu);
    }
    let half = open(core, &pool, id(HALF)).await;
    assert!(half.mend(1).await.unwrap().lacking > 1);
    lus.push(half);
    close(pool, lus).await;
    let here = 1 - away;
    is_refused(core, &[here]).await;
}

/// LU, and what it holds: None if it is not served here.
async fn is_there(core: &Core, pool: &Rc<Pool>, all: &[(u8, Option<u8>)]) -> Vec<Arc<Lu>> {
    let mut lus = Vec::new();
    for &(lu, value) in all {
        match (pool.seat(id(lu)), value) {
            (Ok(seat), Some(value)) => {
                let lu = Lu::open(core, seat).await.unwrap();
                holds(core, &lu, value).await;
                lus.push(lu);
            }
            (Err(LuError::Pool(PoolError::NoCopy(_) | PoolError::NoLu(_))), None) => {}
            (seat, _) => panic!("LU {lu} is not to hold {value:?}: {:?}", seat.map(drop)),
        }
    }
    lus
}

#[test]
fn what_is_here_of_a_pool_is_told_and_nothing_is_written() {
    for away in [0, 1] {
        with_disks(away as u64, move |core, _| async move {
            let (kept, here) = (Kept::of_age(0), 1 - away);
            lag(&core, &kept, away).await;
            for _ in 0..2 {
                let registry: Option<Rc<dyn Registry>> = Some(Rc::new(kept.clone()));
                let found = find_some(&core, &[here]).await;
                assert!(found.is_behind() && found.may_know_less());
                assert_eq!(found.whole_groups(), [here as u16]);
                let groups = found.groups(registry).await.unwrap();
                let [group] = &groups[..] else { panic!("{groups:?}") };
                let is = |lu: u8| group.lus.get(&id(lu)).copied();
                assert_eq!((group.group, is(LU[0])), (here as u16, Some(CopyHere::Whole)));
                assert_eq!((is(GONE), is(ONLY)), (Some(CopyHere::Whole), None));
                assert_eq!(is(OLD), Some(CopyHere::Stale));
                assert!(matches!(is(HALF), Some(CopyHere::Lacks(_))), "{groups:?}");
                says_what_lus_are(&core, here).await;
                is_refused(&core, &[here]).await;
            }
            let unknown = force(&core, &kept, &[here], 7).await;
            assert!(matches!(unknown, Err(Unforced::NoCopy(7))));
            let elsewhere = force(&core, &kept, &[here], away as u16).await;
            assert!(matches!(elsewhere, Err(Unforced::NoCopy(_))));
            // With all of its disks there is nothing to be forced.
            let all = force(&core, &kept, &[0, 1], here as u16).await;
            assert!(matches!(all, Err(Unforced::Current)));
            is_refused(&core, &[here]).await;
        });
    }
}

/// Whoever imports the pool knows of LUs what a copy says that has missed something.
async fn says_what_lus_are(core: &Core, here: usize) {
    let survey = survey(find_some(core, &[here]).await).await.unwrap();
    assert!(survey.old.is_empty() && survey.unfinished.is_empty());
    let is_outdated = |lu: u8| {
        let found = survey.lus.iter().find(|it| it.id == id(lu))?;
        Some(found.said.as_ref().map(|said| said.is_outdated))
    };
    assert!(matches!((is_outdated(LU[0]), is_outdated(GONE)), (Some(Ok(false)), Some(Ok(false)))));
    assert!(matches!(is_outdated(OLD), Some(Ok(true))));
    assert!(matches!(is_outdated(HALF), Some(Ok(true) | Err(Unsaid::Part(_)))));
    assert!(is_outdated(ONLY).is_none(), "nothing of it is here");
}

/// Neither group has everything yet; in the end each has all of these, and nobody speaks of a force
/// any more.
async fn catches_up(core: &Core, kept: &Kept, all: &[(u8, Option<u8>)]) {
    for alone in [0, 1] {
        is_refused(core, &[alone]).await;
    }
    for alone in [0, 1] {
        let pool = opened(core, kept, &[0, 1]).await;
        let lus = is_there(core, &pool, all).await;
        for lu in &lus {
            catch_up(&pool, lu).await;
        }
        close(pool, lus).await;
        let found = find(core, &[alone]).await.unwrap();
        assert!(found.labels().all(|label| (label.forced, label.forces) == (0, 1)));
        let pool = kept.open(found).await;
        let lus = is_there(core, &pool, all).await;
        close(pool, lus).await;
    }
}

/// What was used since counts; what was not is what it was on those that come back.
#[test]
fn disks_that_come_back_do_not_win_and_keep_what_only_they_have() {
    for away in [0, 1] {
        with_disks(10 + away as u64, move |core, _| async move {
            let (kept, here) = (Kept::of_age(0), 1 - away);
            lag(&core, &kept, away).await;
            force(&core, &kept, &[here], here as u16).await.unwrap();
            let pool = opened(&core, &kept, &[here]).await;
            assert!(pool.waits_for_others());
            let served = [(2, Some(2)), (GONE, Some(1)), (OLD, None), (HALF, None), (ONLY, None)];
            let lus = is_there(&core, &pool, &served).await;
            write(&core, &lus[0], 3).await;
            let new = another(&core, &pool, NEW).await;
            write(&core, &new, NEW).await;
            lus[1].close().await;
            let (first, rest) = (lus[0].clone(), lus);
            drop(rest);
            assert!(pool.may_be_elsewhere(id(GONE)) && !pool.may_be_elsewhere(id(NEW)));
            pool.revoke(id(GONE)).await.unwrap();
            pool.force(id(OLD), here as u16).await.unwrap();
            let unfit = pool.force(id(HALF), here as u16).await;
            assert!(matches!(unfit, Err(Unforced::Unfit { .. })), "{unfit:?}");
            close(pool, vec![first, new]).await;

            for (disks, is_less) in [(&[here][..], true), (&[0, 1], false)] {
                assert_eq!(find(&core, disks).await.unwrap().may_know_less(), is_less);
            }
            // It is opened again without a word.
            let pool = opened(&core, &kept, &[here]).await;
            let served = [(2, Some(3)), (OLD, Some(1)), (NEW, Some(NEW)), (HALF, None)];
            let lus = is_there(&core, &pool, &served).await;
            write(&core, &lus[1], 5).await;
            close(pool, lus).await;

            let pool = opened(&core, &kept, &[0, 1]).await;
            assert!(!pool.waits_for_others());
            assert_eq!(pool.stale_groups(LU), [away as u16]);
            // Who has removed it does so again.
            pool.revoke(id(GONE)).await.unwrap();
            let all = [
                (2, Some(3)),
                (OLD, Some(5)),
                (NEW, Some(NEW)),
                (HALF, Some(HALF)),
                (ONLY, Some(ONLY)),
                (GONE, None),
            ];
            let lus = is_there(&core, &pool, &all).await;
            close(pool, lus).await;
            catches_up(&core, &kept, &all).await;
            // And what is removed from now on without one of them is removed.
            let pool = opened(&core, &kept, &[here]).await;
            pool.revoke(id(ONLY)).await.unwrap();
            close(pool, vec![]).await;
            let pool = opened(&core, &kept, &[0, 1]).await;
            assert_eq!(pool.granted(id(ONLY)), None);
            close(pool, vec![]).await;
        });
    }
}

/// Nothing is lost that way.
#[test]
fn disks_that_come_back_before_anything_was_used_have_everything() {
    for (away, is_opened) in [(0, false), (0, true), (1, false), (1, true)] {
        with_disks(20 + away as u64, move |core, _| async move {
            let (kept, here) = (Kept::of_age(0), 1 - away);
            lag(&core, &kept, away).await;
            force(&core, &kept, &[here], here as u16).await.unwrap();
            if is_opened {
                let pool = opened(&core, &kept, &[here]).await;
                close(pool, vec![]).await;
            }
            let found = find(&core, &[0, 1]).await.unwrap();
            assert_eq!(found.old_copies().count(), 0);
            let pool = kept.open(found).await;
            let all = [(2, 2), (GONE, 1), (OLD, 2), (HALF, HALF), (ONLY, ONLY)];
            let all = all.map(|(lu, value)| (lu, Some(value)));
            let lus = is_there(&core, &pool, &all).await;
            close(pool, lus).await;
            is_refused(&core, &[here]).await;
        });
    }
}

/// Who imports the disks knows nothing of what others have done since.
#[test]
fn who_was_used_elsewhere_meanwhile_does_not_win_either() {
    for away in [0, 1] {
        with_disks(30 + away as u64, move |core, _| async move {
            let (kept, here) = (Kept::of_age(0), 1 - away);
            lag(&core, &kept, away).await;
            // It goes on alone some more, and this is not known here.
            for value in 5..9 {
                let pool = opened(&core, &kept, &[away]).await;
                let lu = open(&core, &pool, LU).await;
                write(&core, &lu, value).await;
                close(pool, vec![lu]).await;
            }
            let other = Kept::of_age(0);
            force(&core, &other, &[here], here as u16).await.unwrap();
            let pool = opened(&core, &other, &[here]).await;
            let lus = is_there(&core, &pool, &[(2, Some(2)), (OLD, None), (ONLY, None)]).await;
            write(&core, &lus[0], 3).await;
            pool.force(id(OLD), here as u16).await.unwrap();
            close(pool, lus).await;
            let pool = opened(&core, &other, &[0, 1]).await;
            let all = [(2, Some(3)), (OLD, Some(1)), (ONLY, Some(ONLY))];
            let lus = is_there(&core, &pool, &all).await;
            close(pool, lus).await;
        });
    }
}

/// Two disks in each group; one of those that were away is back before the other.
#[test]
fn a_part_of_what_was_away_is_not_enough() {
    const ALL: [&str; 4] = ["/dev/a", "/dev/b", "/dev/c", "/dev/d"];
    for (seed, comes) in [(40, 0), (41, 1)] {
        with_bare_disks(seed, move |core, _| async move {
            let kept = Kept::of_age(0);
            let on = async |disks: &[usize]| {
                let mut all = Vec::new();
                for disk in disks {
                    all.push(backing(&core, Path::new(ALL[*disk]), true).await);
                }
                all
            };
            let find = async |disks: &[usize]| Pool::find(&core, on(disks).await).await;
            let mut disks = Vec::new();
            for (disk, backing) in on(&[0, 1, 2]).await.into_iter().enumerate() {
                let group = u16::from(disk == 2);
                disks.push(NewDisk { backing, pv: [disk as u8 + 7; 16], group });
            }
            let pool = Pool::format(&core, new_pool(), disks).await.unwrap();
            let lu = another(&core, &pool, LU[0]).await;
            write(&core, &lu, 1).await;
            close(pool, vec![lu]).await;
            let pool = kept.open(find(&[0, 1]).await.unwrap()).await;
            let only = another(&core, &pool, ONLY).await;
            write(&core, &only, ONLY).await;
            close(pool, vec![only]).await;
            let pool = kept.open(find(&[0, 1, 2]).await.unwrap()).await;
            close(pool, vec![]).await;

            for here in [&[2][..], &[comes, 2]] {
                assert!(matches!(find(here).await, Err(PoolError::Behind { .. })));
                let found = Pool::find_some(&core, on(here).await).await.unwrap();
                assert_eq!(found.whole_groups(), [1]);
            }
            assert!(matches!(find(&[0]).await, Err(PoolError::Missing { .. })));
            let found = Pool::find_some(&core, on(&[comes, 2]).await).await.unwrap();
            let epoch = kept.forced_epoch(&found);
            assert!(matches!(found.force(0, epoch).await, Err(Unforced::NotHere(0))));
            let found = Pool::find_some(&core, on(&[2]).await).await.unwrap();
            let epoch = kept.forced_epoch(&found);
            found.force(1, epoch).await.unwrap();
            for here in [&[2][..], &[comes, 2], &[2]] {
                let pool = kept.open(find(here).await.unwrap()).await;
                assert!(pool.waits_for_others());
                let none = is_there(&core, &pool, &[(ONLY, None)]).await;
                close(pool, none).await;
            }
            let pool = kept.open(find(&[0, 1, 2]).await.unwrap()).await;
            let lus = is_there(&core, &pool, &[(ONLY, Some(ONLY))]).await;
            catch_up(&pool, &lus[0]).await;
            close(pool, lus).await;
        });
    }
}

/// A pool of three groups: the first one has everything, the second one all of LU, and the third
/// one has missed something of each.
async fn lag_of_three(core: &Core, kept: &Kept) {
    let mut disks = Vec::new();
    for (group, backing) in (0..).zip(backings(core, &[0, 1, 2]).await) {
        disks.push(NewDisk { backing, pv: [group as u8 + 7; 16], group });
    }
    let pool = Pool::format(core, new_pool(), disks).await.unwrap();
    let all = vec![another(core, &pool, LU[0]).await, another(core, &pool, OLD).await];
    close(pool, all).await;
    let pool = opened(core, kept, &[0]).await;
    let all = vec![open(core, &pool, LU).await, open(core, &pool, id(OLD)).await];
    for lu in &all {
        write(core, lu, 2).await;
    }
    close(pool, all).await;
    let pool = opened(core, kept, &[0, 1]).await;
    let lu = open(core, &pool, LU).await;
    catch_up(&pool, &lu).await;
    write(core, &lu, 3).await;
    close(pool, vec![lu]).await;
}

#[test]
fn of_several_groups_that_lack_something_the_others_stay_behind() {
    with_bare_disks(50, |core, _| async move {
        let kept = Kept::of_age(0);
        lag_of_three(&core, &kept).await;
        // The third one has missed an opening: what it has may be anything.
        assert_eq!(find_some(&core, &[1, 2]).await.whole_groups(), [1]);
        let missed = force(&core, &kept, &[1, 2], 2).await;
        assert!(matches!(missed, Err(Unforced::NotHere(2))));
        let pool = opened(&core, &kept, &[0, 1, 2]).await;
        close(pool, vec![]).await;

        let registry: Option<Rc<dyn Registry>> = Some(Rc::new(kept.clone()));
        let groups = find_some(&core, &[1, 2]).await.groups(registry).await.unwrap();
        assert_eq!(groups.iter().map(|about| about.group).collect::<Vec<_>>(), [1, 2]);
        force(&core, &kept, &[1, 2], 1).await.unwrap();
        for value in [3, 4] {
            is_refused(&core, &[2]).await;
            let pool = opened(&core, &kept, &[1, 2]).await;
            assert_eq!(pool.stale_groups(LU), [2]);
            let lus = is_there(&core, &pool, &[(LU[0], Some(value)), (OLD, None)]).await;
            write(&core, &lus[0], 4).await;
            close(pool, lus).await;
        }
        let first = |pool: &Rc<Pool>, lu: u8| pool.granted(id(lu)).unwrap().first.unwrap();
        let pool = opened(&core, &kept, &[1, 2]).await;
        let new = another(&core, &pool, NEW).await;
        write(&core, &new, NEW).await;
        assert!(numbers_of(GROUPS_MAX as u16).contains(&first(&pool, NEW)));
        close(pool, vec![new]).await;
        // What nobody has used is what it was, also while some are away.
        let pool = opened(&core, &kept, &[0, 1]).await;
        let lus = is_there(&core, &pool, &[(LU[0], Some(4)), (OLD, Some(2))]).await;
        close(pool, lus).await;

        // That one is lost too, and others may have given numbers since.
        force(&core, &kept, &[2], 2).await.unwrap();
        let pool = opened(&core, &kept, &[2]).await;
        let served = [(LU[0], None), (OLD, None), (NEW, Some(NEW))];
        let mut lus = is_there(&core, &pool, &served).await;
        lus.push(another(&core, &pool, ONLY).await);
        write(&core, &lus[1], ONLY).await;
        assert!(numbers_of(GROUPS_MAX as u16 + 1).contains(&first(&pool, ONLY)));
        close(pool, lus).await;
        let pool = opened(&core, &kept, &[0, 1, 2]).await;
        let all = [(LU[0], 4), (OLD, 2), (NEW, NEW), (ONLY, ONLY)];
        let lus = is_there(&core, &pool, &all.map(|(lu, value)| (lu, Some(value)))).await;
        close(pool, lus).await;
    });
}

/// Ages of copies have grown elsewhere, and nobody here knows of that.
#[test]
fn who_has_gone_on_without_others_elsewhere_does_not_win() {
    with_bare_disks(51, |core, disks| async move {
        let (kept, other) = (Kept::of_age(0), Kept::of_age(0));
        lag_of_three(&core, &kept).await;
        let pool = opened(&core, &kept, &[0, 1, 2]).await;
        let lu = open(&core, &pool, LU).await;
        catch_up(&pool, &lu).await;
        close(pool, vec![lu]).await;
        is_refused(&core, &[1]).await;
        let pool = opened(&core, &kept, &[0, 2]).await;
        let lu = open(&core, &pool, LU).await;
        for value in [5, 6] {
            catch_up(&pool, &lu).await;
            // All of its slabs, and not what its table says of them.
            let fault = Fault::always(On::Write, Harm::Errno(5));
            disks[2].fault(Fault { range: 2 << 20..u64::MAX, ..fault });
            write(&core, &lu, value).await;
            disks[2].heal();
            assert!(pool.stale_groups(LU).contains(&2));
        }
        close(pool, vec![lu]).await;

        force(&core, &other, &[1], 1).await.unwrap();
        let pool = opened(&core, &other, &[1]).await;
        let lus = is_there(&core, &pool, &[(LU[0], Some(3)), (OLD, None)]).await;
        write(&core, &lus[0], 4).await;
        close(pool, lus).await;
        let pool = opened(&core, &other, &[0, 1, 2]).await;
        let lus = is_there(&core, &pool, &[(LU[0], Some(4)), (OLD, Some(2))]).await;
        close(pool, lus).await;
    });
}

/// What an LU is to hold.
#[derive(Clone, Debug, Default)]
struct Known {
    is_made: bool,
    value: u8,
    /// The highest one that was ever written.
    most: u8,
    /// About to be written, or written and not answered.
    pending: Option<u8>,
    /// It was about to be forced: then it is what it was at some time.
    may_be_old: bool,
}

/// What is known of the pool beside its disks.
#[derive(Default)]
struct Model {
    lus: BTreeMap<u8, Known>,
    /// Removed, by one who could not ask all disks.
    gone: BTreeSet<u8>,
    opened: u64,
    last: u8,
    /// Openings of a pool that was forced then, LUs that were, and those that nobody there knew.
    forces: u32,
    lu_forces: u32,
    unknown: u32,
    /// Pools that were cut short while they were being forced.
    cuts: u32,
    is_forcing: bool,
    is_done: bool,
}

/// What is at the beginning of an LU counts; the rest is so that it has several slabs.
async fn put(lu: &Arc<Lu>, core: &Core, value: u8) -> Result<(), block::Error> {
    let (device, data) = (lu.device(core), Buffer::from_bytes(&[value; 4096]));
    device.io(&Request::write(0, data.sgl())).await?;
    device.io(&Request::flush()).await.map(drop)
}

async fn value_of(lu: &Arc<Lu>, core: &Core) -> u8 {
    // A loss of power may leave a part of what was written, in whole sectors.
    let (device, into) = (lu.device(core), Buffer::zeroed(512));
    device.io(&Request::read(0, into.sgl())).await.unwrap();
    let bytes = into.to_vec();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

struct Life {
    core: Core,
    kept: Kept,
    model: Arc<Mutex<Model>>,
    here: Vec<usize>,
}

impl Life {
    fn model<T>(&self, f: impl FnOnce(&mut Model) -> T) -> T {
        f(&mut self.model.lock().unwrap())
    }

    /// None: it is not opened with what is here.
    async fn begin(&self, random: &mut Random) -> Option<Rc<Pool>> {
        let found = find_some(&self.core, &self.here).await;
        let least = self.model(|model| model.opened);
        let is_old = |label: &Label| label.epoch < least && !found.is_outdated(label);
        if found.labels().any(is_old) {
            return None;
        }
        // Who has them open has them alone.
        let is_behind = found.is_behind();
        drop(found);
        if is_behind {
            assert_eq!(self.here.len(), 1);
            if random.below(4) == 0 {
                return None;
            }
            self.model(|model| model.is_forcing = true);
            let forced = force(&self.core, &self.kept, &self.here, self.here[0] as u16);
            forced.await.unwrap();
            self.model(|model| (model.is_forcing, model.forces) = (false, model.forces + 1));
        }
        let pool = opened(&self.core, &self.kept, &self.here).await;
        self.model(|model| model.opened = pool.epoch());
        Some(pool)
    }

    /// Removes what was to be removed, and what was being made.
    async fn sweep(&self, pool: &Rc<Pool>) {
        let gone: Vec<u8> = self.model(|model| {
            let unmade = model.lus.extract_if(.., |_, known| !known.is_made);
            let unmade: Vec<u8> = unmade.map(|(lu, _)| lu).collect();
            model.gone.extend(unmade);
            model.gone.iter().copied().collect()
        });
        for lu in gone {
            let is_elsewhere = pool.may_be_elsewhere(id(lu));
            pool.revoke(id(lu)).await.unwrap();
            if !is_elsewhere {
                self.model(|model| model.gone.remove(&lu));
            }
        }
    }

    /// Opens it, if it is there, and looks whether it is what it was.
    async fn serve(&self, pool: &Rc<Pool>, lu: u8, random: &mut Random) -> Option<Arc<Lu>> {
        let is_all = self.here.len() == 2;
        let seat = match pool.seat(id(lu)) {
            Ok(seat) => seat,
            Err(LuError::Pool(PoolError::NoLu(_))) if !is_all => {
                self.model(|model| model.unknown += 1);
                return None;
            }
            Err(LuError::Pool(PoolError::NoCopy(_))) if !is_all => {
                if random.coin() {
                    return None;
                }
                self.known(lu, |known| known.may_be_old = true);
                match pool.force(id(lu), self.here[0] as u16).await {
                    Ok(()) => self.model(|model| model.lu_forces += 1),
                    Err(Unforced::Unfit { .. }) => {
                        self.known(lu, |known| known.may_be_old = false);
                        return None;
                    }
                    Err(error) => panic!("{error}"),
                }
                pool.seat(id(lu)).unwrap()
            }
            Err(error) => panic!("LU {lu} with {:?}: {error}", self.here),
        };
        let open = Lu::open(&self.core, seat).await.unwrap();
        let value = value_of(&open, &self.core).await;
        self.known(lu, |known| {
            let is_it = value == known.value || Some(value) == known.pending;
            assert!(is_it || known.may_be_old && value <= known.most, "{lu}: {value}, {known:?}");
            (known.value, known.pending, known.may_be_old) = (value, None, false);
        });
        Some(open)
    }

    fn known<T>(&self, lu: u8, f: impl FnOnce(&mut Known) -> T) -> T {
        self.model(|model| f(model.lus.get_mut(&lu).unwrap()))
    }

    /// Another value, higher than any of it before.
    async fn write(&self, lu: u8, open: &Arc<Lu>) {
        let next = self.known(lu, |known| {
            known.most = known.most.max(known.value) + 1;
            known.pending = Some(known.most);
            known.most
        });
        put(open, &self.core, next).await.unwrap();
        self.known(lu, |known| (known.value, known.pending) = (next, None));
    }

    async fn make(&self, pool: &Rc<Pool>) -> (u8, Arc<Lu>) {
        let lu = self.model(|model| {
            model.last += 2;
            model.lus.insert(model.last, Known::default());
            model.last
        });
        let open = another(&self.core, pool, lu).await;
        let (device, data) = (open.device(&self.core), Buffer::from_bytes(&[1; 1 << 20]));
        for at in 1..6 {
            device.io(&Request::write(at << 20, data.sgl())).await.unwrap();
        }
        put(&open, &self.core, 1).await.unwrap();
        self.known(lu, |known| (known.is_made, known.value) = (true, 1));
        (lu, open)
    }

    async fn go(self, mut random: Random, is_last: bool) {
        let Some(pool) = self.begin(&mut random).await else { return };
        self.sweep(&pool).await;
        let (all, mut open) = (self.model(|it| it.lus.clone()), BTreeMap::new());
        for lu in all.into_keys() {
            if let Some(lu_open) = self.serve(&pool, lu, &mut random).await {
                open.insert(lu, lu_open);
            }
        }
        for _ in 0..if is_last { 0 } else { 4 + random.below(12) } {
            let nth = random.below(open.len().max(1) as u64) as usize;
            let some = open.iter().nth(nth).map(|(lu, it)| (*lu, it.clone()));
            match (random.below(8), some) {
                (0 | 1, Some((lu, it))) if self.here.len() == 2 => {
                    let _ = it.mend(1 + random.below(3) as usize).await;
                    self.write(lu, &it).await;
                    pool.settle_groups().await.unwrap();
                }
                (2, Some((lu, it))) if open.len() > 3 => {
                    self.model(|model| {
                        model.lus.remove(&lu);
                        model.gone.insert(lu);
                    });
                    open.remove(&lu);
                    it.close().await;
                    drop(it);
                    self.sweep(&pool).await;
                }
                (3, _) | (_, None) if open.len() < 4 => open.extend([self.make(&pool).await]),
                (_, Some((lu, it))) => self.write(lu, &it).await,
                (_, None) => {}
            }
        }
        if is_last {
            for lu in open.values() {
                // A slab may be moving: what was open is made alike first.
                while !lu.mend(16).await.is_ok_and(|mended| mended.lacking == 0) {
                    self.core.sleep(Duration::from_millis(1)).await;
                }
            }
            pool.settle_groups().await.unwrap();
        }
        if is_last || random.coin() {
            close(pool, open.into_values().collect()).await;
        } else {
            self.core.sleep(Duration::from_secs(3600)).await;
        }
        self.model(|model| model.is_done = true);
    }
}

/// How often to look whether it is just being forced.
const LOOKS_APART_US: u64 = 100;

fn forced_world(seed: u64) -> [u32; 4] {
    let (world, mut random) = (World::new(seed, Options::swarm(seed)), Random::new(seed ^ 0xf0));
    let host = world.host("host");
    let all = attached(&world, &host, PATHS, DISK_BYTES);
    world.block_on(&host.core(), make).expect("it ends");
    let (kept, model) = (Kept::of_age(0), Arc::new(Mutex::new(Model::default())));
    let known = Known { is_made: true, value: 1, ..Known::default() };
    model.lock().unwrap().lus.insert(LU[0], known);
    model.lock().unwrap().last = 20;
    let live = |here: Vec<usize>, seed: u64, is_last: bool| {
        let (kept, model) = (kept.clone(), model.clone());
        model.lock().unwrap().is_done = false;
        host.core().remote().send(move |core| {
            let life = Life { core: core.clone(), kept, model, here };
            core.spawn(life.go(Random::new(seed), is_last));
        });
    };
    let mut first = 0;
    for round in 0..18 {
        // One is away, comes back, and then the other one is away.
        let here = match round % 3 {
            0 => {
                first = random.below(2) as usize;
                vec![first]
            }
            1 => vec![0, 1],
            _ => vec![1 - first],
        };
        live(here, seed << 8 | round, false);
        let longest = random.below(60_000) << random.below(7);
        let is_cut = random.below(4) == 0;
        for _ in 0..longest / LOOKS_APART_US {
            world.run_for(Duration::from_micros(LOOKS_APART_US));
            if is_cut && model.lock().unwrap().is_forcing {
                world.run_for(Duration::from_micros(random.below(2_000)));
                break;
            }
        }
        crash(&world, &host, &all, random.coin());
        let mut model = model.lock().unwrap();
        model.cuts += u32::from(std::mem::take(&mut model.is_forcing));
    }
    // All is there in the end, in each of them.
    for here in [vec![0, 1], vec![0], vec![0, 1], vec![1]] {
        live(here.clone(), seed, true);
        world.run_for(Duration::from_secs(600));
        let model = model.lock().unwrap();
        assert!(model.is_done, "with {here:?}");
        assert!(here.len() == 1 || model.gone.is_empty());
    }
    let model = model.lock().unwrap();
    [model.forces, model.lu_forces, model.unknown, model.cuts]
}

#[test]
fn a_pool_is_forced_again_and_again_under_a_load_over_crashes() {
    let mut all = [0; 4];
    for seed in seeds(8, &[]) {
        let counts = forced_world(seed);
        (0..4).for_each(|kind| all[kind] += counts[kind]);
    }
    println!("pools, LUs, unknown LUs and cuts: {all:?}");
    assert!(is_one_seed() || all.iter().all(|count| *count > 0), "{all:?}");
}

/// A disk is lost in use with the first slab of an LU, another one of its group is not, and it is
/// back: it says that the copy has everything, and some of that is as it was before.
#[test]
fn a_copy_of_two_times_is_not_taken_for_one_that_has_everything() {
    with_bare_disks(60, |core, disks| async move {
        let kept = Kept::of_age(0);
        let mut new = Vec::new();
        for (disk, backing) in backings(&core, &[0, 1, 2]).await.into_iter().enumerate() {
            new.push(NewDisk { backing, pv: [disk as u8 + 7; 16], group: u16::from(disk > 0) });
        }
        let pool = Pool::format(&core, new_pool(), new).await.unwrap();
        let lu = another(&core, &pool, LU[0]).await;
        write(&core, &lu, 1).await;
        close(pool, vec![lu]).await;
        let pool = opened(&core, &kept, &[0, 1, 2]).await;
        let lu = open(&core, &pool, LU).await;
        let granted = pool.granted(LU).unwrap();
        let disk_of = |slab: u32| {
            let copy = pool.shared.places.all(slab).find(|copy| copy.group == 1);
            copy.unwrap().home.disk
        };
        let lost = disk_of(granted.first.unwrap());
        assert!(granted.slabs.iter().any(|slab| disk_of(*slab) != lost));
        disks[lost as usize].fault(Fault::always(On::Write, Harm::Errno(5)));
        for number in 100.. {
            if !pool.lost().is_empty() {
                break;
            }
            pool.grant(id(number), 1, false).await.unwrap();
        }
        write(&core, &lu, 2).await;
        disks[lost as usize].heal();
        pool.rejoin(lost).await.unwrap();
        close(pool, vec![lu]).await;
        for _ in 0..2 {
            is_refused(&core, &[1, 2]).await;
            let pool = opened(&core, &kept, &[0, 1, 2]).await;
            assert_eq!(pool.stale_groups(LU), [1]);
            let lus = is_there(&core, &pool, &[(LU[0], Some(2))]).await;
            close(pool, lus).await;
        }
        let groups = find_some(&core, &[1, 2]).await.groups(None).await.unwrap();
        assert_eq!(groups[0].lus[&LU], CopyHere::Stale);
    });
}

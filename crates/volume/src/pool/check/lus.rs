//! The LUs of a pool: each is read as it would be opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::home::{Granted, Pool};
use super::super::inspect::uuid;
use super::super::journal::Spot;
use super::super::lu::{Left, LuError, Whence, read_heads, read_left};
use super::super::owner::{LayerId, Layers, Owner, Unopened};
use super::super::page::Page;
use super::super::root::{About, Base, Site};
use super::{Of, Progress, Report, Severity};

/// What was learned of an LU, for those that stand on it.
pub(super) struct Known {
    /// Its frozen layers.
    frozen: Vec<LayerId>,
}

type All = BTreeMap<[u8; 16], Option<Known>>;

/// Checks every LU that has slabs, and then what clones stand on.
pub(super) async fn check(pool: &Pool, report: &mut Report, mut told: impl FnMut(Progress)) {
    let all = pool.lus();
    let bytes = |lu: &Granted| lu.slabs.len() as u64 * pool.shape().slab_bytes();
    let mut progress = Progress { bytes: 0, of: all.values().map(bytes).sum() };
    let (mut known, mut clones) = (All::new(), Vec::new());
    told(progress);
    for (id, granted) in all {
        let done = bytes(&granted);
        report.counts.lus += 1;
        let seen = check_lu(pool, (id, granted), report).await;
        let seen = seen.map(|(about, known)| {
            clones.extend(about.base.map(|base| (id, about.name, base)));
            known
        });
        known.insert(id, seen);
        progress.bytes += done;
        told(progress);
    }
    for (id, name, base) in clones {
        if let Some(what) = baseless(&known, base) {
            report.add(Severity::Damaged, Of::Lu { id, name: Some(name) }, what);
        }
    }
}

/// What is wrong with what a clone stands on.
fn baseless(known: &All, Base { lu, layer }: Base) -> Option<String> {
    let (lu_name, layer_name) = (uuid(lu), uuid(layer));
    match known.get(&lu) {
        None => Some(format!("it is a clone of a snapshot of LU {lu_name}, which is not here")),
        // That LU's own finding says why.
        Some(None) => Some(format!(
            "it is a clone of a snapshot of LU {lu_name}, which cannot be read either"
        )),
        Some(Some(known)) => (!known.frozen.contains(&layer)).then(|| {
            format!("it is a clone of layer {layer_name} of LU {lu_name}, which has no such layer")
        }),
    }
}

pub(super) async fn check_lu(
    pool: &Pool,
    (id, granted): ([u8; 16], Granted),
    report: &mut Report,
) -> Option<(About, Known)> {
    let slabs = &granted.slabs;
    let Some(first_slab) = granted.first else {
        let what = format!(
            "{} slabs are its, none of them its first: it was being made or removed, and they go \
             back to the pool",
            slabs.len()
        );
        report.add(Severity::Mended, Of::Lu { id, name: None }, what);
        return None;
    };
    let site = pool.site(id, first_slab);
    let mut found = Vec::new();
    let left = async {
        pool.must_have_copy(id, &granted)?;
        let (disks, epoch) = (pool.disks()?, pool.tenure(id)?.epoch);
        found.extend(check_heads(&read_heads(&disks, &site).await?, &site));
        let flawed = |why: Unopened| {
            found.push((Severity::Damaged, named(pool, slabs, why)));
            Ok(())
        };
        let memory = &Arc::default();
        read_left(&disks, Whence { site, epoch, slabs, all: true, memory }, flawed).await
    };
    let left: Result<Left, LuError> = left.await;
    let name = left.as_ref().ok().map(|left| left.owner.about().name.clone());
    let of = || Of::Lu { id, name: name.clone() };
    found.into_iter().for_each(|(severity, what)| report.add(severity, of(), what));
    let Left { mut owner, map_pages, records, torn, .. } = match left {
        Ok(left) => left,
        Err(error) => {
            report.add(Severity::Damaged, of(), error);
            return None;
        }
    };
    if let Some(page) = torn {
        let what = format!(
            "page {page}, the last one of its journal, is not whole: a crash came while it was \
             written, or it has rotted; what the LU was told last may be gone"
        );
        report.add(Severity::Mended, of(), what);
    }
    let unnamed = owner.unnamed_extents();
    if unnamed > 0 {
        let what = format!("its root says that {unnamed} extents are used which no map names");
        report.add(Severity::Damaged, of(), what);
    }
    let space = owner.space();
    report.counts.extents_used += space.extents() - space.free_extents();
    report.counts.map_pages += map_pages as u64;
    report.counts.records += records as u64;
    report.counts.layers += owner.layers().count() as u64;
    Some((owner.about().clone(), Known { frozen: frozen(&owner) }))
}

fn frozen(owner: &Owner) -> Vec<LayerId> {
    let layers: &Layers = owner.layers();
    let is_frozen = |number| layers.frozen(number).is_some();
    layers.ids().filter(|(number, _)| is_frozen(*number)).map(|(_, id)| id).collect()
}

/// What is wrong with a head while the other one counts; where none does, the root cannot be read.
fn check_heads(heads: &[Page], site: &Site) -> Option<(Severity, String)> {
    let heads = [&heads[0], &heads[1]];
    site.newest(heads).ok()?;
    let which = site.torn(heads)?;
    let what = format!(
        "head {which} of its root is not whole; the other one is, and what came since that was \
         written is in the journal"
    );
    Some((Severity::Mended, what))
}

/// A flaw with the name of what has it.
fn named(pool: &Pool, slabs: &[u32], why: Unopened) -> String {
    let Unopened::Place(place) = why else { return why.to_string() };
    let (slab, extent, shape) = (place.slab, place.extent, pool.shape());
    let block = u64::from(extent).checked_mul(shape.blocks_per_extent());
    let block = block.and_then(|block| u32::try_from(block).ok());
    let at = block.filter(|_| slabs.contains(&slab));
    let at = at.and_then(|block| pool.whereabouts(Spot { slab, block }));
    match at.filter(|_| u64::from(extent) < shape.extents_per_slab()) {
        Some((disk, offset)) => {
            format!("extent {extent} of slab {slab} ({disk} at byte {offset}) is named twice")
        }
        None => format!("its map names extent {extent} of slab {slab}, which is not its"),
    }
}

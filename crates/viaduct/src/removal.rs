//! `snapshot rm --wait`: looks at pools until nothing is left of snapshots that were removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::medium::Progress;
use model::pool::Removal;
use model::status::LuView;
use model::{ApiError, PoolName, PoolView, Size, SnapshotRef};

use crate::client::Client;
use crate::commands::Done;
use crate::progress::Bar;

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What waits for so long waits for something that does not end by itself.
const STUCK: Duration = Duration::from_secs(10);

/// Waits until nothing is left of them, and shows how far that is. Who hangs up ends nothing.
pub fn wait_for(node: &Client, snapshots: &[SnapshotRef]) -> Done {
    let pools = pools_of(node, snapshots)?;
    let (bar, mut far, mut waited) = (Bar::new()?, Far::default(), Duration::ZERO);
    loop {
        let mut left: Vec<Removal> = Vec::new();
        for pool in &pools {
            let view: PoolView = node.get(&format!("/v1/pools/{pool}"))?;
            left.extend(view.removals);
        }
        left.retain(|removal| snapshots.iter().any(|snapshot| is_of(removal, snapshot)));
        waited = match left.iter().all(|removal| removal.waits) {
            true => waited + LOOK_AGAIN,
            false => Duration::ZERO,
        };
        if left.is_empty() || waited >= STUCK {
            bar.finish();
            left.iter().for_each(tell_of_stuck);
            return Ok(());
        }
        bar.draw("removing", far.progress(&left));
        node::world::sleep(LOOK_AGAIN);
    }
}

fn pools_of(node: &Client, snapshots: &[SnapshotRef]) -> Result<BTreeSet<PoolName>, ApiError> {
    let mut pools = BTreeSet::new();
    for lu in snapshots.iter().map(|snapshot| &snapshot.lu).collect::<BTreeSet<_>>() {
        let view: LuView = node.get(&format!("/v1/lus/{lu}"))?;
        pools.extend(view.lu.backing.pool().cloned());
    }
    Ok(pools)
}

fn is_of(removal: &Removal, snapshot: &SnapshotRef) -> bool {
    removal.lu == snapshot.lu && removal.snapshot.as_ref() == Some(&snapshot.snapshot)
}

fn tell_of_stuck(removal: &Removal) {
    let name = removal.snapshot.as_ref().map_or("", |name| name.as_str());
    eprintln!(
        "note: {}@{name} goes when nothing uses it any more and its pool has room; viaduct pool \
         show says what is left",
        removal.lu
    );
}

/// What there was to remove, as far as it became known.
#[derive(Default)]
struct Far(BTreeMap<String, u64>);

impl Far {
    fn progress(&mut self, left: &[Removal]) -> Progress {
        let known = left.iter().filter_map(|removal| {
            let key = format!("{}@{:?}", removal.lu, removal.snapshot);
            Some((key, removal.size?.bytes()))
        });
        self.0.extend(known);
        let of = self.0.values().sum();
        let left: u64 = left.iter().filter_map(|removal| removal.left).map(Size::bytes).sum();
        Progress { bytes: u64::saturating_sub(of, left), of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(name: &str, sizes: Option<(u64, u64)>) -> Removal {
        let (size, left) = sizes.map(|(size, left)| (Size(size), Size(left))).unzip();
        let (lu, snapshot) = ("web".parse().unwrap(), name.parse().ok());
        Removal { lu, snapshot, size, left, waits: false }
    }

    #[test]
    fn what_is_gone_counts_as_done() {
        let mut far = Far::default();
        let mut at = |left: &[Removal]| {
            let Progress { bytes, of } = far.progress(left);
            (bytes, of)
        };
        assert_eq!(at(&[removal("a", None), removal("b", None)]), (0, 0));
        assert_eq!(at(&[removal("a", Some((10, 6))), removal("b", Some((5, 5)))]), (4, 15));
        assert_eq!(at(&[removal("b", Some((5, 1)))]), (14, 15));
        assert_eq!(at(&[]), (15, 15));
    }

    #[test]
    fn only_what_was_removed_is_waited_for() {
        let snapshot: SnapshotRef = "web@a".parse().unwrap();
        assert!(is_of(&removal("a", None), &snapshot));
        assert!(!is_of(&removal("b", None), &snapshot) && !is_of(&removal("", None), &snapshot));
    }
}

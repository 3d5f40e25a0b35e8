//! The verbs of snapshots and clones.

use model::snapshot::{SnapshotRollback, SnapshotView};
use model::status::LuView;
use model::{CloneCreate, SnapshotCreate, SnapshotRef};
use node::api::routes::Removed;

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::Done;
use crate::output::{show, table};
use crate::removal;
use crate::tables::{joined, or_none, rounded};

pub fn snapshot(node: &Client, command: args::Snapshot, format: Format) -> Done {
    match command {
        args::Snapshot::Create { snapshots } => {
            let request = SnapshotCreate { snapshots };
            let views: Vec<SnapshotView> = node.post("/v1/snapshots", &request)?;
            show(format, &views, |views| {
                let line = |view: &SnapshotView| {
                    format!("snapshot {}@{} taken\n", view.lu, view.snapshot.name)
                };
                views.iter().map(line).collect()
            })
        }
        args::Snapshot::Ls { lu } => {
            let of = lu.map(|lu| format!("?lu={lu}")).unwrap_or_default();
            let views: Vec<SnapshotView> = node.get(&format!("/v1/snapshots{of}"))?;
            show(format, &views, |views| snapshots_table(views))
        }
        args::Snapshot::Rm { snapshots, wait } => {
            let remove = |snapshot: &SnapshotRef| node.delete(&path(snapshot));
            let removed: Vec<Removed> = snapshots.iter().map(remove).collect::<Result<_, _>>()?;
            if wait {
                removal::wait_for(node, &snapshots)?;
            }
            let line = |snapshot: &SnapshotRef| format!("snapshot {snapshot} removed\n");
            show(format, &removed, |_| snapshots.iter().map(line).collect())
        }
        args::Snapshot::Rollback { snapshot, force } => {
            let request = SnapshotRollback { force };
            let view: LuView = node.post(&format!("{}/rollback", path(&snapshot)), &request)?;
            show(format, &view, |view| format!("LU {} is what {snapshot} is\n", view.lu.name))
        }
    }
}

pub fn clone(node: &Client, arguments: args::CloneCreate, format: Format) -> Done {
    let args::CloneCreate { snapshot, name, serial, shareable, thick, limits } = arguments;
    let limits = limits.limits();
    let request = CloneCreate { of: snapshot, name, serial, shareable, limits, thick };
    let view: LuView = node.post("/v1/clones", &request)?;
    show(format, &view, |view| {
        format!("LU {}: {}, a clone of {}\n", view.lu.name, rounded(view.lu.size), request.of)
    })
}

fn path(snapshot: &SnapshotRef) -> String {
    format!("/v1/snapshots/{}/{}", snapshot.lu, snapshot.snapshot)
}

fn snapshots_table(views: &[SnapshotView]) -> String {
    let row = |view: &SnapshotView| {
        [
            format!("{}@{}", view.lu, view.snapshot.name),
            rounded(view.snapshot.size),
            or_none(view.own.map(rounded)),
            view.snapshot.taken.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            joined(&view.clones),
        ]
    };
    let heading = ["NAME", "SIZE", "OWN", "TAKEN", "CLONES"];
    table(heading, &views.iter().map(row).collect::<Vec<_>>())
}

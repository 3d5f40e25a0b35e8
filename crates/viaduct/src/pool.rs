//! The verbs of pools, and how they are shown.

use model::pool::PoolDisk;
use model::{ApiError, PoolCreate, PoolView};
use node::api::routes::Removed;

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::{Done, absolute};
use crate::output::{list, show, table};
use crate::tables::{joined, or_none, problem, rounded};

pub fn pool(node: &Client, command: args::Pool, format: Format) -> Done {
    match command {
        args::Pool::Create(arguments) => create(node, arguments, format),
        args::Pool::Ls => {
            let views: Vec<PoolView> = node.get("/v1/pools")?;
            show(format, &views, |views| pools_table(views))
        }
        args::Pool::Show { name } => {
            let view: PoolView = node.get(&format!("/v1/pools/{name}"))?;
            show(format, &view, pool_list)
        }
        args::Pool::Rm { name } => {
            let removed: Removed = node.delete(&format!("/v1/pools/{name}"))?;
            show(format, &removed, |_| format!("pool {name} removed\n"))
        }
        args::Pool::Check(_) | args::Pool::Inspect(_) => {
            Err(ApiError::failed("this command asks no node"))
        }
    }
}

fn create(node: &Client, arguments: args::PoolCreate, format: Format) -> Done {
    let args::PoolCreate { name, pv, size, slab_size, extent_size, force } = arguments;
    let pvs = pv.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let request = PoolCreate { name, pvs, size, slab_size, extent_size, force };
    let view: PoolView = node.post("/v1/pools", &request)?;
    show(format, &view, |view| {
        let size = or_none(view.size.map(rounded));
        format!("pool {}: {size}, {}\n", view.pool.name, view.state)
    })
}

fn pools_table(views: &[PoolView]) -> String {
    let row = |view: &PoolView| {
        [
            view.pool.name.to_string(),
            or_none(view.size.map(rounded)),
            or_none(view.free.map(rounded)),
            rounded(view.promised),
            or_none(view.overcommit.map(|ratio| format!("{ratio:.2}"))),
            view.state.to_string(),
            view.lus.len().to_string(),
            view.disks.len().to_string(),
        ]
    };
    let heading = ["NAME", "SIZE", "FREE", "VIRTUAL", "RATIO", "STATE", "LUS", "DISKS"];
    table(heading, &views.iter().map(row).collect::<Vec<_>>())
}

fn pool_list(view: &PoolView) -> String {
    let pool = &view.pool;
    let mut pairs = vec![
        ("name", pool.name.to_string()),
        ("uuid", pool.uuid.to_string()),
        ("size", or_none(view.size.map(rounded))),
        ("free", or_none(view.free.map(rounded))),
        ("given to LUs", or_none(view.granted.map(rounded))),
        ("virtual", rounded(view.promised)),
        ("virtual to size", or_none(view.overcommit.map(|ratio| format!("{ratio:.2}")))),
        ("slab size", pool.slab_size.to_string()),
        ("extent size", pool.extent_size.to_string()),
        ("state", view.state.to_string()),
        ("LUs", joined(&view.lus)),
    ];
    pairs.extend(problem(view.problem.as_ref()));
    let mut text = list(&pairs);
    for disk in &view.disks {
        text.push('\n');
        text.push_str(&list(&disk_pairs(disk)));
    }
    text
}

fn disk_pairs(disk: &PoolDisk) -> Vec<(&'static str, String)> {
    vec![
        ("disk", disk.path.clone()),
        ("uuid", disk.uuid.to_string()),
        ("size", or_none(disk.size.map(rounded))),
        ("free", or_none(disk.free.map(rounded))),
    ]
}

//! The verbs of pools and of their disks, and how they are shown.

use std::path::Path;
use std::time::Duration;

use model::medium::Progress;
use model::pool::{Evacuation, GroupBehind, MemberState, PoolAlert, PoolDisk, Removal};
use model::{
    ApiError, PoolCreate, PoolName, PoolSettings, PoolSplit, PoolView, PvAdd, PvAt, PvGroup, Size,
};
use node::api::routes::Removed;
use uuid::Uuid;

use crate::args;
use crate::args::Format;
use crate::backup;
use crate::check;
use crate::client::Client;
use crate::commands::{Done, absolute};
use crate::force;
use crate::output::{list, show, table};
use crate::pool_import;
use crate::progress::Bar;
use crate::pv::encoded;
use crate::scrub;
use crate::tables::{joined, or_none, problem, rounded};

/// When to look again how far a disk is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

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
        args::Pool::Set(args::PoolSet { name, settings }) => {
            if settings.is_empty() {
                return Err(ApiError::usage(format!("say what pool '{name}' shall be given"))
                    .then(format!("viaduct pool set {name} --warn 85 --critical 95")));
            }
            let path = format!("/v1/pools/{name}/settings");
            let view: PoolView = node.patch(&path, &settings.change())?;
            show(format, &view, |view| list(&setting_pairs(view.pool.settings)))
        }
        args::Pool::Rm { name, force } => {
            let removed: Removed = node.delete(&format!("/v1/pools/{name}?force={force}"))?;
            show(format, &removed, |_| format!("pool {name} removed\n"))
        }
        args::Pool::Import(arguments) => pool_import::import(node, arguments, format),
        args::Pool::AddPv(arguments) => add_pv(node, arguments, format),
        args::Pool::RmPv(arguments) => rm_pv(node, arguments, format),
        args::Pool::ReplacePv(arguments) => replace_pv(node, arguments, format),
        args::Pool::Split { name, group, new } => split(node, &name, (group, new), format),
        args::Pool::Force { name, group, yes } => {
            force::force_pool(node, &name, (group, yes), format)
        }
        args::Pool::Scrub(arguments) => scrub::scrub(node, arguments, format),
        args::Pool::Check(arguments) => check::check_open(node, arguments, format),
        args::Pool::Backup(arguments) => backup::backup_open(node, arguments, format),
        args::Pool::Inspect(_) | args::Pool::Restore(_) => {
            Err(ApiError::failed("this command asks no node"))
        }
    }
}

fn create(node: &Client, arguments: args::PoolCreate, format: Format) -> Done {
    let args::PoolCreate { name, pv, size, slab_size, extent_size, checksums, force } = arguments;
    let pvs = pv.into_iter().map(absolute_at).collect::<Result<_, _>>()?;
    let request = PoolCreate { name, pvs, size, slab_size, extent_size, checksums, force };
    let view: PoolView = node.post("/v1/pools", &request)?;
    show(format, &view, |view| {
        let size = or_none(view.size.map(rounded));
        format!("pool {}: {size}, {}\n", view.pool.name, view.state)
    })
}

fn add_pv(node: &Client, arguments: args::PoolAddPv, format: Format) -> Done {
    let args::PoolAddPv { name, pv, size, force } = arguments;
    let pvs = pv.into_iter().map(absolute_at).collect::<Result<_, _>>()?;
    let request = PvAdd { pvs, size, force, replaces: None };
    let view: PoolView = node.post(&format!("/v1/pools/{name}/pvs"), &request)?;
    show(format, &view, pool_done)
}

fn rm_pv(node: &Client, arguments: args::PoolRmPv, format: Format) -> Done {
    let args::PoolRmPv { name, pv, cancel, no_wait } = arguments;
    let pv = named(&pv)?;
    let path = format!("/v1/pools/{name}/pvs?pv={}&cancel={cancel}", encoded(&pv));
    let view: PoolView = node.delete(&path)?;
    let disks = uuids(&view, |disk| is_it(disk, &pv));
    leaves(node, (view, &disks), cancel || no_wait, format)
}

fn replace_pv(node: &Client, arguments: args::PoolReplacePv, format: Format) -> Done {
    let args::PoolReplacePv { name, old, new, size, force, no_wait } = arguments;
    let old = named(&old)?;
    let pvs = new.into_iter().map(absolute_at).collect::<Result<_, _>>()?;
    let request = PvAdd { pvs, size, force, replaces: Some(old.clone()) };
    let view: PoolView = node.post(&format!("/v1/pools/{name}/pvs"), &request)?;
    let disks = uuids(&view, |disk| is_it(disk, &old));
    leaves(node, (view, &disks), no_wait, format)
}

fn split(
    node: &Client,
    name: &PoolName,
    (group, new): (String, Option<PoolName>),
    format: Format,
) -> Done {
    let path = format!("/v1/pools/{name}");
    let before: PoolView = node.get(&path)?;
    let number = before.pool.find_group(&group).map(|group| group.number);
    let is_its = |pv: Uuid| {
        before.pool.pvs.iter().any(|it| it.uuid == pv && Some(it.group.number) == number)
    };
    let disks = uuids(&before, |disk| is_its(disk.uuid));
    let view: PoolView = node.post(&format!("{path}/split"), &PoolSplit { group, name: new })?;
    // Their labels are taken off one by one.
    leaves(node, (view, &disks), false, format)
}

fn is_it(disk: &PoolDisk, named: &str) -> bool {
    disk.path == named || disk.uuid.to_string() == named
}

fn uuids(view: &PoolView, is_one: impl Fn(&PoolDisk) -> bool) -> Vec<Uuid> {
    view.disks.iter().filter(|disk| is_one(disk)).map(|disk| disk.uuid).collect()
}

/// Shows how far disks are that leave, until they have left.
fn leaves(
    node: &Client,
    (mut view, disks): (PoolView, &[Uuid]),
    is_enough: bool,
    format: Format,
) -> Done {
    let (name, bar, mut told) = (view.pool.name.clone(), Bar::new()?, None);
    let is_one = |it: &&PoolDisk| disks.contains(&it.uuid);
    while let Some(found) = view.disks.iter().find(is_one).filter(|_| !is_enough) {
        if found.state == MemberState::Member {
            let disk = &found.path;
            return Err(ApiError::conflict(format!("disk {disk} stays in pool '{name}'")));
        }
        if let Some(Evacuation { bytes, bytes_left, .. }) = found.evacuation {
            let moved = bytes.bytes() - bytes_left.bytes();
            bar.draw("moving", Progress { bytes: moved, of: bytes.bytes() });
        }
        // Once for each reason: the bar is drawn over what it says.
        if told != found.problem {
            told.clone_from(&found.problem);
            if let Some(problem) = &told {
                let next = problem.next.as_ref().map(|next| format!("\n  next: {next}"));
                bar.say(&format!("{}{}", problem.message, next.unwrap_or_default()));
            }
        }
        std::thread::sleep(LOOK_AGAIN);
        view = node.get(&format!("/v1/pools/{name}"))?;
    }
    bar.finish();
    show(format, &view, pool_done)
}

fn pool_done(view: &PoolView) -> String {
    let PoolView { pool, size, free, .. } = view;
    let [size, free] = [size, free].map(|it| or_none(it.map(rounded)));
    let is_leaving = |disk: &&PoolDisk| disk.state == MemberState::Leaving;
    let leaving: Vec<&str> =
        view.disks.iter().filter(is_leaving).map(|disk| disk.path.as_str()).collect();
    let leaving = match leaving[..] {
        [] => String::new(),
        _ => format!("; leaving: {}", leaving.join(", ")),
    };
    format!("pool {}: {size}, {free} free, {} disks{leaving}\n", pool.name, view.disks.len())
}

/// A disk by its UUID, or by an absolute path.
fn named(disk: &str) -> Result<String, ApiError> {
    match Uuid::parse_str(disk) {
        Ok(uuid) => Ok(uuid.to_string()),
        Err(_) => absolute(Path::new(disk)),
    }
}

/// The same with an absolute path.
pub fn absolute_at(PvAt { path, group }: PvAt) -> Result<PvAt, ApiError> {
    Ok(PvAt { path: absolute(Path::new(&path))?, group })
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
            alerts(view),
            view.lus.len().to_string(),
            view.disks.len().to_string(),
        ]
    };
    let heading = ["NAME", "SIZE", "FREE", "VIRTUAL", "RATIO", "STATE", "ALERTS", "LUS", "DISKS"];
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
        ("checksums", if pool.checksums { "yes" } else { "no" }.to_owned()),
        ("state", view.state.to_string()),
        ("alerts", alerts(view)),
        ("LUs", joined(&view.lus)),
    ];
    pairs.extend(setting_pairs(pool.settings));
    pairs.extend(view.behind.iter().map(|it| ("behind", behind(it))));
    pairs.extend(problem(view.problem.as_ref()));
    let disks = view.disks.iter().map(|disk| list(&disk_pairs(disk)));
    let removals = view.removals.iter().map(|removal| list(&removal_pairs(removal)));
    let scrub = view.scrub.iter().map(scrub::text);
    let parts = std::iter::once(list(&pairs)).chain(disks).chain(removals).chain(scrub);
    parts.collect::<Vec<_>>().join("\n")
}

fn behind(GroupBehind { number, name, left, percent }: &GroupBehind) -> String {
    let group = PvGroup { number: *number, name: name.clone() };
    format!("group {}, {percent} %, {} left", group.call(), rounded(*left))
}

fn alerts(view: &PoolView) -> String {
    match &view.alerts[..] {
        [] => "-".to_owned(),
        alerts => alerts.iter().map(PoolAlert::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn setting_pairs(settings: PoolSettings) -> Vec<(&'static str, String)> {
    let PoolSettings { warn_percent, critical_percent, overcommit_percent, .. } = settings;
    let used = |percent: u8| match percent {
        0 => "never".to_owned(),
        percent => format!("{percent} % used"),
    };
    let promised = match overcommit_percent {
        0 => "never".to_owned(),
        percent => format!("{}.{:02} times its size", percent / 100, percent % 100),
    };
    let rate = |rate: Size| match rate {
        Size::ZERO => "any".to_owned(),
        rate => format!("{rate} a second"),
    };
    vec![
        ("low at", used(warn_percent)),
        ("critical at", used(critical_percent)),
        ("overcommitted above", promised),
        ("removal rate", rate(settings.removal_rate)),
        ("scrub rate", rate(settings.scrub_rate)),
        ("move rate", rate(settings.move_rate)),
        ("catch-up rate", rate(settings.catch_up_rate)),
    ]
}

/// A snapshot that was removed, and what of it is left.
fn removal_pairs(removal: &Removal) -> Vec<(&'static str, String)> {
    let Removal { lu, snapshot, size, left, waits } = removal;
    let what = match snapshot {
        Some(snapshot) => format!("{lu}@{snapshot}"),
        None => format!("{lu}, before it went back to a snapshot"),
    };
    let state = if *waits { "waits until nothing uses it" } else { "is let go" };
    vec![
        ("removed", what),
        ("size", or_none(size.map(rounded))),
        ("left", or_none(left.map(rounded))),
        ("state", state.to_owned()),
    ]
}

fn disk_pairs(disk: &PoolDisk) -> Vec<(&'static str, String)> {
    let state = match disk.evacuation {
        Some(Evacuation { slabs_left, percent, .. }) => {
            format!("{}, {percent} %, {slabs_left} slabs left", disk.state)
        }
        None => disk.state.to_string(),
    };
    let mut pairs = vec![
        ("disk", disk.path.clone()),
        ("uuid", disk.uuid.to_string()),
        ("size", or_none(disk.size.map(rounded))),
        ("free", or_none(disk.free.map(rounded))),
        ("state", state),
    ];
    pairs.extend(disk.group.as_ref().map(|group| ("group", group.to_string())));
    pairs.extend(problem(disk.problem.as_ref()));
    pairs
}

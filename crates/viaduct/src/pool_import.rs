//! `pool import`: pools that are found on disks, and one that is taken over.

use std::fmt::Write;

use model::pool_import::{FoundDisk, FoundLu, FoundPool, PoolsFound, Unread};
use model::{ApiError, PoolForce, PoolImport, PoolImported, PoolRemains, PoolSearch};

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::{Done, absolute};
use crate::force::remains_text;
use crate::output::{counted, list, show, table};
use crate::pool::absolute_at;
use crate::tables::{joined, or_none, rounded};

pub fn import(node: &Client, arguments: args::PoolImport, format: Format) -> Done {
    let command = command(&arguments);
    let args::PoolImport { pool, pv, dir, name, prefix, without, force, group, yes } = arguments;
    let pvs = pv.into_iter().map(absolute_at).collect::<Result<_, ApiError>>()?;
    let dirs = dir.iter().map(|dir| absolute(dir)).collect::<Result<_, ApiError>>()?;
    let Some(pool) = pool else {
        let found: PoolsFound = node.post("/v1/pool-searches", &PoolSearch { pvs, dirs })?;
        return show(format, &found, all_found);
    };
    let force = force.then_some(PoolForce { group });
    let is_shown = force.is_some() && !yes;
    let request = PoolImport { pool, pvs, dirs, name, prefix, without, force };
    if is_shown {
        let remains: PoolRemains = node.post("/v1/pool-imports/remains", &request)?;
        return show(format, &remains, |remains| remains_text(remains, None, &command));
    }
    let imported: PoolImported = node.post("/v1/pool-imports", &request)?;
    show(format, &imported, done)
}

/// What was called, but for the group and for whether it is meant.
fn command(arguments: &args::PoolImport) -> String {
    let args::PoolImport { pool, pv, dir, name, prefix, without, .. } = arguments;
    let mut words: Vec<String> = vec!["viaduct pool import".to_owned()];
    words.extend(pool.clone());
    let mut add = |option: &str, value: String| words.push(format!("--{option} {value}"));
    pv.iter().for_each(|pv| add("pv", pv.to_string()));
    dir.iter().for_each(|dir| add("dir", dir.display().to_string()));
    name.iter().for_each(|name| add("as", name.to_string()));
    prefix.iter().for_each(|prefix| add("prefix", prefix.clone()));
    without.iter().for_each(|lu| add("without", lu.clone()));
    words.push("--force".to_owned());
    words.join(" ")
}

fn all_found(found: &PoolsFound) -> String {
    let mut text = match &found.pools[..] {
        [] => "no pool of another node was found\n".to_owned(),
        pools => table(HEADING, &pools.iter().map(row).collect::<Vec<_>>()),
    };
    for pool in &found.pools {
        text.push('\n');
        text.push_str(&details(pool));
    }
    for Unread { path, error } in &found.unread {
        let _ = writeln!(text, "\nnot looked at: {path}: {}", error.message);
    }
    text
}

const HEADING: [&str; 5] = ["NAME", "UUID", "DISKS", "LUS", "STATE"];

fn row(pool: &FoundPool) -> [String; 5] {
    let (here, wanted) = (pool.disks.len(), pool.disks_wanted);
    let is_known = !pool.lus.is_empty() || pool.problem.is_none();
    [
        pool.name.clone(),
        pool.uuid.to_string(),
        format!("{here} of {wanted}"),
        or_none(is_known.then_some(pool.lus.len())),
        if pool.problem.is_some() { "not importable" } else { "importable" }.to_owned(),
    ]
}

fn details(pool: &FoundPool) -> String {
    let mut pairs = vec![("pool", pool.name.clone())];
    let disk = |disk: &FoundDisk| ("disk", format!("{}, group {}", disk.path, disk.group));
    pairs.extend(pool.disks.iter().map(disk));
    let lu = |lu: &FoundLu| {
        let name = lu.name.clone().unwrap_or_else(|| lu.uuid.to_string());
        let snapshots = match lu.snapshots.len() {
            0 => String::new(),
            1 => ", 1 snapshot".to_owned(),
            count => format!(", {count} snapshots"),
        };
        let what = match &lu.problem {
            Some(problem) => problem.clone(),
            None if lu.outdated => "only a copy that has missed something".to_owned(),
            None => format!("{}{snapshots}", or_none(lu.size.map(rounded))),
        };
        ("LU", format!("{name}, {what}"))
    };
    pairs.extend(pool.lus.iter().map(lu));
    if let Some(problem) = &pool.problem {
        pairs.push(("problem", problem.message.clone()));
        pairs.extend(problem.next.iter().map(|next| ("next", next.clone())));
    }
    list(&pairs)
}

/// LUs that are named before it is said only how many there are.
const LUS_SHOWN: usize = 10;

/// What was taken over, and what the disks do not say.
fn done(imported: &PoolImported) -> String {
    let PoolImported { pool: view, lus, missing, without, outdated } = imported;
    let (name, size) = (&view.pool.name, or_none(view.size.map(rounded)));
    let mut text = format!("pool {name}: {size}, {}\n", view.state);
    let count = counted(lus.len(), "LU");
    let _ = match lus.len() <= LUS_SHOWN {
        true => writeln!(text, "{count}: {}", joined(lus)),
        false => writeln!(text, "{count}; viaduct lu ls lists them"),
    };
    if *missing > 0 {
        let _ = writeln!(
            text,
            "disks that are missing: {missing}; viaduct pool replace-pv {name} puts others in \
             their place"
        );
    }
    if !outdated.is_empty() {
        let _ = writeln!(
            text,
            "LUs that stay closed, because only a copy is here that has missed something: {}; \
             viaduct lu force NAME shows what would be lost with it",
            joined(outdated)
        );
    }
    if !without.is_empty() {
        let _ = writeln!(text, "LUs that are left where they are: {}", joined(without));
    }
    text.push_str(
        "Clients, mappings, limits, serials and settings are not on the disks.\n  next: viaduct \
         config restore FILE brings them back from what config save has written\n",
    );
    text
}

//! `lu force`: shows which copies of an LU there are and what would be lost, and does it when asked
//! to. `pool force`: the same of a pool that is not open.

use model::lu::{LuCopies, LuCopy, LuForce};
use model::pool::{GroupRemains, LuRemains, RemainsState};
use model::status::LuView;
use model::{LuName, PoolForce, PoolName, PoolRemains, PoolView, Size};

use crate::args::Format;
use crate::client::Client;
use crate::commands::Done;
use crate::output::{show, table};
use crate::tables::{self, rounded};

pub fn force(
    node: &Client,
    name: &LuName,
    (group, is_meant): (Option<String>, bool),
    format: Format,
) -> Done {
    if is_meant {
        let view: LuView = node.post(&format!("/v1/lus/{name}/force"), &LuForce { group })?;
        return show(format, &view, tables::lu_done);
    }
    let copies: LuCopies = node.get(&format!("/v1/lus/{name}/copies"))?;
    show(format, &copies, |copies| copies_text(copies, group.as_deref()))
}

fn copies_text(LuCopies { lu, copies }: &LuCopies, group: Option<&str>) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let missed = |copy: &LuCopy| match (copy.current, copy.missed) {
        (true, _) => "nothing".to_owned(),
        (false, Some(0) | None) => "unknown".to_owned(),
        (false, Some(1)) => "once".to_owned(),
        (false, Some(times)) => format!("{times} times"),
    };
    let row = |copy: &LuCopy| {
        let lacking = match copy.lacking {
            Size::ZERO => "-".to_owned(),
            lacking => format!("{} of {}", rounded(lacking), rounded(copy.size)),
        };
        [copy.group.clone(), yes(copy.complete), missed(copy), lacking]
    };
    let text = table(
        ["COPY IN GROUP", "ALL DISKS HERE", "HAS MISSED", "LACKS"],
        &copies.iter().map(row).collect::<Vec<_>>(),
    );
    let named = group.map_or_else(|| copies.first(), |it| copies.iter().find(|to| to.group == it));
    let end = match named {
        _ if copies.iter().any(|copy| copy.current) => {
            "nothing is to be forced: a copy has everything".to_owned()
        }
        Some(copy) => format!(
            "nothing was done. Without a copy that has everything the LU stays closed.\n\
             viaduct lu force {lu} --group {group} --yes takes the copy of group {group} for it:\n\
             - what was written while others went on without that copy is lost, in part or all\n\
             - what was being brought there lately may be newer than the rest\n\
             - a copy that has everything is not taken any more if it comes back",
            group = copy.group
        ),
        None => "no such copy is here".to_owned(),
    };
    format!("{text}\n{end}\n")
}

pub fn force_pool(
    node: &Client,
    name: &PoolName,
    (group, is_meant): (Option<String>, bool),
    format: Format,
) -> Done {
    if is_meant {
        let view: PoolView = node.post(&format!("/v1/pools/{name}/force"), &PoolForce { group })?;
        return show(format, &view, pool_done);
    }
    let remains: PoolRemains = node.get(&format!("/v1/pools/{name}/remains"))?;
    let command = format!("viaduct pool force {name}");
    show(format, &remains, |remains| remains_text(remains, group.as_deref(), &command))
}

fn pool_done(view: &PoolView) -> String {
    let name = &view.pool.name;
    format!("pool {name}: {}; viaduct lu ls shows which of its LUs are\n", view.state)
}

/// What is left of a pool, and with what it goes on if that is wanted: with this group or the first
/// one, by this command.
pub fn remains_text(
    PoolRemains { missing, groups, .. }: &PoolRemains,
    group: Option<&str>,
    command: &str,
) -> String {
    let row = |group: &GroupRemains, lu: &LuRemains| {
        let has = match (lu.state, lu.lacking) {
            (RemainsState::Whole, _) => "everything".to_owned(),
            (RemainsState::Stale, _) => "a copy that has missed something".to_owned(),
            (RemainsState::Lacking, None | Some(Size::ZERO)) => "not all of it".to_owned(),
            (RemainsState::Lacking, Some(lacking)) => {
                format!("not all of it, {} are missing", rounded(lacking))
            }
            (RemainsState::Unknown, _) => "nothing of it".to_owned(),
        };
        [group.group.clone(), lu.lu.clone(), has]
    };
    let rows = groups.iter().flat_map(|group| group.lus.iter().map(move |lu| row(group, lu)));
    let text = table(["GROUP", "LU", "HAS"], &rows.collect::<Vec<_>>());
    let missing = missing.join(", ");
    let named = group.map_or_else(|| groups.first(), |it| groups.iter().find(|to| to.group == it));
    let end = match named {
        Some(GroupRemains { group, .. }) => format!(
            "nothing was done. Without the disks that are missing the pool stays closed.\n\
             {command} --group {group} --yes goes on with group {group}:\n\
             - LUs of which it has everything are used; what others have of them does not count\n\
             - others stay closed until the missing disks are back, which keep them\n\
             - viaduct lu force NAME takes what is here of one of those"
        ),
        None => "no such group is here with all its disks".to_owned(),
    };
    format!("missing: {missing}\n\n{text}\n{end}\n")
}

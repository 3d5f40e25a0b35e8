//! `lu force`: shows which copies of an LU there are and what would be lost, and does it when asked
//! to.

use model::lu::{LuCopies, LuCopy, LuForce};
use model::status::LuView;
use model::{LuName, Size};

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

//! `pool check`, whether what lies on the disks of a pool is right, and `pool inspect`, what that
//! is. Of disks that no node has open they ask none.

use model::ApiError;
use model::check::{CheckFinding, CheckSeverity, Inspected, PoolCheck};
use node::offline::{self, Sight};
use uuid::Uuid;

use crate::args::{self, Format};
use crate::client::Client;
use crate::commands::Done;
use crate::output::{counted, list, show, table};
use crate::progress::Bar;
use crate::tables::or_none;

pub fn check(args::PoolCheck { paths }: args::PoolCheck, format: Format) -> Done {
    let bar = Bar::new()?;
    let checked = offline::check(paths, |progress| bar.draw("checking", progress));
    bar.finish();
    told(&checked?, format)
}

/// The same of a pool that a node has open, which looks by itself.
pub fn check_open(node: &Client, arguments: args::PoolCheck, format: Format) -> Done {
    let Some(name) = arguments.name() else {
        return Err(ApiError::usage("name one pool, or the disks of one"));
    };
    let checked: PoolCheck = node.post_patiently(&format!("/v1/pools/{name}/check"), &())?;
    told(&checked, format)
}

fn told(checked: &PoolCheck, format: Format) -> Done {
    show(format, checked, report)?;
    match damage(checked) {
        0 => Ok(()),
        count => Err(ApiError::failed(format!(
            "{} has {}",
            name(checked),
            counted(count, "damage")
        ))
        .then(
            "keep the disks as they are; viaduct pool restore brings back what a file of viaduct \
             pool backup has; the rest is restored from a backup of the data",
        )),
    }
}

pub fn inspect(args::PoolInspect { paths, at, lu }: args::PoolInspect, format: Format) -> Done {
    let sight = match (at, lu) {
        (_, Some(lu)) => Sight::Lu(lu),
        (Some(at), None) => Sight::At(at),
        (None, None) => Sight::Disk,
    };
    let seen = offline::inspect(paths, sight)?;
    show(format, &seen, |seen| sections(seen))
}

fn sections(seen: &[Inspected]) -> String {
    let section = |section: &Inspected| {
        let fields: Vec<(&str, String)> =
            section.fields.iter().map(|it| (&*it.name, it.value.clone())).collect();
        format!("{}\n{}", section.title, list(&fields))
    };
    seen.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn damage(checked: &PoolCheck) -> usize {
    let is_damage = |finding: &&CheckFinding| finding.severity == CheckSeverity::Damaged;
    checked.findings.iter().filter(is_damage).count()
}

/// What something is said of: a disk, an LU, or the pool.
pub fn of(disk: Option<&String>, lu: Option<Uuid>, lu_name: Option<&String>) -> String {
    let lu = lu.map(|uuid| match lu_name {
        Some(name) => format!("LU {name} ({uuid})"),
        None => format!("LU {uuid}"),
    });
    disk.cloned().or(lu).unwrap_or("pool".to_owned())
}

pub fn of_finding(finding: &CheckFinding) -> String {
    of(finding.disk.as_ref(), finding.lu, finding.lu_name.as_ref())
}

fn name(checked: &PoolCheck) -> String {
    checked.name.as_ref().map_or("the pool".to_owned(), |name| format!("pool '{name}'"))
}

fn report(checked: &PoolCheck) -> String {
    let counts = &checked.counts;
    let mut text = list(&[
        ("pool", or_none(checked.name.clone())),
        ("uuid", or_none(checked.uuid.map(|uuid| uuid.to_string()))),
        ("disks", counts.disks.to_string()),
        ("slabs", format!("{}, {} of them of LUs", counts.slabs, counts.slabs_granted)),
        ("LUs", counts.lus.to_string()),
        ("layers", counts.layers.to_string()),
        ("pages of maps", counts.map_pages.to_string()),
        ("extents in use", counts.extents_used.to_string()),
        ("journal records", counts.journal_records.to_string()),
        ("found", found(checked)),
    ]);
    if checked.findings.is_empty() {
        return text;
    }
    let row = |finding: &CheckFinding| {
        let severity = match finding.severity {
            CheckSeverity::Mended => "mended",
            CheckSeverity::Damaged => "damaged",
        };
        [severity.to_owned(), of_finding(finding), finding.what.clone()]
    };
    let rows: Vec<_> = checked.findings.iter().map(row).collect();
    text.push('\n');
    text.push_str(&table(["SEVERITY", "OF", "WHAT"], &rows));
    text
}

fn found(checked: &PoolCheck) -> String {
    let damage = damage(checked);
    let good = match checked.is_open {
        true => "written anew",
        false => "that opening the pool makes good",
    };
    match (damage, checked.findings.len() - damage) {
        (0, 0) => "nothing, it is clean".to_owned(),
        (0, mended) => format!("{mended} {good}"),
        (damage, 0) => format!("{damage} damaged"),
        (damage, mended) => format!("{damage} damaged, {mended} {good}"),
    }
}

//! `pool scrub`: reading all of a pool while it is used, and what that has come to.

use std::time::Duration;

use model::medium::Progress;
use model::scrub::{Scrub, ScrubFinding};
use model::{ApiError, PoolName, PoolSettingsChange, PoolView, Size};

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::Done;
use crate::output::{list, show, table};
use crate::progress::Bar;
use crate::tables::{or_none, rounded};

/// When to look again how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub fn scrub(node: &Client, arguments: args::PoolScrub, format: Format) -> Done {
    let args::PoolScrub { name, rate, cancel, no_wait } = arguments;
    let path = format!("/v1/pools/{name}/scrub");
    if cancel {
        let view: PoolView = node.delete(&path)?;
        return show(format, &view, |view| shown(&view.scrub));
    }
    if let Some(rate) = rate {
        let change = PoolSettingsChange { scrub_rate: Some(rate.0), ..Default::default() };
        let _: PoolView = node.patch(&format!("/v1/pools/{name}/settings"), &change)?;
    }
    let mut view: PoolView = node.post(&path, &())?;
    let bar = Bar::new()?;
    while let Some(scrub) = view.scrub.as_ref().filter(|scrub| scrub.is_running() && !no_wait) {
        let of = view.granted.map_or(0, Size::bytes);
        bar.draw("reading", Progress { bytes: of / 100 * u64::from(scrub.percent), of });
        std::thread::sleep(LOOK_AGAIN);
        view = node.get(&format!("/v1/pools/{name}"))?;
    }
    bar.finish();
    show(format, &view, |view| shown(&view.scrub))?;
    match view.scrub.filter(|scrub| !scrub.is_running() && scrub.is_bad()) {
        Some(scrub) => Err(bad(&name, &scrub)),
        None => Ok(()),
    }
}

fn bad(name: &PoolName, scrub: &Scrub) -> ApiError {
    let lost = scrub.differing + scrub.lost + scrub.metadata_damaged;
    match lost {
        0 => ApiError::failed(format!("not all of pool '{name}' could be read"))
            .then("viaduct status shows what is wrong; then scrub it again"),
        _ => ApiError::failed(format!("pool '{name}' is damaged: {}", scrub.sum()))
            .then("write what is named again, from a backup"),
    }
}

fn shown(scrub: &Option<Scrub>) -> String {
    scrub.as_ref().map_or_else(|| "it was never scrubbed\n".to_owned(), text)
}

/// How far it is, and what it has found.
pub fn text(scrub: &Scrub) -> String {
    let state = match scrub.is_running() {
        true => format!("{}, {} %", scrub.state, scrub.percent),
        false => scrub.state.to_string(),
    };
    let mut pairs = vec![
        ("scrub", state),
        ("began", scrub.began.to_string()),
        ("ended", or_none(scrub.ended.map(|ended| ended.to_string()))),
        ("read", rounded(scrub.read)),
        ("found", scrub.sum()),
    ];
    pairs.extend(scrub.left_out.iter().map(|what| ("left out", what.clone())));
    if scrub.more > 0 {
        pairs.push(("not listed", scrub.more.to_string()));
    }
    let mut text = list(&pairs);
    if !scrub.found.is_empty() {
        let rows: Vec<_> = scrub.found.iter().map(row).collect();
        text.push('\n');
        text.push_str(&table(["OUTCOME", "LU", "FROM", "SIZE", "DISKS", "WHAT"], &rows));
    }
    text
}

fn row(finding: &ScrubFinding) -> [String; 6] {
    let what = match (&finding.what, finding.snapshot) {
        (Some(what), _) => what.clone(),
        (None, Some(snapshot)) => format!("blocks of snapshot {snapshot}"),
        (None, None) => "blocks".to_owned(),
    };
    let disks = finding.disks.join(", ");
    [
        finding.outcome.to_string(),
        or_none(finding.lu.as_ref().map(ToString::to_string)),
        or_none(finding.offset.map(|offset| offset.to_string())),
        or_none(finding.size.map(rounded)),
        if disks.is_empty() { "-".to_owned() } else { disks },
        what,
    ]
}

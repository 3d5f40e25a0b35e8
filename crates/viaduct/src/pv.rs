//! The verbs of physical volumes, and how they are shown.

use model::{ApiError, PvView};

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::{Done, absolute};
use crate::output::{list, show, table};
use crate::tables::{or_none, rounded, yes};

pub fn pv(node: &Client, command: args::Pv, format: Format) -> Done {
    match command {
        args::Pv::Ls => {
            let views: Vec<PvView> = node.get("/v1/pvs")?;
            show(format, &views, |views| pvs_table(views))
        }
        args::Pv::Show { path } => {
            let path = absolute(&path)?;
            let views: Vec<PvView> = node.get(&format!("/v1/pvs?path={}", encoded(&path)))?;
            let view = views.into_iter().next();
            let view = view.ok_or_else(|| {
                ApiError::not_found(format!("{path} is no disk that could be used"))
                    .then("viaduct pv ls shows those that could")
            })?;
            show(format, &view, pv_list)
        }
    }
}

/// A path as a value in a query.
pub fn encoded(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let one = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.bytes().map(one).collect()
}

/// Several things in one cell.
fn together(items: &[String]) -> String {
    or_none((!items.is_empty()).then(|| items.join(", ")))
}

/// What of it matters most.
fn content(view: &PvView) -> String {
    let parts = view.used_by.iter().chain(&view.holds).cloned().collect::<Vec<_>>();
    match &view.problem {
        Some(problem) if parts.is_empty() => problem.clone(),
        _ => together(&parts),
    }
}

fn pvs_table(views: &[PvView]) -> String {
    let row = |view: &PvView| {
        [
            view.path.clone(),
            view.kind.to_string(),
            rounded(view.size),
            view.state.to_string(),
            or_none(view.wwid.as_ref().or(view.serial.as_ref())),
            content(view),
        ]
    };
    let heading = ["PATH", "KIND", "SIZE", "STATE", "IDENTITY", "CONTENT"];
    table(heading, &views.iter().map(row).collect::<Vec<_>>())
}

fn pv_list(view: &PvView) -> String {
    let mut pairs = vec![
        ("path", view.path.clone()),
        ("kind", view.kind.to_string()),
        ("size", view.size.to_string()),
        ("state", view.state.to_string()),
        ("wwid", or_none(view.wwid.as_ref())),
        ("serial", or_none(view.serial.as_ref())),
        ("model", or_none(view.model.as_ref())),
        ("by-id", together(&view.links)),
        ("read-only", yes(view.read_only)),
        ("removable", yes(view.removable)),
        ("holds", together(&view.holds)),
        ("used by", together(&view.used_by)),
    ];
    pairs.extend(view.problem.as_ref().map(|problem| ("problem", problem.clone())));
    list(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_into_queries() {
        assert_eq!(encoded("/dev/disk/by-id/a:b c&d"), "/dev/disk/by-id/a%3Ab%20c%26d");
    }
}

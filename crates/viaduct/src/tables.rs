//! The forms for people: which columns a listing has, which lines a thing.

use std::collections::BTreeSet;

use model::event::EventPage;
use model::lu::Forced;
use model::reservation::{Nexus, ReservationView, Reservations};
use model::status::{
    Brought, ClientView, Connection, IscsiSession, IscsiView, LuView, MappingView, NodeStatus,
    Problem, Session,
};
use model::{Event, Limits, Migration, Size};

use crate::output::{list, table};

/// What stands where there is nothing.
const NONE: &str = "-";

pub fn or_none(value: Option<impl ToString>) -> String {
    value.map_or(NONE.to_owned(), |value| value.to_string())
}

pub fn joined<T: ToString>(items: &[T]) -> String {
    match items {
        [] => NONE.to_owned(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

pub fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

pub fn lus(lus: &[LuView]) -> String {
    let row = |view: &LuView| {
        [
            view.lu.name.to_string(),
            view.lu.size.to_string(),
            if view.lu.thick {
                "pool, thick".to_owned()
            } else {
                view.lu.backing.kind().to_owned()
            },
            view.state.to_string(),
            or_none(view.allocated.map(rounded)),
            joined(&view.mapped_to),
        ]
    };
    let heading = ["NAME", "SIZE", "BACKING", "STATE", "USED", "MAPPED TO"];
    table(heading, &lus.iter().map(row).collect::<Vec<_>>())
}

/// A size that is only looked at: at most three digits.
pub fn rounded(size: Size) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = size.bytes() as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$}{}", UNITS[unit])
}

pub fn lu(view: &LuView) -> String {
    let lu = &view.lu;
    let mut pairs = vec![
        ("name", lu.name.to_string()),
        ("uuid", lu.uuid.to_string()),
        ("serial", lu.serial.clone()),
        ("size", lu.size.to_string()),
        ("used", or_none(view.allocated.map(rounded))),
        ("block size", lu.block_size.to_string()),
        ("cache", lu.cache.to_string()),
        ("shareable", yes(lu.shareable)),
        ("removable", yes(lu.removable)),
        ("read-only", yes(lu.read_only)),
        ("limits", limits(&lu.limits)),
        (
            "backing",
            lu.backing.pool().map_or(lu.backing.kind().to_owned(), |it| format!("pool {it}")),
        ),
        ("path", or_none(view.path.as_ref())),
        ("state", view.state.to_string()),
        ("mapped to", joined(&view.mapped_to)),
    ];
    pairs.extend(lu.migration.iter().flat_map(|it| migration(it, view.brought.as_ref())));
    pairs.extend(lu.forced.iter().map(|Forced { group, at }| {
        ("forced", format!("to what group {group} had, at {at}; what others had was lost"))
    }));
    pairs.extend(lu.thick.then(|| ("thick", yes(true))));
    pairs.extend(lu.origin.as_ref().map(|origin| ("clone of", origin.to_string())));
    if !lu.snapshots.is_empty() {
        let names: Vec<_> = lu.snapshots.iter().map(|snapshot| &snapshot.name).collect();
        pairs.push(("snapshots", joined(&names)));
    }
    pairs.extend(problem(view.problem.as_ref()));
    list(&pairs)
}

/// Where an LU comes from, and how far it is.
fn migration(it: &Migration, brought: Option<&Brought>) -> Vec<(&'static str, String)> {
    let Migration { pool, from, rate, .. } = it;
    let Some(from) = from else { return vec![("to be brought into", format!("pool {pool}"))] };
    let far = brought.map(|Brought { bytes, of, percent }| {
        format!(", {percent} %, {} of {} looked at", rounded(*bytes), rounded(*of))
    });
    let mut pairs = vec![("brought from", format!("{from}{}", far.unwrap_or_default()))];
    pairs.extend((*rate != Size::ZERO).then(|| ("brought at most", format!("{rate} a second"))));
    pairs
}

pub fn lu_migrated(view: &LuView) -> String {
    let LuView { lu, brought, .. } = view;
    match (&lu.migration, brought) {
        (None, _) => format!("LU {}: {}\n", lu.name, lu.backing),
        (Some(Migration { from: None, pool, .. }), _) => {
            format!("LU {}: {}, to be brought into pool {pool}\n", lu.name, lu.backing)
        }
        (Some(_), Some(Brought { percent, .. })) => {
            format!("LU {}: {}, {percent} % brought\n", lu.name, lu.backing)
        }
        (Some(_), None) => format!("LU {}: {}, being brought\n", lu.name, lu.backing),
    }
}

pub fn problem(problem: Option<&Problem>) -> Vec<(&'static str, String)> {
    let Some(problem) = problem else { return Vec::new() };
    let next = problem.next.as_ref().map(|next| ("next", next.clone()));
    [("problem", problem.message.clone())].into_iter().chain(next).collect()
}

pub fn clients(clients: &[ClientView]) -> String {
    let row = |view: &ClientView| {
        let lus: Vec<_> = view.mappings.iter().map(|mapping| &mapping.mapping.lu).collect();
        [
            view.client.name.to_string(),
            or_none(view.client.socket_owner.as_ref()),
            joined(&lus),
            sessions(view).to_string(),
        ]
    };
    let heading = ["NAME", "SOCKET OWNER", "LUS", "SESSIONS"];
    table(heading, &clients.iter().map(row).collect::<Vec<_>>())
}

/// An iSCSI session is with all LUNs at once, one of vhost-user with its adapter.
fn sessions(view: &ClientView) -> usize {
    let has_session =
        |view: &&MappingView| view.mapping.via.has_socket() && view.state.has_session();
    let running = view.mappings.iter().filter(has_session);
    let slots: BTreeSet<_> = running.map(|view| view.mapping.slot).collect();
    let iscsi = view.iscsi.as_ref().map_or(0, |iscsi| iscsi.sessions.len());
    iscsi + slots.len()
}

pub fn client(view: &ClientView) -> String {
    let client = &view.client;
    let mut pairs = vec![
        ("name", client.name.to_string()),
        ("socket owner", or_none(client.socket_owner.as_ref())),
        ("iSCSI names", joined(&client.iqns)),
        ("NVMe names", joined(&client.nqns)),
    ];
    pairs.extend(client.chap.as_ref().map(|chap| ("CHAP", chap.to_string())));
    let redirect = client.redirect.as_ref();
    pairs.extend(redirect.map(|redirect| ("logins are sent", redirect.to_string())));
    let mut text = list(&pairs);
    for pairs in view.iscsi.iter().flat_map(target_parts) {
        text.push('\n');
        text.push_str(&list(&pairs));
    }
    for mapping in &view.mappings {
        text.push('\n');
        text.push_str(&list(&mapping_pairs(mapping)));
    }
    text
}

/// The target of a client and the sessions with it.
fn target_parts(view: &IscsiView) -> Vec<Vec<(&'static str, String)>> {
    let target = vec![
        ("iSCSI target", view.target.clone()),
        ("slot", view.adapter.slot.to_string()),
        ("portals", joined(&view.portals)),
        ("sessions", view.sessions.len().to_string()),
    ];
    let sessions = view.sessions.iter().map(iscsi_session_pairs);
    [target].into_iter().chain(sessions).collect()
}

fn iscsi_session_pairs(session: &IscsiSession) -> Vec<(&'static str, String)> {
    let connections: Vec<String> = session
        .connections
        .iter()
        .map(|connection| format!("{} at {}", connection.peer, connection.portal))
        .collect();
    let mut pairs = vec![
        ("initiator", session.initiator.clone()),
        ("ISID", session.isid.clone()),
        ("TSIH", session.tsih.to_string()),
        ("from", if connections.is_empty() { NONE.to_owned() } else { connections.join(", ") }),
        ("since", session.since.to_string()),
    ];
    if !session.parameters.is_empty() {
        pairs.push(("parameters", joined(&session.parameters)));
    }
    if let Some(io) = &session.io {
        let (read, written) = (rounded(Size(io.bytes_read)), rounded(Size(io.bytes_written)));
        pairs.push(("commands", io.commands.to_string()));
        pairs.push(("read, written", format!("{read}, {written}")));
    }
    pairs
}

fn mapping_pairs(view: &MappingView) -> Vec<(&'static str, String)> {
    let mapping = &view.mapping;
    let mut pairs = vec![("slot", mapping.slot.to_string())];
    if mapping.via.luns() > 1 {
        pairs.push(("LUN", mapping.lun.to_string()));
    }
    pairs.extend([
        (if view.is_drive { "drive" } else { "LU" }, mapping.lu.to_string()),
        ("via", mapping.via.to_string()),
        ("access", access(mapping.read_only || view.is_drive)),
    ]);
    if mapping.via.has_socket() {
        pairs.push(("socket", or_none(view.socket.as_ref())));
    }
    pairs.push(("state", view.state.to_string()));
    if let Some(session) = &view.session {
        pairs.extend(session_pairs(session));
    }
    pairs.extend(problem(view.problem.as_ref()));
    pairs
}

fn session_pairs(session: &Session) -> Vec<(&'static str, String)> {
    vec![
        ("peer", session.peer_pid.map_or(NONE.to_owned(), |pid| format!("process {pid}"))),
        ("since", session.since.to_string()),
        ("queues running", session.queues_running.to_string()),
        ("memory regions", session.memory_regions.to_string()),
        ("inflight tracking", yes(session.inflight_tracking)),
        ("migrating", yes(session.logging)),
        ("features", joined(&session.features)),
    ]
}

fn access(read_only: bool) -> String {
    if read_only { "read-only" } else { "read-write" }.to_owned()
}

/// LUNs are shown where an adapter has some.
pub fn mappings(mappings: &[MappingView]) -> String {
    let have_luns = mappings.iter().any(|view| view.mapping.via.luns() > 1);
    let row = |view: &MappingView| {
        let mapping = &view.mapping;
        let lun = (mapping.via.luns() > 1).then_some(mapping.lun);
        [
            mapping.client.to_string(),
            mapping.slot.to_string(),
            or_none(lun),
            mapping.lu.to_string(),
            mapping.via.to_string(),
            access(mapping.read_only || view.is_drive),
            view.state.to_string(),
            or_none(view.socket.as_ref().or(view.target.as_ref())),
        ]
    };
    let rows: Vec<_> = mappings.iter().map(row).collect();
    if have_luns {
        let heading = ["CLIENT", "SLOT", "LUN", "LU", "VIA", "ACCESS", "STATE", "SOCKET OR TARGET"];
        return table(heading, &rows);
    }
    let without = |[client, slot, _, lu, via, access, state, place]: [String; 8]| {
        [client, slot, lu, via, access, state, place]
    };
    let heading = ["CLIENT", "SLOT", "LU", "VIA", "ACCESS", "STATE", "SOCKET"];
    table(heading, &rows.into_iter().map(without).collect::<Vec<_>>())
}

/// A line for who holds an LU and how, then one for each registrant.
pub fn reservations(views: &[ReservationView]) -> String {
    let rows: Vec<_> = views.iter().flat_map(reservation_rows).collect();
    table(["LU", "INITIATOR", "PORT", "KEY", "HOLDS"], &rows)
}

fn reservation_rows(view: &ReservationView) -> Vec<[String; 5]> {
    let ReservationView { lu, reservations } = view;
    let row = |nexus: &Nexus, key: String, holds: String| {
        [lu.to_string(), nexus.initiator.clone(), nexus.port.to_string(), key, holds]
    };
    let unit = reservations.unit_holder.iter();
    let unit = unit.map(|nexus| row(nexus, NONE.to_owned(), "the whole unit".to_owned()));
    let registrants = reservations.registrants.iter().map(|registrant| {
        let holds = held_by(reservations, &registrant.nexus);
        row(&registrant.nexus, registrant.key.to_string(), or_none(holds))
    });
    unit.chain(registrants).collect()
}

/// What a registrant holds.
fn held_by(reservations: &Reservations, nexus: &Nexus) -> Option<String> {
    let held = reservations.held.as_ref()?;
    let is_holder = held.holder.as_ref().is_none_or(|holder| holder == nexus);
    is_holder.then(|| held.kind.to_string())
}

pub fn reservations_cleared(view: &ReservationView) -> String {
    let ReservationView { lu, reservations } = view;
    if reservations.is_empty() {
        return format!("nothing is reserved of LU {lu}\n");
    }
    let held = reservations.held.as_ref().map(|held| format!("{}, ", held.kind));
    let (held, count) = (held.unwrap_or_default(), reservations.registrants.len());
    format!("reservations of LU {lu} cleared: {held}{count} registrants\n")
}

/// One line for what a command did.
pub fn lu_done(view: &LuView) -> String {
    let LuView { lu, state, .. } = view;
    format!("LU {}: {}, {}, {state}\n", lu.name, lu.size, lu.backing.kind())
}

pub fn lu_limited(view: &LuView) -> String {
    let LuView { lu, state, .. } = view;
    format!("LU {}: {}, {state}\n", lu.name, limits(&lu.limits))
}

/// What an LU is given at most, in words.
fn limits(limits: &Limits) -> String {
    let iops = limits.iops.map(|iops| format!("{iops} requests/s"));
    let bandwidth = limits.bandwidth.map(|bandwidth| format!("{bandwidth}/s"));
    let parts: Vec<String> = iops.into_iter().chain(bandwidth).collect();
    match parts[..] {
        [] => "none".to_owned(),
        _ => format!("{}, burst {} ms", parts.join(", "), limits.burst_ms()),
    }
}

pub fn client_done(view: &ClientView) -> String {
    format!("client {}\n", view.client.name)
}

pub fn client_names(view: &ClientView) -> String {
    format!("client {}: {}\n", view.client.name, joined(&view.client.iqns))
}

pub fn client_redirect(view: &ClientView) -> String {
    let redirect = view.client.redirect.as_ref();
    let sent = redirect.map_or("let in".to_owned(), |redirect| format!("sent {redirect}"));
    format!("client {}: logins are {sent}\n", view.client.name)
}

pub fn client_chap(view: &ClientView) -> String {
    let chap = view.client.chap.as_ref();
    let chap = chap.map_or("no CHAP".to_owned(), |chap| format!("CHAP, {chap}"));
    format!("client {}: {chap}\n", view.client.name)
}

pub fn mapping_done(view: &MappingView) -> String {
    let mapping = &view.mapping;
    let place = or_none(view.socket.as_ref().or(view.target.as_ref()));
    let lun = match mapping.via.luns() {
        1 => String::new(),
        _ => format!(" LUN {}", mapping.lun),
    };
    let kind = if view.is_drive { "drive" } else { "LU" };
    format!("{kind} {} at {}{lun}, {}: {place}\n", mapping.lu, mapping.adapter(), view.state)
}

pub fn connection(connection: &Connection) -> String {
    connection.text.clone()
}

pub fn status(status: &NodeStatus) -> String {
    let memory = status.map_memory;
    let mut text = list(&[
        ("node", status.node.to_string()),
        ("version", status.version.clone()),
        ("phase", status.phase.to_string()),
        ("process", status.pid.to_string()),
        ("up", duration(status.uptime_s)),
        ("data", status.data.clone()),
        ("http", status.http.clone().unwrap_or("off".to_owned())),
        ("iscsi", if status.iscsi.is_empty() { "off".to_owned() } else { joined(&status.iscsi) }),
        ("cores", status.cores.to_string()),
        ("map memory", format!("{} of {}", rounded(memory.used), memory.limit)),
        ("revision", status.revision.to_string()),
        ("pools", status.pools.to_string()),
        ("LUs", status.lus.to_string()),
        ("drives", status.drives.to_string()),
        ("clients", status.clients.to_string()),
        ("mappings", status.mappings.to_string()),
        ("sessions", status.sessions.to_string()),
        ("steps pending", status.steps_pending.to_string()),
        ("problems", status.problems.len().to_string()),
    ]);
    for problem in &status.problems {
        text.push_str(&format!("\n{}: {}\n", problem.subject, problem.message));
        if let Some(next) = &problem.next {
            text.push_str(&format!("  next: {next}\n"));
        }
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    match (days, hours, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

pub fn events(page: &EventPage) -> String {
    page.events.iter().map(event).collect()
}

pub fn event(event: &Event) -> String {
    let Event { id, time, severity, subject, message, next, .. } = event;
    let next = next.as_ref().map_or(String::new(), |next| format!("; next: {next}"));
    format!("{id} {time:.0} {severity:7} {subject}: {message}{next}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_that_are_only_looked_at() {
        let sizes = [0, 999, 1000, 1 << 20, 1500 << 20, 10 << 30, u64::MAX];
        let shown = sizes.map(|size| rounded(Size(size)));
        assert_eq!(shown, ["0B", "999B", "1.0KiB", "1.0MiB", "1.5GiB", "10.0GiB", "16.0EiB"]);
        let times = [0, 59, 61, 3600, 90_000].map(duration);
        assert_eq!(times, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }
}

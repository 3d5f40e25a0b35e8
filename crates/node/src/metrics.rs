//! `/metrics` in Prometheus' text form, written straight from the engine's counters.
//!
//! The counters already exist, one set for each device in memory of the core that counts them. A
//! metrics library would want to own them and to be called on the data path; the text itself is a
//! few lines.

use std::fmt::Write as _;

use model::pool::PoolAlert;
use model::stats::{DeviceStats, OpStats, latency_bound_ns};
use model::{PoolView, Scrub, Size};

use crate::view::{Picture, Published};

/// What the media type of the text is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// name, type, help
type Family = (&'static str, &'static str, &'static str);

/// A family with what it tells of one kind of request.
type Counter = (Family, fn(&OpStats) -> u64);

/// The same of a device.
type OfDevice = (Family, fn(&DeviceStats) -> f64);

const REQUESTS: Family = ("viaduct_lu_requests_total", "counter", "Requests answered, by kind.");
const BYTES: Family = ("viaduct_lu_bytes_total", "counter", "Bytes moved, by kind of request.");
const ERRORS: Family =
    ("viaduct_lu_errors_total", "counter", "Requests answered with an error, by kind.");
const INFLIGHT: Family =
    ("viaduct_lu_requests_inflight", "gauge", "Requests begun and not yet answered.");
const HELD: Family =
    ("viaduct_lu_held_total", "counter", "Requests that the LU's limits held back.");
const HELD_TIME: Family =
    ("viaduct_lu_held_seconds_total", "counter", "How long they were held back altogether.");
const LATENCY: Family = (
    "viaduct_lu_request_duration_seconds",
    "histogram",
    "Time from taking a request off its ring to its answer, by kind.",
);

const LET_GO: Family =
    ("viaduct_map_memory_let_go_bytes_total", "counter", "What of maps left memory to make room.");

const ALERT: Family =
    ("viaduct_pool_alert", "gauge", "Whether its space is low, critical, full or overcommitted.");

const BEHIND: Family = (
    "viaduct_pool_group_behind_bytes",
    "gauge",
    "What a failure group lacks of what others have, while it does.",
);

const SCRUBBED: Family =
    ("viaduct_pool_scrub_percent", "gauge", "How far the scrub is, or the last one came.");
const SCRUB_READ: Family =
    ("viaduct_pool_scrub_read_bytes", "gauge", "What the scrub has read, or the last one.");
const SCRUB_FOUND: Family = (
    "viaduct_pool_scrub_found",
    "gauge",
    "Blocks, and pieces of metadata, that the scrub has found not as they should be, or the last \
     one.",
);

/// The same of a pool; nothing while it is not open.
type OfPool = (Family, fn(&PoolView) -> Option<Size>);

/// The same of a scrub.
type OfScrub = (Family, fn(&Scrub) -> u64);

const POOLS: [OfPool; 3] = [
    (("viaduct_pool_bytes", "gauge", "What LUs can be given of a pool."), |pool| pool.size),
    (("viaduct_pool_free_bytes", "gauge", "What no LU has been given yet."), |pool| pool.free),
    (
        ("viaduct_pool_virtual_bytes", "gauge", "The sizes of its LUs, as clients see them."),
        |pool| Some(pool.promised),
    ),
];

/// The whole text.
pub fn text(version: &str, picture: &Picture<'_>, stats: &[DeviceStats]) -> String {
    let mut text = String::new();
    node(&mut text, version, picture);
    pools(&mut text, picture);
    family(&mut text, INFLIGHT);
    for device in stats {
        let _ = writeln!(text, "{}{{lu=\"{}\"}} {}", INFLIGHT.0, device.lu, device.inflight);
    }
    let held: [OfDevice; 2] =
        [(HELD, |of| of.held as f64), (HELD_TIME, |of| of.held_ns as f64 / 1e9)];
    for (wanted, value) in held {
        family(&mut text, wanted);
        for device in stats.iter().filter(|device| device.held > 0) {
            let _ = writeln!(text, "{}{{lu=\"{}\"}} {}", wanted.0, device.lu, value(device));
        }
    }
    let counters: [Counter; 3] =
        [(REQUESTS, |op| op.requests), (BYTES, |op| op.bytes), (ERRORS, |op| op.errors)];
    for (wanted, value) in counters {
        family(&mut text, wanted);
        for (device, op) in used(stats) {
            let (lu, label) = (&device.lu, op.op.label());
            let _ = writeln!(text, "{}{{lu=\"{lu}\",op=\"{label}\"}} {}", wanted.0, value(op));
        }
    }
    family(&mut text, LATENCY);
    for (device, op) in used(stats) {
        histogram(&mut text, device, op);
    }
    text
}

/// Kinds that a device never saw are left out: most devices see two or three.
fn used(stats: &[DeviceStats]) -> impl Iterator<Item = (&DeviceStats, &OpStats)> {
    let all = stats.iter().flat_map(|device| device.ops.iter().map(move |op| (device, op)));
    all.filter(|(_, op)| op.requests > 0)
}

fn node(text: &mut String, version: &str, picture: &Picture<'_>) {
    family(text, ("viaduct_info", "gauge", "The program that runs."));
    let _ = writeln!(text, "viaduct_info{{version=\"{version}\"}} 1");
    let published: &Published = picture.published;
    let memory = picture.snapshot.map_memory;
    let gauges: [(&str, &str, u64); 8] = [
        ("viaduct_lus", "LUs that are wanted.", published.config.lus.len() as u64),
        ("viaduct_lus_online", "LUs that are open and whose store works.", picture.lus_online()),
        ("viaduct_mappings", "Mappings that are wanted.", published.config.mappings.len() as u64),
        ("viaduct_sessions", "Sessions of clients with adapters.", picture.sessions()),
        ("viaduct_steps_pending", "Steps to the desired state.", published.steps_pending),
        ("viaduct_problems", "Things not as they should be.", picture.problems().len() as u64),
        ("viaduct_map_memory_bytes", "Memory used for maps of LUs.", memory.used.bytes()),
        ("viaduct_map_memory_limit_bytes", "What maps may use.", memory.limit.bytes()),
    ];
    for (name, help, value) in gauges {
        family(text, (name, "gauge", help));
        let _ = writeln!(text, "{name} {value}");
    }
    family(text, LET_GO);
    let _ = writeln!(text, "{} {}", LET_GO.0, memory.let_go.bytes());
}

fn pools(text: &mut String, picture: &Picture<'_>) {
    let views: Vec<PoolView> =
        picture.published.config.pools.iter().map(|pool| picture.pool(pool)).collect();
    for (wanted, value) in POOLS {
        family(text, wanted);
        for view in &views {
            if let Some(size) = value(view) {
                let (name, pool, bytes) = (wanted.0, &view.pool.name, size.bytes());
                let _ = writeln!(text, "{name}{{pool=\"{pool}\"}} {bytes}");
            }
        }
    }
    alerts(text, &views);
    family(text, BEHIND);
    for view in &views {
        for group in &view.behind {
            let (name, pool, number) = (BEHIND.0, &view.pool.name, group.number);
            let bytes = group.left.bytes();
            let _ = writeln!(text, "{name}{{pool=\"{pool}\",group=\"{number}\"}} {bytes}");
        }
    }
    scrubs(text, &views);
}

/// Of pools that were ever scrubbed.
fn scrubs(text: &mut String, views: &[PoolView]) {
    let all = || views.iter().filter_map(|view| Some((&view.pool.name, view.scrub.as_ref()?)));
    let gauges: [OfScrub; 2] =
        [(SCRUBBED, |it| it.percent.into()), (SCRUB_READ, |it| it.read.bytes())];
    for (wanted, value) in gauges {
        family(text, wanted);
        for (pool, scrub) in all() {
            let _ = writeln!(text, "{}{{pool=\"{pool}\"}} {}", wanted.0, value(scrub));
        }
    }
    family(text, SCRUB_FOUND);
    for (pool, scrub) in all() {
        let found = [
            ("mended", scrub.mended),
            ("differing", scrub.differing),
            ("lost", scrub.lost),
            ("metadata-mended", scrub.metadata_mended),
            ("metadata-damaged", scrub.metadata_damaged),
        ];
        for (what, count) in found {
            let name = SCRUB_FOUND.0;
            let _ = writeln!(text, "{name}{{pool=\"{pool}\",outcome=\"{what}\"}} {count}");
        }
    }
}

/// One line for each alert that there can be, so that a rule finds those that are not up too.
fn alerts(text: &mut String, views: &[PoolView]) {
    family(text, ALERT);
    for view in views {
        for kind in PoolAlert::ALL {
            let (name, pool, is_up) = (ALERT.0, &view.pool.name, view.alerts.contains(&kind));
            let _ = writeln!(text, "{name}{{pool=\"{pool}\",kind=\"{kind}\"}} {}", u8::from(is_up));
        }
    }
}

fn family(text: &mut String, (name, kind, help): (&str, &str, &str)) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn histogram(text: &mut String, device: &DeviceStats, op: &OpStats) {
    let labels = format!("lu=\"{}\",op=\"{}\"", device.lu, op.op.label());
    let name = LATENCY.0;
    let mut below = 0;
    for (bucket, count) in op.latency_counts.iter().enumerate() {
        below += count;
        let bound = match latency_bound_ns(bucket) {
            Some(bound) => (bound as f64 / 1e9).to_string(),
            None => "+Inf".to_owned(),
        };
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
    }
    let sum = op.latency_sum_ns as f64 / 1e9;
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {below}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::stats::OpKind;
    use model::status::MapMemory;

    use uuid::Uuid;

    use super::*;
    use crate::engine::{PoolStatus, PvUse, Snapshot};

    fn rendered() -> String {
        let mut read = OpStats::new(OpKind::Read);
        read.record(4096, 900, true);
        read.record(4096, 3_000_000, true);
        read.record(4096, u64::MAX, false);
        let ops = vec![read, OpStats::new(OpKind::Write)];
        let stats = [DeviceStats {
            lu: "web1".parse().unwrap(),
            inflight: 2,
            held: 3,
            held_ns: 1_500_000_000,
            ops,
        }];
        let (mut published, mut snapshot) = (Published::default(), Snapshot::default());
        let config: model::Config = serde_json::from_value(serde_json::json!({
            "version": 2,
            "pools": [{"name": "fast", "uuid": Uuid::nil(), "pvs": [
                {"uuid": Uuid::max(), "place": {"kind": "path", "path": "/dev/sdb"}},
            ]}],
            "lus": [{"name": "web1", "uuid": Uuid::max(), "size": "1GiB", "serial": "a",
                     "backing": {"kind": "pool", "pool": "fast"}}],
        }))
        .unwrap();
        published.config = config.into();
        published.pools.insert(Uuid::nil());
        snapshot.map_memory =
            MapMemory { used: Size(4096), limit: Size::mib(1), let_go: Size(8192) };
        let disk = PvUse { size: Size(4096), free: Size(512), used: Size(3584) };
        let disks = [(Uuid::max(), disk)].into();
        snapshot.pools.insert(Uuid::nil(), {
            let scrub = Scrub { percent: 30, lost: 2, ..Scrub::begin(jiff::Timestamp::UNIX_EPOCH) };
            PoolStatus { disks, scrub: Some(scrub), ..PoolStatus::default() }
        });
        let path = Path::new("/");
        let picture = Picture {
            published: &published,
            snapshot: &snapshot,
            lus: path,
            pools: path,
            run: path,
        };
        text("1.2.3", &picture, &stats)
    }

    #[test]
    fn counters_and_histograms_are_told() {
        let text = rendered();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        has("viaduct_info{version=\"1.2.3\"} 1");
        has("viaduct_map_memory_bytes 4096");
        has("viaduct_map_memory_limit_bytes 1048576");
        has("viaduct_map_memory_let_go_bytes_total 8192");
        has("viaduct_pool_bytes{pool=\"fast\"} 4096");
        has("viaduct_pool_free_bytes{pool=\"fast\"} 512");
        has("viaduct_pool_virtual_bytes{pool=\"fast\"} 1073741824");
        has("viaduct_pool_scrub_percent{pool=\"fast\"} 30");
        has("viaduct_pool_scrub_found{pool=\"fast\",outcome=\"lost\"} 2");
        has("viaduct_pool_alert{pool=\"fast\",kind=\"low\"} 1");
        has("viaduct_pool_alert{pool=\"fast\",kind=\"overcommitted\"} 0");
        has("viaduct_lu_requests_inflight{lu=\"web1\"} 2");
        has("viaduct_lu_held_total{lu=\"web1\"} 3");
        has("viaduct_lu_held_seconds_total{lu=\"web1\"} 1.5");
        has("viaduct_lu_requests_total{lu=\"web1\",op=\"read\"} 3");
        has("viaduct_lu_bytes_total{lu=\"web1\",op=\"read\"} 12288");
        has("viaduct_lu_errors_total{lu=\"web1\",op=\"read\"} 1");
        let bucket = "viaduct_lu_request_duration_seconds_bucket{lu=\"web1\",op=\"read\",le=";
        has(&format!("{bucket}\"0.000001024\"}} 1"));
        has(&format!("{bucket}\"0.002097152\"}} 1"));
        has(&format!("{bucket}\"0.004194304\"}} 2"));
        has(&format!("{bucket}\"+Inf\"}} 3"));
        has("viaduct_lu_request_duration_seconds_count{lu=\"web1\",op=\"read\"} 3");
        assert!(!text.contains("op=\"write\""));
    }

    #[test]
    fn every_sample_belongs_to_a_family_that_was_declared_once() {
        let text = rendered();
        let mut families = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(families.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let is_known = ["", "_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name.strip_suffix(end).is_some_and(|n| families.contains(n)));
                assert!(is_known, "{line}");
            }
        }
    }
}

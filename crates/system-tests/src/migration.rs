//! Live pre-copy migration of a guest from one QEMU to another, with several passes forced.
//!
//! One pass would prove little: what the server writes into guest memory between passes must be
//! marked and sent again. So the allowed downtime is first too short to ever finish, and is raised
//! when enough passes have been made. QEMU's word that it "completed" says nothing about the
//! guest's data: tests look at that from inside (see [`crate::verify`]).

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::{Guest, GuestBuilder};
use crate::{Context, Error, Result};

/// Passes that a migration makes before it may finish.
const PASSES_MIN: u64 = 5;
/// Never enough for a guest that writes.
const DOWNTIME_TOO_SHORT_MS: u64 = 1;
const DOWNTIME_ENOUGH_MS: u64 = 3000;
const BANDWIDTH_BYTES: u64 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How a migration went, as QEMU tells it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub passes: u64,
    pub downtime_ms: u64,
    pub total_ms: u64,
    pub sent_bytes: u64,
}

impl Guest {
    /// Moves the running guest into a new QEMU made by `to`; commands in the guest go on. Start no
    /// new command meanwhile. The guest must be writing to memory, or there is nothing to pass.
    pub fn migrate(mut self, to: &GuestBuilder) -> Result<(Self, Report)> {
        let address = format!("unix:{}", self.dir().join("migration.sock").display());
        let there = to.launch(Some(&address))?;
        self.limit_downtime(DOWNTIME_TOO_SHORT_MS)?;
        self.qmp("migrate", json!({ "uri": address }))?;
        let report = self.see_through().map_err(|error| self.with_tail(error))?;
        let stream = there.line.try_clone()?;
        let mut guest = Self::of(there, self.line.clone());
        guest.wait_running()?;
        self.line.continue_on(stream)?;
        self.quit()?;
        if report.passes < PASSES_MIN {
            let passes = report.passes;
            return Err(Error::new(format!("only {passes} passes: the guest writes too little")));
        }
        Ok((guest, report))
    }

    fn limit_downtime(&mut self, downtime_ms: u64) -> Result<()> {
        let limits = json!({ "downtime-limit": downtime_ms, "max-bandwidth": BANDWIDTH_BYTES });
        self.qmp("migrate-set-parameters", limits).map(drop)
    }

    /// Waits for the passes, then for the end.
    fn see_through(&mut self) -> Result<Report> {
        let deadline = Instant::now() + TIMEOUT;
        let mut may_finish = false;
        loop {
            let state = self.qmp("query-migrate", json!({}))?;
            let passes = number(&state, &["ram", "dirty-sync-count"]);
            match state["status"].as_str() {
                Some("completed") => return Ok(report(&state)),
                Some("failed" | "cancelled") => {
                    return Err(Error::new(format!("migration failed: {state}")));
                }
                _ if Instant::now() > deadline => {
                    return Err(Error::new(format!("migration takes over {TIMEOUT:?}: {state}")));
                }
                _ if passes >= PASSES_MIN && !may_finish => {
                    may_finish = true;
                    self.limit_downtime(DOWNTIME_ENOUGH_MS)?;
                }
                _ => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// The new QEMU lets the guest run by itself, a moment after the old one has said so.
    fn wait_running(&mut self) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let status = self.qmp("query-status", json!({}));
            let status = status.context(|| format!("arrival: {}", self.qemu_log()))?;
            if status["running"] == json!(true) {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Err(self.with_tail(Error::new("the guest does not run after its migration")))
    }
}

fn report(state: &Value) -> Report {
    Report {
        passes: number(state, &["ram", "dirty-sync-count"]),
        downtime_ms: number(state, &["downtime"]),
        total_ms: number(state, &["total-time"]),
        sent_bytes: number(state, &["ram", "transferred"]),
    }
}

fn number(state: &Value, path: &[&str]) -> u64 {
    path.iter().fold(state, |value, key| &value[*key]).as_u64().unwrap_or(0)
}

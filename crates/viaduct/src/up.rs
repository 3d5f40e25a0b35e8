//! `viaduct up`: a node in the foreground, until a signal asks it to stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::ApiError;
use node::run::Told;
use node::{Node, Options};

use crate::args::{Portal, Up};
use crate::notify::Notifier;
use crate::{commands, log};

/// After this long the node counts as ready even if a device is still being opened: a store that
/// hangs must not make systemd kill a node that serves everything else.
const READY_WAIT: Duration = Duration::from_secs(15);

/// How long control and data plane may take to give a sign of life.
const ALIVE_WAIT: Duration = Duration::from_secs(5);

/// How often to look around when nobody expects signs of life.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

pub fn up(data: Option<PathBuf>, arguments: Up) -> Result<(), ApiError> {
    log::begin(arguments.log, &arguments.log_level)?;
    let notifier = Notifier::from_environment();
    let options = Options {
        data: commands::data_directory(data)?,
        http: arguments.http.0,
        iscsi: Portal::addresses(&arguments.iscsi)?,
        cores: arguments.cores.0,
        map_memory: arguments.map_memory.0,
        default_pool: arguments.default_pool.0,
    };
    let poll = Duration::from_micros(arguments.poll_us.into());
    let node = Node::start_on_machine(options, poll)?;
    let signal = serve(&node, &notifier);
    tracing::info!(signal, "stopping");
    notifier.stopping();
    if node.stop() {
        tracing::info!("stopped");
        return Ok(());
    }
    Err(ApiError::failed(format!(
        "the node did not drain within {} s and was stopped without",
        node::run::STOP_WAIT.as_secs()
    ))
    .then("look at the stores named in the log; guests go on when the node is back"))
}

/// Runs until a signal; its name.
fn serve(node: &Node, notifier: &Notifier) -> &'static str {
    let started = Instant::now();
    // Twice as often as expected, as systemd asks for.
    let beat = notifier.watchdog().map(|expected| expected / 2);
    let mut is_ready = false;
    loop {
        let ready_in = READY_WAIT.saturating_sub(started.elapsed());
        let wait = beat.unwrap_or(IDLE_WAIT);
        match node.wait(if is_ready { wait } else { wait.min(ready_in) }) {
            Some(Told::Signal(name)) => return name,
            Some(Told::Running) => {}
            None if is_ready || started.elapsed() < READY_WAIT => {}
            None => tracing::warn!("ready, though some devices are still being opened"),
        }
        let is_running = node.phase() == model::status::Phase::Running;
        if !is_ready && (is_running || started.elapsed() >= READY_WAIT) {
            is_ready = true;
            let data = node.data().display();
            let http = node.http().map_or("off".to_owned(), |address| address.to_string());
            tracing::info!(%data, http, "ready");
            notifier.ready(&format!("serving {data}"));
        }
        if beat.is_some() {
            if node.is_alive(ALIVE_WAIT) {
                notifier.alive();
            } else {
                tracing::error!("no sign of life from control or data plane");
            }
        }
    }
}

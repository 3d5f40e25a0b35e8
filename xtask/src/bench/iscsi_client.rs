//! The initiators of the iSCSI benchmark: sessions of our own on one core, in a process of its own.
//!
//! Every session keeps `depth` reads under way; with `--probe` one more session keeps one, and its
//! latency is measured apart. It says `ready` when all are logged in, and runs when told to; with
//! depth 0 it only holds its sessions until its input ends.

use std::cell::{Cell, RefCell};
use std::io::BufRead;
use std::rc::Rc;
use std::time::Duration;

use block::{Buffer, Sgl};
use clap::Args;
use proto::iscsi::initiator::Config as Initiator;
use proto::iscsi::{DigestPolicy, SessionKind, Wishes};
use rt::net::Address;
use rt::{Config, Core};
use serde::{Deserialize, Serialize};
use store::iscsi::{Command, Session};
use wire::iscsi::attribute;
use wire::scsi::LogicalUnitNumber;

use crate::histogram::Histogram;
use crate::{Result, cpu, limits, procfs};

const BLOCK_BYTES: u64 = 512;
const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    address: String,
    #[arg(long)]
    target: String,
    #[arg(long)]
    initiator: String,
    #[arg(long, default_value_t = 0)]
    lun: u16,
    /// Bytes of the LU
    #[arg(long)]
    size: u64,
    #[arg(long, default_value_t = 1)]
    sessions: u16,
    #[arg(long, default_value_t = 1)]
    depth: u16,
    #[arg(long, default_value_t = 4096)]
    block: usize,
    #[arg(long)]
    digests: bool,
    #[arg(long)]
    probe: bool,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    #[arg(long)]
    cpu: usize,
    /// The process whose CPU time is measured
    #[arg(long)]
    server: u32,
}

/// What one run has measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub requests: u64,
    pub seconds: f64,
    pub server_cpu_s: f64,
    /// Of the probe, or of everything where there is none.
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Outcome {
    pub fn iops(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    limits::raise_open_files()?;
    cpu::pin(&[arguments.cpu])?;
    let done = Core::block_on(&Config::new("initiators"), |core| async move {
        serve(core, arguments).await.map_err(|error| error.to_string())
    });
    Ok(done??)
}

async fn serve(core: Core, arguments: Arguments) -> Result<()> {
    let mut sessions = Vec::new();
    for number in 0..arguments.sessions + u16::from(arguments.probe) {
        sessions.push(Rc::new(open(&core, &arguments, number).await?));
    }
    println!("ready");
    loop {
        // Sessions are kept alive meanwhile.
        let line = core.blocking(|| std::io::stdin().lock().lines().next()).await;
        match line.flatten().transpose()?.as_deref() {
            Some("go") => {
                let outcome = measure(&core, &arguments, &sessions).await?;
                println!("{}", serde_json::to_string(&outcome)?);
            }
            Some(other) => return Err(format!("no command {other:?}").into()),
            None => return Ok(()),
        }
    }
}

async fn open(core: &Core, arguments: &Arguments, number: u16) -> Result<Session> {
    let policy = if arguments.digests { DigestPolicy::Required } else { DigestPolicy::Never };
    let wishes = Wishes { header_digest: policy, data_digest: policy, ..Wishes::default() };
    let [high, low] = number.to_be_bytes();
    let config = Initiator {
        wishes,
        name: arguments.initiator.clone(),
        isid: [0x80, 0xbe, 0xcc, 0, high, low],
        kind: SessionKind::Normal { target: arguments.target.clone() },
        chap: None,
        commands: arguments.depth.max(1),
    };
    let address: Address = arguments.address.parse()?;
    let opened = Session::open(core, &address, config).await;
    Ok(opened.map_err(|lost| format!("session {number}: {lost}"))?)
}

/// What all readers share.
struct Run {
    core: Core,
    phase: Cell<u8>,
    latencies: RefCell<Histogram>,
    requests: Cell<u64>,
    failure: RefCell<Option<String>>,
    lun: [u8; 8],
    block: usize,
    blocks: u64,
}

async fn measure(core: &Core, arguments: &Arguments, sessions: &[Rc<Session>]) -> Result<Outcome> {
    let run = Rc::new(Run {
        core: core.clone(),
        phase: Cell::new(WARM_UP),
        latencies: RefCell::new(Histogram::new()),
        requests: Cell::new(0),
        failure: RefCell::default(),
        lun: LogicalUnitNumber::new(arguments.lun).0,
        block: arguments.block,
        blocks: arguments.size / arguments.block as u64,
    });
    let mut readers = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        let is_probe = arguments.probe && number + 1 == sessions.len();
        let depth = if is_probe { 1 } else { arguments.depth };
        let is_timed = is_probe || !arguments.probe;
        for _ in 0..depth {
            readers.push(core.spawn_task(read(run.clone(), session.clone(), is_timed)));
        }
    }
    core.sleep(Duration::from_secs_f64(arguments.warmup)).await;
    let (began, cpu_before) = (core.now(), procfs::cpu_ns(arguments.server)?);
    run.phase.set(MEASURE);
    core.sleep(Duration::from_secs_f64(arguments.seconds)).await;
    run.phase.set(STOP);
    let (seconds, cpu_after) =
        ((core.now() - began).as_secs_f64(), procfs::cpu_ns(arguments.server)?);
    for reader in readers {
        reader.await;
    }
    if let Some(failure) = run.failure.take() {
        return Err(failure.into());
    }
    let latencies = run.latencies.borrow();
    Ok(Outcome {
        requests: run.requests.get(),
        seconds,
        server_cpu_s: (cpu_after - cpu_before) as f64 / 1e9,
        p50_us: latencies.percentile(0.5) as f64 / 1e3,
        p99_us: latencies.percentile(0.99) as f64 / 1e3,
    })
}

/// Reads one block after the other, anywhere.
async fn read(run: Rc<Run>, session: Rc<Session>, is_timed: bool) {
    let memory = Buffer::zeroed(run.block);
    while run.phase.get() != STOP {
        let lba = run.core.random() % run.blocks * (run.block as u64 / BLOCK_BYTES);
        let mut cdb = [0; 16];
        cdb[0] = 0x88;
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&((run.block as u64 / BLOCK_BYTES) as u32).to_be_bytes());
        let (out, into) = (Sgl::empty(), memory.sgl());
        let command = Command { lun: run.lun, cdb: &cdb, attribute: attribute::SIMPLE, out, into };
        let began = run.core.now();
        match session.command(&command).await {
            Ok(answer) if answer.outcome.status == 0 => {}
            // What a new session is told first.
            Ok(answer) if run.phase.get() == WARM_UP && answer.sense.is_some() => continue,
            other => {
                run.failure.replace(Some(format!("a read: {other:?}")));
                return;
            }
        }
        if run.phase.get() == MEASURE {
            run.requests.set(run.requests.get() + 1);
            if is_timed {
                let taken = (run.core.now() - began).as_nanos() as u64;
                run.latencies.borrow_mut().count(taken);
            }
        }
    }
}

//! The initiators of the iSCSI benchmarks: sessions of our own on one core, in their own process.
//!
//! Every session keeps `depth` commands under way, or, when it is given a number of them, runs them
//! in whole batches. It says `ready` when all are logged in, and runs when told to; with depth 0 it
//! only holds its sessions until its input ends.

use std::cell::{Cell, RefCell};
use std::io::BufRead;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use block::{Buffer, Sgl};
use clap::Args;
use proto::iscsi::initiator::Config as Initiator;
use proto::iscsi::{DigestPolicy, SessionKind, Wishes};
use rt::net::Address;
use rt::os::config::Spin;
use rt::{Config, Core};
use store::iscsi::{self, Answer, Failure, Session};
use wire::iscsi::attribute;
use wire::scsi::LogicalUnitNumber;

use crate::client::{Mark, Outcome};
use crate::histogram::Histogram;
use crate::iscsi_servers::{INITIATOR, Portal};
use crate::servers::LoadSpec;
use crate::{Result, cpu, limits};

const BLOCK_BYTES: u64 = 512;
/// Bytes of one request when the LUN is filled.
const FILL_BYTES: usize = 256 << 10;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    address: String,
    #[arg(long)]
    target: String,
    #[arg(long, default_value = INITIATOR)]
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
    write: bool,
    #[arg(long)]
    digests: bool,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// So many requests by each session, in batches of `depth`, instead of a time
    #[arg(long)]
    requests: Option<u64>,
    /// Write everything once before `ready`
    #[arg(long)]
    fill: bool,
    /// CPUs, of which it needs one at a time
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The process whose CPU time is measured
    #[arg(long)]
    server: u32,
}

/// Puts a load on a portal; what else there is to say comes behind.
pub fn command(portal: &Portal, load: &LoadSpec) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["iscsi-client", "--address", &portal.address.to_string()]);
    command.args(["--target", &portal.target, "--lun", &portal.lun.to_string()]);
    command.args(["--size", &portal.size.to_string(), "--server", &portal.pid.to_string()]);
    command.args(["--sessions", &load.queues.to_string(), "--depth", &load.depth.to_string()]);
    command.args(["--block", &load.block.to_string()]);
    command.args(["--seconds", &load.seconds.to_string()]);
    command.args(["--warmup", &load.warmup.to_string()]);
    let cpus: Vec<String> = load.cpus.iter().map(usize::to_string).collect();
    command.args(["--cpus", &cpus.join(",")]);
    for (flag, given) in [("--write", load.write), ("--fill", load.fill)] {
        if given {
            command.arg(flag);
        }
    }
    if let Some(requests) = load.requests {
        command.args(["--requests", &requests.to_string()]);
    }
    Ok(command)
}

pub fn run(arguments: Arguments) -> Result<()> {
    limits::raise_open_files()?;
    cpu::pin(&arguments.cpus)?;
    let mut config = Config::new("initiators");
    if arguments.depth == 1 {
        // One that looks all the time leaves nothing to whom it shares a CPU with.
        config.spin = Spin { bound: Duration::ZERO };
    }
    let done = Core::block_on(&config, |core| async move {
        serve(core, arguments).await.map_err(|error| error.to_string())
    });
    Ok(done??)
}

async fn serve(core: Core, arguments: Arguments) -> Result<()> {
    let mut sessions = Vec::new();
    for number in 0..arguments.sessions {
        sessions.push(Rc::new(open(&core, &arguments, number).await?));
    }
    if arguments.fill {
        let session = sessions.first().ok_or("no session")?;
        fill(session, &arguments).await?;
    }
    println!("ready");
    loop {
        // Sessions are kept alive meanwhile.
        let line = core.blocking(|| std::io::stdin().lock().lines().next()).await;
        match line.flatten().transpose()?.as_deref() {
            Some("go") => {
                let run = Rc::new(Run::new(&core, &arguments));
                let outcome = match arguments.requests {
                    Some(requests) => count(&run, requests, &sessions).await?,
                    None => measure(&run, &arguments, &sessions).await?,
                };
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
    // Initiators of one name, and other processes may be at work too.
    let [_, p0, p1, p2] = std::process::id().to_be_bytes();
    let [high, low] = number.to_be_bytes();
    let config = Initiator {
        wishes,
        name: arguments.initiator.clone(),
        isid: [0x80, p0, p1, p2, high, low],
        kind: SessionKind::Normal { target: arguments.target.clone() },
        chap: None,
        commands: arguments.depth.max(1),
    };
    let address: Address = arguments.address.parse()?;
    let opened = Session::open(core, &address, config).await;
    Ok(opened.map_err(|lost| format!("session {number}: {lost}"))?)
}

/// What all who ask share.
struct Run {
    core: Core,
    phase: Cell<u8>,
    latencies: RefCell<Histogram>,
    failure: RefCell<Option<String>>,
    lun: [u8; 8],
    write: bool,
    block: usize,
    blocks: u64,
    depth: u16,
    server: u32,
    /// Where the next request goes: a generator, for the kernel's takes longer than a request.
    place: Cell<u64>,
}

impl Run {
    fn new(core: &Core, arguments: &Arguments) -> Self {
        Self {
            core: core.clone(),
            phase: Cell::new(WARM_UP),
            latencies: RefCell::new(Histogram::new()),
            failure: RefCell::default(),
            lun: LogicalUnitNumber::new(arguments.lun).0,
            write: arguments.write,
            block: arguments.block,
            blocks: arguments.size / arguments.block as u64,
            depth: arguments.depth,
            server: arguments.server,
            place: Cell::new(core.random() | 1),
        }
    }

    /// Some block (Marsaglia's xorshift).
    fn block(&self) -> u64 {
        let mut place = self.place.get();
        place ^= place << 13;
        place ^= place >> 7;
        place ^= place << 17;
        self.place.set(place);
        place % self.blocks
    }

    /// Reads or writes one block, somewhere.
    async fn ask(
        &self,
        session: &Session,
        memory: &Buffer,
    ) -> std::result::Result<Answer, Failure> {
        let at = self.block() * self.block as u64;
        transfer(session, self.lun, self.write, at, memory).await
    }

    fn fails(&self, why: &std::result::Result<Answer, Failure>) {
        self.failure.replace(Some(format!("a command: {why:?}")));
    }

    fn outcome(&self, began: &Mark) -> Result<Outcome> {
        match self.failure.take() {
            Some(failure) => Err(failure.into()),
            None => Ok(began.outcome(&Mark::now(Some(self.server))?, &self.latencies.borrow())),
        }
    }
}

/// Asks for some time.
async fn measure(
    run: &Rc<Run>,
    arguments: &Arguments,
    sessions: &[Rc<Session>],
) -> Result<Outcome> {
    let mut tasks = Vec::new();
    for session in sessions {
        for _ in 0..run.depth {
            tasks.push(run.core.spawn_task(keep_asking(run.clone(), session.clone())));
        }
    }
    run.core.sleep(Duration::from_secs_f64(arguments.warmup)).await;
    let began = Mark::now(Some(run.server))?;
    run.phase.set(MEASURE);
    run.core.sleep(Duration::from_secs_f64(arguments.seconds)).await;
    run.phase.set(STOP);
    let outcome = run.outcome(&began);
    for task in tasks {
        task.await;
    }
    outcome
}

/// One command after the other.
async fn keep_asking(run: Rc<Run>, session: Rc<Session>) {
    let memory = Buffer::zeroed(run.block);
    while run.phase.get() != STOP {
        let began = run.core.now();
        match run.ask(&session, &memory).await {
            Ok(answer) if answer.outcome.status == 0 => {}
            // What a new session is told first.
            Ok(answer) if run.phase.get() == WARM_UP && answer.sense.is_some() => continue,
            other => return run.fails(&other),
        }
        if run.phase.get() == MEASURE {
            let taken = (run.core.now() - began).as_nanos() as u64;
            run.latencies.borrow_mut().count(taken);
        }
    }
}

/// Asks so often on every session.
async fn count(run: &Rc<Run>, requests: u64, sessions: &[Rc<Session>]) -> Result<Outcome> {
    let began = Mark::now(Some(run.server))?;
    let ask = |session: &Rc<Session>| {
        run.core.spawn_task(ask_in_batches(run.clone(), session.clone(), requests))
    };
    let tasks: Vec<_> = sessions.iter().map(ask).collect();
    for task in tasks {
        task.await;
    }
    run.outcome(&began)
}

/// Waits for a whole batch before the next one, so that batches do not depend on who is faster.
async fn ask_in_batches(run: Rc<Run>, session: Rc<Session>, requests: u64) {
    let memory: Vec<Buffer> = (0..run.depth).map(|_| Buffer::zeroed(run.block)).collect();
    let mut left = requests;
    while left > 0 {
        let began = run.core.now();
        let batch = memory.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
        let asked: Vec<_> = batch
            .map(|memory| {
                let (run, session, memory) = (run.clone(), session.clone(), memory.clone());
                run.core.clone().spawn_task(async move { run.ask(&session, &memory).await })
            })
            .collect();
        for answer in asked {
            match answer.await {
                Ok(answer) if answer.outcome.status == 0 => {}
                other => return run.fails(&other),
            }
            run.latencies.borrow_mut().count((run.core.now() - began).as_nanos() as u64);
            left -= 1;
        }
    }
}

/// Memory that was never written is not there yet.
async fn fill(session: &Session, arguments: &Arguments) -> Result<()> {
    let memory = Buffer::from_bytes(&[0xa5; FILL_BYTES]);
    let lun = LogicalUnitNumber::new(arguments.lun).0;
    for at in (0..arguments.size).step_by(FILL_BYTES) {
        let answer = transfer(session, lun, true, at, &memory).await;
        if !answer.as_ref().is_ok_and(|answer| answer.outcome.status == 0) {
            return Err(format!("a write at {at}: {answer:?}").into());
        }
    }
    Ok(())
}

/// Moves all of this memory.
async fn transfer(
    session: &Session,
    lun: [u8; 8],
    write: bool,
    at: u64,
    memory: &Buffer,
) -> std::result::Result<Answer, Failure> {
    let mut cdb = [0; 16];
    cdb[0] = if write { WRITE_16 } else { READ_16 };
    cdb[2..10].copy_from_slice(&(at / BLOCK_BYTES).to_be_bytes());
    cdb[10..14].copy_from_slice(&((memory.len() as u64 / BLOCK_BYTES) as u32).to_be_bytes());
    let (out, into) = match write {
        true => (memory.sgl(), Sgl::empty()),
        false => (Sgl::empty(), memory.sgl()),
    };
    let command = iscsi::Command { lun, cdb: &cdb, attribute: attribute::SIMPLE, out, into };
    session.command(&command).await
}

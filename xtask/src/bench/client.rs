//! The client of every server: a load generator over the `blkio` crate, in a process of its own.
//!
//! One thread for each queue of each device; each keeps `depth` requests in flight and sleeps on
//! the completion descriptor when there is nothing to take. It says `ready` when connected, runs
//! once for each `go` on its standard input, and answers with one line of JSON ([`Outcome`]). The
//! server's CPU time is read here, at the very ends of the measured time.

#![allow(unsafe_code)]

use std::io::BufRead;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::{Result, cpu, limits, procfs};

/// Completions taken in one gulp.
const GULP: usize = 64;
/// Bytes of one request when a device is filled.
const FILL_BYTES: usize = 1 << 20;

#[derive(Args)]
pub struct Arguments {
    /// Each is one device
    #[arg(long = "socket", required = true)]
    sockets: Vec<PathBuf>,
    #[arg(long, default_value_t = 1)]
    queues: u16,
    #[arg(long, value_enum, default_value_t = Direction::Read)]
    direction: Direction,
    #[arg(long)]
    sequential: bool,
    #[arg(long, default_value_t = 4096)]
    block: usize,
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Wait for a whole batch of `depth` before the next one
    #[arg(long)]
    lockstep: bool,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.2)]
    warmup: f64,
    /// So many requests by each thread, instead of a time
    #[arg(long)]
    requests: Option<u64>,
    /// Write every block once before `ready`
    #[arg(long)]
    fill: bool,
    /// CPUs for the threads, in turn
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The process whose CPU time is measured
    #[arg(long)]
    server: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Read,
    Write,
}

/// What one run has measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub requests: u64,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// By every thread of the server.
    pub server_cpu_s: f64,
    /// CPU time that went neither to the server nor to this client, of all the machine's CPUs.
    pub others_cpu_s: f64,
}

impl Outcome {
    pub fn iops(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// The server's CPU seconds for a million requests.
    pub fn cpu_per_million(&self) -> f64 {
        self.server_cpu_s / self.requests as f64 * 1e6
    }
}

/// What all threads are to do now.
struct Phase(AtomicU8);

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

pub fn run(arguments: &Arguments) -> Result<()> {
    limits::raise_open_files()?;
    let mut devices = Vec::new();
    for socket in &arguments.sockets {
        devices.push(Device::connect(socket, arguments)?);
    }
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "go" => println!("{}", serde_json::to_string(&once(&mut devices, arguments)?)?),
            other => return Err(format!("no command {other:?}").into()),
        }
    }
    Ok(())
}

struct Device {
    lanes: Vec<Lane>,
    // After the queues, which use its memory.
    _blkio: Blkio,
}

/// One queue with the memory of its requests.
struct Lane {
    queue: Blkioq,
    memory: *mut u8,
    block: usize,
    capacity: u64,
    random: u64,
    /// The block that a sequential run comes to next.
    next: u64,
}

// SAFETY: the memory belongs to the lane alone while it runs, and lives as long as its device.
unsafe impl Send for Lane {}

impl Device {
    fn connect(socket: &Path, arguments: &Arguments) -> Result<Self> {
        let path = socket.to_str().ok_or("a socket path that is not text")?;
        let failed = |error: blkio::Error| format!("{path}: {error}");
        let mut blkio = Blkio::new("virtio-blk-vhost-user").map_err(failed)?;
        blkio.set_str("path", path).map_err(failed)?;
        blkio.connect().map_err(failed)?;
        blkio.set_i32("num-queues", i32::from(arguments.queues)).map_err(failed)?;
        let started = blkio.start().map_err(failed)?;
        let capacity = blkio.get_u64("capacity").map_err(failed)?;
        let lane_bytes = (arguments.depth * arguments.block).max(FILL_BYTES);
        let bytes = lane_bytes * started.queues.len();
        let region = blkio.alloc_mem_region(bytes).map_err(failed)?;
        blkio.map_mem_region(&region).map_err(failed)?;
        let lanes = started.queues.into_iter().enumerate().map(|(index, queue)| Lane {
            queue,
            memory: (region.addr as *mut u8).wrapping_add(index * lane_bytes),
            block: arguments.block,
            capacity,
            random: 0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1),
            next: capacity / arguments.block as u64 * index as u64 / u64::from(arguments.queues),
        });
        let mut lanes: Vec<Lane> = lanes.collect();
        for lane in &mut lanes {
            lane.scribble(lane_bytes);
        }
        if arguments.fill {
            lanes[0].fill()?;
        }
        Ok(Self { lanes, _blkio: blkio })
    }
}

/// One run of every thread.
fn once(devices: &mut [Device], arguments: &Arguments) -> Result<Outcome> {
    let lanes: Vec<&mut Lane> = devices.iter_mut().flat_map(|device| &mut device.lanes).collect();
    let phase = Arc::new(Phase(AtomicU8::new(WARM_UP)));
    let barrier = Arc::new(Barrier::new(lanes.len() + 1));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, lane) in lanes.into_iter().enumerate() {
            let (phase, barrier) = (phase.clone(), barrier.clone());
            threads.push(scope.spawn(move || {
                if !arguments.cpus.is_empty() {
                    cpu::pin(&[arguments.cpus[index % arguments.cpus.len()]])
                        .map_err(|error| error.to_string())?;
                }
                barrier.wait();
                lane.drive(arguments, &phase)
            }));
        }
        let begin = match arguments.requests {
            Some(_) => {
                phase.0.store(MEASURE, Ordering::Relaxed);
                let begin = Mark::now(arguments.server)?;
                barrier.wait();
                begin
            }
            None => {
                barrier.wait();
                thread::sleep(Duration::from_secs_f64(arguments.warmup));
                let begin = Mark::now(arguments.server)?;
                phase.0.store(MEASURE, Ordering::Relaxed);
                thread::sleep(Duration::from_secs_f64(arguments.seconds));
                phase.0.store(STOP, Ordering::Relaxed);
                begin
            }
        };
        let timed =
            arguments.requests.is_none().then(|| Mark::now(arguments.server)).transpose()?;
        let mut histogram = Histogram::new();
        for thread in threads {
            let lane = thread.join().map_err(|_| "a client thread panicked")?;
            histogram.add(&lane?);
        }
        let end = match timed {
            Some(end) => end,
            None => Mark::now(arguments.server)?,
        };
        Ok(begin.outcome(&end, &histogram))
    })
}

/// A moment, and what had been used up by then.
pub struct Mark {
    at: Instant,
    server_ns: u64,
    own_ns: u64,
    machine_s: f64,
}

impl Mark {
    pub fn now(server: Option<u32>) -> Result<Self> {
        let own_ns = procfs::cpu_ns(std::process::id())?;
        let machine_s = procfs::machine_busy_s()?;
        let server_ns = server.map(procfs::cpu_ns).transpose()?.unwrap_or(0);
        Ok(Self { at: Instant::now(), server_ns, own_ns, machine_s })
    }

    pub fn outcome(&self, end: &Self, histogram: &Histogram) -> Outcome {
        let seconds = |from: u64, to: u64| (to - from) as f64 / 1e9;
        let server_cpu_s = seconds(self.server_ns, end.server_ns);
        let own_cpu_s = seconds(self.own_ns, end.own_ns);
        let others = end.machine_s - self.machine_s - server_cpu_s - own_cpu_s;
        Outcome {
            requests: histogram.total(),
            seconds: (end.at - self.at).as_secs_f64(),
            p50_us: histogram.percentile(0.50) as f64 / 1e3,
            p99_us: histogram.percentile(0.99) as f64 / 1e3,
            server_cpu_s,
            others_cpu_s: others.max(0.0),
        }
    }
}

impl Lane {
    /// Bytes that are no pattern, so that nothing below is tempted to see zeroes.
    fn scribble(&mut self, bytes: usize) {
        for word in 0..bytes / 8 {
            let value = self.random();
            // SAFETY: within this lane's share of the region, which is aligned to pages.
            unsafe { self.memory.cast::<u64>().add(word).write_volatile(value) };
        }
    }

    fn random(&mut self) -> u64 {
        let mut x = self.random;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        x
    }

    /// Writes the whole device once.
    fn fill(&mut self) -> Result<()> {
        let mut offset = 0;
        while offset < self.capacity {
            let len = (self.capacity - offset).min(FILL_BYTES as u64) as usize;
            self.queue.write(offset, self.memory, len, 0, ReqFlags::empty());
            self.take(|_| ())?;
            offset += len as u64;
        }
        Ok(())
    }

    fn offset(&mut self, sequential: bool) -> u64 {
        let blocks = self.capacity / self.block as u64;
        let block = match sequential {
            true => {
                let block = self.next % blocks;
                self.next = block + 1;
                block
            }
            // The high bits, by multiplication: no division for each request.
            false => ((u128::from(self.random()) * u128::from(blocks)) >> 64) as u64,
        };
        block * self.block as u64
    }

    fn ask(&mut self, slot: usize, arguments: &Arguments) {
        let offset = self.offset(arguments.sequential);
        let at = self.memory.wrapping_add(slot * self.block);
        match arguments.direction {
            Direction::Read => self.queue.read(offset, at, self.block, slot, ReqFlags::empty()),
            Direction::Write => self.queue.write(offset, at, self.block, slot, ReqFlags::empty()),
        }
    }

    /// Hands over what was asked, waits for at least one answer, and calls for each.
    #[inline]
    fn take(&mut self, mut each: impl FnMut(usize)) -> Result<usize> {
        let mut space = [const { MaybeUninit::<Completion>::uninit() }; GULP];
        let count = self
            .queue
            .do_io(&mut space, 1, None, None)
            .map_err(|error| format!("the client's queue: {error}"))?;
        for entry in &space[..count] {
            // SAFETY: the call says how many it has filled.
            let completion = unsafe { entry.assume_init_ref() };
            if completion.ret != 0 {
                return Err(format!("a request failed: {}", completion.ret).into());
            }
            each(completion.user_data);
        }
        Ok(count)
    }

    /// Runs until the phase or the number of requests says stop, and until nothing is in flight.
    fn drive(
        &mut self,
        arguments: &Arguments,
        phase: &Phase,
    ) -> std::result::Result<Histogram, String> {
        let mut histogram = Histogram::new();
        let mut began = vec![Instant::now(); arguments.depth];
        let mut idle: Vec<usize> = (0..arguments.depth).rev().collect();
        let mut left = arguments.requests.unwrap_or(u64::MAX);
        let mut now = Instant::now();
        loop {
            let phase_now = phase.0.load(Ordering::Relaxed);
            let wanted = phase_now != STOP && left > 0;
            if wanted && (!arguments.lockstep || idle.len() == arguments.depth) {
                while left > 0
                    && let Some(slot) = idle.pop()
                {
                    began[slot] = now;
                    self.ask(slot, arguments);
                    left -= 1;
                }
            }
            if idle.len() == arguments.depth {
                return Ok(histogram);
            }
            let mut done = [0usize; GULP];
            let mut count = 0;
            let taken = self.take(|slot| {
                done[count] = slot;
                count += 1;
            });
            taken.map_err(|error| error.to_string())?;
            now = Instant::now();
            for &slot in &done[..count] {
                if phase_now == MEASURE {
                    histogram.count((now - began[slot]).as_nanos() as u64);
                }
                idle.push(slot);
            }
        }
    }
}

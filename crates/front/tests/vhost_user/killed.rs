//! Real servers in processes of their own, killed with SIGKILL at any moment under load: no write
//! is lost, none is applied after a later one, and the driver notices nothing but a pause.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::{Asked, Device, Geometry, Op, Outcome, Request, RequestBuf, Watch};
use rt::Core;
use wire::virtio::blk::Status;

use crate::support::{Guest, Machine, Options, Pending, Random, Server, Setting, pattern};

const BLOCK: usize = 1024;
const BLOCKS: usize = 256;
const QUEUES: u16 = 2;
const KILLS: usize = 40;

/// Where the process that is to serve finds its directory.
const DIRECTORY: &str = "VIADUCT_TEST_SERVE";

/// Blocks of a file, answered later and in another order than asked.
struct Slow {
    file: Rc<File>,
    core: Core,
    watch: Watch,
}

impl Device for Slow {
    fn geometry(&self) -> Geometry {
        Geometry::plain((BLOCK * BLOCKS) as u64, 512)
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        let done = asked.later();
        let (request, file, core) = (request.to_buf(), self.file.clone(), self.core.clone());
        self.core.spawn(async move {
            core.sleep(Duration::from_micros(core.random() % 300)).await;
            perform(&file, &request);
            core.sleep(Duration::from_micros(core.random() % 300)).await;
            done.finish(Ok(request.len));
        });
        None
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

fn perform(file: &File, request: &RequestBuf) {
    let mut bytes = vec![0; request.len as usize];
    match request.op {
        Op::Read => {
            file.read_exact_at(&mut bytes, request.offset).unwrap();
            request.data.sgl().copy_in(0, &bytes);
        }
        Op::Write { .. } => {
            request.data.sgl().copy_out(0, &mut bytes);
            file.write_all_at(&bytes, request.offset).unwrap();
        }
        other => panic!("{other:?}"),
    }
}

/// The process that the test below starts; without it there is nothing to do.
#[test]
fn serve() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let path = directory.join("disk");
    let setting = Setting { queues: QUEUES, ..Setting::default() };
    let open = Box::new(move |core: &Core| {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Rc::new(Slow { file: Rc::new(file), core: core.clone(), watch: Watch::new() })
            as Rc<dyn Device>
    });
    let _server = Server::start_in(directory, 2, open, setting);
    println!("\nserving");
    // Until the parent is gone.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Process(Child);

impl Process {
    fn start(directory: &Path) -> Self {
        let _ = std::fs::remove_file(directory.join("0.sock"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::serve", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "serving"));
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A guest that knows what every block must hold.
struct Load {
    machine: Machine,
    /// The last version that was answered, and the one that is being written.
    blocks: Vec<(u64, Option<u64>)>,
    out: Vec<(usize, Kind, Pending)>,
    versions: u64,
    random: Random,
    /// Places for data, used again when a request is done: a killing takes many requests.
    places: Vec<(u64, u64, u64)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    Read(u64),
}

fn content(block: usize, version: u64) -> Vec<u8> {
    if version == 0 { vec![0; BLOCK] } else { pattern(version << 16 | block as u64, BLOCK) }
}

impl Load {
    /// One request on a block that has none.
    fn begin(&mut self) {
        let block = self.random.below(BLOCKS);
        let queue = self.random.below(usize::from(QUEUES));
        let (version, writing) = self.blocks[block];
        let is_out = self.out.iter().any(|(other, _, _)| *other == block);
        if writing.is_some() || is_out || self.machine.queues[queue].ring.free() < 3 {
            return;
        }
        let offset = (block * BLOCK) as u64;
        let place = self.places.pop();
        let (kind, pending) = if self.random.below(4) == 0 {
            let pending = self.machine.place_read_at(queue, offset, BLOCK as u32, place);
            (Kind::Read(version), pending)
        } else {
            self.versions += 1;
            self.blocks[block].1 = Some(self.versions);
            let bytes = content(block, self.versions);
            (Kind::Write, self.machine.place_write_at(queue, offset, &bytes, place))
        };
        self.out.push((block, kind, pending));
        if self.random.below(3) == 0 {
            self.submit();
        }
    }

    fn submit(&mut self) {
        for queue in 0..usize::from(QUEUES) {
            self.machine.submit(queue);
        }
    }

    /// Takes what was answered, and checks it.
    fn reap(&mut self) {
        for queue in &mut self.machine.queues {
            queue.reap_all();
        }
        let mut index = 0;
        while index < self.out.len() {
            let (block, kind, pending) = self.out[index];
            if self.machine.queues[pending.queue].take_answer(pending.head).is_none() {
                index += 1;
                continue;
            }
            self.out.swap_remove(index);
            assert_eq!(self.machine.status(&pending), Status::OK);
            match kind {
                Kind::Write => {
                    let written = self.blocks[block].1.take().unwrap();
                    self.blocks[block].0 = written;
                }
                Kind::Read(version) => {
                    let is = self.machine.data(&pending);
                    assert!(is == content(block, version), "block {block} of version {version}");
                }
            }
            self.places.push((pending.header, pending.data, pending.status));
        }
    }
}

#[test]
fn servers_killed_under_load_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    std::fs::write(&disk, vec![0; BLOCK * BLOCKS]).unwrap();
    let socket = directory.path().join("0.sock");
    let mut process = Process::start(directory.path());
    let options = Options { queues: QUEUES, ..Options::default() };
    let machine = Machine::boot_with(&socket, Guest::plain(), options);
    let mut load = Load {
        machine,
        blocks: vec![(0, None); BLOCKS],
        out: Vec::new(),
        versions: 0,
        random: Random(1),
        places: Vec::new(),
    };
    let mut killed_in_flight = 0;
    for _ in 0..KILLS {
        let delay = Duration::from_micros(load.random.below(4000) as u64);
        let is_dead = Arc::new(AtomicBool::new(false));
        let killer = {
            let is_dead = is_dead.clone();
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                process.kill();
                is_dead.store(true, Ordering::Release);
            })
        };
        while !is_dead.load(Ordering::Acquire) {
            load.begin();
            load.reap();
        }
        killer.join().unwrap();
        load.reap();
        load.submit();
        killed_in_flight += load.machine.recorded_in_flight();
        process = Process::start(directory.path());
        load.machine.reconnect(&socket);
    }
    while let Some(&(_, _, pending)) = load.out.first() {
        load.machine.queues[pending.queue].wait_for_answer(pending.head);
        load.reap();
    }
    let on_disk = std::fs::read(&disk).unwrap();
    for (block, &(version, writing)) in load.blocks.iter().enumerate() {
        assert_eq!(writing, None);
        let is = &on_disk[block * BLOCK..][..BLOCK];
        assert!(is == content(block, version), "block {block} of version {version} on the disk");
    }

    assert!(killed_in_flight > KILLS / 4, "{killed_in_flight} requests were in flight");
    assert!(load.versions > 100, "{} writes", load.versions);
}

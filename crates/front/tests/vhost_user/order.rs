//! ORDERED, HEAD OF QUEUE and ACA over two request queues that two cores serve.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use target::virtio_scsi::address_of;
use wire::virtio::scsi::{Response, TaskAttribute, TaskFunction};

use crate::support::{
    Buf, Command, Disk, How, Reply, ScsiDriver, ScsiServer, cdb, proptest_config,
};

const SIZE: usize = 1 << 20;
const ACA_ACTIVE: u8 = 0x30;
/// The bit of the CONTROL byte by which a command asks for an ACA.
const NACA: u8 = 4;

struct Bench {
    disk: Arc<Disk>,
    _server: ScsiServer,
    driver: ScsiDriver,
    into: u64,
}

impl Bench {
    fn new() -> Self {
        let disk = Disk::new(SIZE);
        let server = ScsiServer::start(2, 2);
        server.plug(0, &disk);
        let driver = ScsiDriver::boot(&server.path(), 2);
        let into = driver.0.guest.alloc(512, 512);
        disk.hold(true);
        Self { disk, _server: server, driver, into }
    }

    /// Begins to read the block whose number is the task's tag.
    fn read(&mut self, queue: usize, tag: u8, attribute: TaskAttribute) -> Command {
        let read = cdb(&[0x28, 0, 0, 0, 0, tag, 0, 0, 1]);
        let task = (address_of(0), tag.into(), attribute.0);
        self.driver.begin_as(queue, task, &read, &[Buf::In(self.into, 512)])
    }

    /// A command without data, and its answer.
    fn ask(&mut self, queue: usize, attribute: TaskAttribute, bytes: &[u8]) -> Reply {
        let task = (address_of(0), 99, attribute.0);
        let command = self.driver.begin_as(queue, task, &cdb(bytes), &[]);
        self.driver.finish(&command)
    }

    fn manage(&mut self, function: TaskFunction, tag: u8) -> Response {
        self.driver.manage(function.0, 0, tag.into())
    }

    /// Waits until a task is in its set. What it told the other core is there before what is
    /// submitted after this.
    fn wait_entered(&mut self, tag: u8) {
        while self.manage(TaskFunction::QUERY_TASK, tag) != Response::FUNCTION_SUCCEEDED {}
    }

    /// The tasks that have come to the disk, in their order.
    fn begun(&self) -> Vec<u8> {
        self.disk.journal().iter().map(|entry| (entry.offset / 512) as u8).collect()
    }
}

#[test]
fn order_holds_across_queues_of_different_cores() {
    let mut bench = Bench::new();
    let mut all = vec![bench.read(0, 1, TaskAttribute::SIMPLE)];
    bench.disk.wait_begun(1);
    all.push(bench.read(1, 2, TaskAttribute::ORDERED));
    bench.wait_entered(2);
    all.push(bench.read(0, 3, TaskAttribute::SIMPLE));
    bench.wait_entered(3);
    assert_eq!(bench.begun(), [1], "what is older has not ended, what is younger waits");
    bench.disk.answer(0, How::Do);
    bench.disk.wait_begun(2);
    all.push(bench.read(0, 4, TaskAttribute::HEAD));
    bench.disk.wait_begun(3);
    assert_eq!(bench.begun(), [1, 2, 4], "the head of the queue waits for nobody");
    bench.disk.answer(1, How::Do);
    let ordered = all[1];
    assert_eq!(bench.driver.finish(&ordered), Reply::GOOD);
    all.push(bench.read(1, 5, TaskAttribute::SIMPLE));
    bench.wait_entered(5);
    assert_eq!(bench.begun(), [1, 2, 4], "and is overtaken by nobody");
    bench.disk.answer(2, How::Do);
    bench.disk.wait_begun(5);
    let cores: Vec<_> = bench.disk.journal().iter().map(|entry| entry.core).collect();
    assert_ne!(cores[0], cores[1]);
    bench.disk.answer_all();
    for at in [0, 2, 3, 4] {
        assert_eq!(bench.driver.finish(&all[at]), Reply::GOOD);
    }
}

#[test]
fn contingent_allegiance_stops_all_queues_until_it_is_cleared() {
    use TaskAttribute as As;
    let mut bench = Bench::new();
    let busy = Reply { status: ACA_ACTIVE, ..Reply::GOOD };
    let past_the_end = [0x28, 0, 0, 1, 0, 0, 0, 0, 0, NACA];
    assert_eq!(bench.ask(0, As::SIMPLE, &past_the_end), Reply::check(5, 0x2100, 0));
    for queue in [1, 0] {
        for attribute in [As::SIMPLE, As::ORDERED, As::HEAD] {
            assert_eq!(bench.ask(queue, attribute, &[0]), busy, "{queue} {attribute:?}");
        }
    }
    // One task may look after it, on whatever queue.
    let only = bench.read(1, 7, As::ACA);
    bench.disk.wait_begun(1);
    assert_eq!(bench.ask(0, As::ACA, &[0]), busy);
    bench.disk.answer(0, How::Do);
    assert_eq!(bench.driver.finish(&only), Reply::GOOD);
    assert_eq!(bench.ask(0, As::ACA, &[0]), Reply::GOOD);
    assert_eq!(bench.manage(TaskFunction::CLEAR_ACA, 0), Response::OK);
    for queue in [0, 1] {
        assert_eq!(bench.ask(queue, As::SIMPLE, &[0]), Reply::GOOD);
        assert_eq!(bench.ask(queue, As::ACA, &[0]).sense, Some((5, 0x4900)));
    }
    // It also ends with a task of its own that fails.
    assert_eq!(bench.ask(1, As::SIMPLE, &past_the_end), Reply::check(5, 0x2100, 0));
    assert_eq!(bench.ask(0, As::SIMPLE, &[0]), busy);
    let mut without = past_the_end;
    without[9] = 0;
    assert_eq!(bench.ask(0, As::ACA, &without), Reply::check(5, 0x2100, 0));
    assert_eq!(bench.ask(1, As::SIMPLE, &[0]), Reply::GOOD);
}

/// Whether a task of this attribute may run beside others of the queue.
fn is_alone(attribute: TaskAttribute) -> bool {
    attribute == TaskAttribute::ORDERED
}

fn tasks() -> impl Strategy<Value = Vec<(usize, TaskAttribute, usize)>> {
    let attribute = prop_oneof![
        4 => Just(TaskAttribute::SIMPLE),
        3 => Just(TaskAttribute::ORDERED),
        1 => Just(TaskAttribute::HEAD),
    ];
    // The queue, the attribute, and which of those that run is to end then.
    vec((0_usize..2, attribute, 0_usize..8), 2..40)
}

proptest! {
    #![proptest_config(proptest_config(12))]

    #[test]
    fn ordered_tasks_run_alone_and_everybody_has_a_turn(tasks in tasks()) {
        let mut bench = Bench::new();
        for batch in tasks.chunks(20) {
            run(&mut bench, batch);
        }
    }
}

fn run(bench: &mut Bench, tasks: &[(usize, TaskAttribute, usize)]) {
    let base = bench.begun().len();
    let mut commands = Vec::new();
    for (tag, &(queue, attribute, _)) in tasks.iter().enumerate() {
        commands.push(bench.read(queue, tag as u8, attribute));
    }
    let mut ended = BTreeSet::new();
    for &(_, _, which) in tasks {
        // While anybody is left, somebody runs.
        bench.disk.wait_begun(base + ended.len() + 1);
        let begun = bench.begun();
        let running: Vec<usize> = (base..begun.len()).filter(|at| !ended.contains(at)).collect();
        let of = |&at: &usize| tasks[usize::from(begun[at])].1;
        let queued: Vec<_> =
            running.iter().map(of).filter(|&it| it != TaskAttribute::HEAD).collect();
        assert!(queued.len() == 1 || !queued.iter().any(|&it| is_alone(it)), "{queued:?}");
        let at = running[which % running.len()];
        bench.disk.answer(at, How::Do);
        ended.insert(at);
    }
    for command in &commands {
        assert_eq!(bench.driver.finish(command), Reply::GOOD);
    }
}

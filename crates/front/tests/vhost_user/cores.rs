//! Queues spread over cores: each keeps to its own, and no request crosses from one to another.

use crate::support::{Disk, Guest, Machine, Options, Server, Setting};

const QUEUES: u16 = 4;
const REQUESTS: usize = 500;

#[test]
fn queues_share_the_cores_evenly_and_send_each_other_nothing() {
    let disk = Disk::new(1 << 20);
    let setting = Setting { queues: QUEUES, ..Setting::default() };
    let server = Server::start_with(2, &disk, setting);
    let options = Options { queues: QUEUES, ..Options::default() };
    let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
    // Asking is a letter to each core itself.
    let before = server.messages();
    let asking = server.messages() - before;
    let before = server.messages();
    for number in 0..REQUESTS as u64 {
        let all: Vec<_> = (0..usize::from(QUEUES))
            .map(|queue| machine.begin_write(queue, 512 * (number % 1024), &[queue as u8; 512]))
            .collect();
        for write in &all {
            machine.finish(write);
        }
    }
    assert_eq!(server.messages() - before, asking, "letters on a request's way");
    let journal = disk.journal();
    for core in &server.cores {
        let here = journal.iter().filter(|entry| entry.core == core.id()).count();
        assert_eq!(here, REQUESTS * usize::from(QUEUES) / 2);
    }
    let session = server.session();
    for queue in &session.queues {
        let expected = server.cores[usize::from(queue.index) % 2].id();
        assert_eq!((queue.core, queue.in_flight), (expected, 0));
        let requests: u64 = queue.stats.iter().map(|stats| stats.requests).sum();
        assert_eq!(requests, REQUESTS as u64);
    }
}

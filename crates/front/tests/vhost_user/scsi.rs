//! A SCSI host: commands, control requests and events over real rings; LUNs that come and go; a
//! server that is killed with commands under way.

use std::sync::Arc;

use block::Op;
use model::stats::OpKind;
use proptest::collection::vec;
use proptest::prelude::*;
use target::lun::Change;
use target::virtio_scsi::address_of;
use wire::virtio::scsi::{EVENTS_MISSED, Notification, NotificationResponse, Response};
use zerocopy::{FromBytes, IntoBytes};

use crate::support::{
    Buf, Disk, How, Log, Reply, ScsiDriver, ScsiServer, cdb, pattern, proptest_config,
};

const SIZE: usize = 1 << 20;
const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;

/// One LUN, 0, on so many cores, with as many request queues.
fn one_lun(cores: usize) -> (Arc<Disk>, ScsiServer, ScsiDriver) {
    let disk = Disk::new(SIZE);
    let server = ScsiServer::start(cores as u16, cores);
    server.plug(0, &disk);
    let driver = ScsiDriver::boot(&server.path(), cores as u16);
    (disk, server, driver)
}

#[test]
fn a_disk_is_found_written_and_read() {
    let (disk, server, mut driver) = one_lun(1);
    let (reply, luns) = driver.read(0, cdb(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16]), 16);
    assert_eq!((reply, &luns[..4]), (Reply::GOOD, &[0, 0, 0, 8][..]));
    let (reply, capacity) = driver.read(0, cdb(&[0x25]), 8);
    assert_eq!((reply, capacity), (Reply::GOOD, [0, 0, 7, 0xff, 0, 0, 2, 0].to_vec()));
    let bytes = pattern(1, 4096);
    let written = driver.begin_write(0, 0, 9, &bytes);
    assert_eq!(driver.finish(&written), Reply::GOOD);
    assert_eq!(disk.bytes(9 * 512, 4096), bytes);
    let read_10 = cdb(&[0x28, 0, 0, 0, 0, 9, 0, 0, 8]);
    assert_eq!(driver.read(0, read_10, 4096), (Reply::GOOD, bytes));
    let (reply, inquiry) = driver.read(0, cdb(&[0x12, 0, 0, 0, 255]), 255);
    assert_eq!((reply.response, reply.status), (Response::OK, 0));
    assert!(reply.residual > 0 && &inquiry[8..15] == b"VIADUCT");
    // A LUN that is not there says so, by INQUIRY and otherwise.
    let (reply, inquiry) = driver.read(5, cdb(&[0x12, 0, 0, 0, 36]), 36);
    assert_eq!((reply, inquiry[0]), (Reply::GOOD, 0x7f));
    assert_eq!(driver.run(5, cdb(&[0]), None), Reply::check(5, 0x2500, 0));

    let session = server.info().session.unwrap();
    assert!(session.features.contains(&"hotplug"));
    let counts: Vec<_> = session.queues.iter().flat_map(|queue| &queue.units).collect();
    let [(uuid, counts)] = counts[..] else { panic!("{counts:?}") };
    assert_eq!(counts.in_flight, 0);
    let of = |kind| counts.ops.iter().find(|ops| ops.op == kind).unwrap();
    assert_eq!(*uuid, [0; 16]);
    assert_eq!((of(OpKind::Read).requests, of(OpKind::Read).bytes), (1, 4096));
    assert_eq!((of(OpKind::Write).requests, of(OpKind::Write).bytes), (1, 4096));
    assert_eq!((of(OpKind::Other).requests, of(OpKind::Other).bytes), (3, 0));
}

#[test]
fn odd_requests_are_answered_by_name() {
    let (disk, server, mut driver) = one_lun(1);
    let at = driver.0.guest.alloc(4096, 512);
    let read = cdb(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1]);
    let write = cdb(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1]);
    let lun = address_of(0);
    let other = [1, 1, 0, 0, 0, 0, 0, 0];
    let (into, out) = (Buf::In(at, 512), Buf::Out(at, 512));
    use Response as R;
    for (lun, cdb, data, expected) in [
        (lun, &read[..], &[into][..], Reply::GOOD),
        (lun, &read, &[out, into], Reply::refused(R::FAILURE, 1024)),
        (lun, &read, &[], Reply::refused(R::OVERRUN, 0)),
        (lun, &read, &[Buf::In(at, 511)], Reply::refused(R::OVERRUN, 511)),
        (lun, &read, &[out], Reply::refused(R::OVERRUN, 512)),
        (lun, &read, &[Buf::In(at, 4096)], Reply { residual: 3584, ..Reply::GOOD }),
        (lun, &write, &[], Reply::refused(R::OVERRUN, 0)),
        (lun, &write, &[into], Reply::refused(R::OVERRUN, 512)),
        (lun, &write, &[Buf::Out(at, 1024)], Reply { residual: 512, ..Reply::GOOD }),
        (other, &read, &[into], Reply::refused(R::BAD_TARGET, 512)),
        ([0; 8], &read, &[into], Reply::refused(R::BAD_TARGET, 512)),
        ([0xff; 8], &read, &[into], Reply::refused(R::BAD_TARGET, 512)),
        // Of variable length, which nothing here has; and nothing at all.
        (lun, &[0x7f; 32], &[into], Reply::check(5, 0x2000, 512)),
        (lun, &[], &[], Reply::GOOD),
        // Past the end.
        (lun, &[0x28, 0, 0, 1, 0, 0, 0, 0, 1, 0], &[into], Reply::check(5, 0x2100, 512)),
    ] {
        let command = driver.begin_at(0, lun, cdb, data);
        assert_eq!(driver.finish(&command), expected, "{lun:?} {cdb:?} {data:?}");
    }
    let asked = disk.journal().len();
    assert_eq!(asked, 3, "what was refused came to no disk");

    // A header that is cut, with room for the answer.
    let short = driver.0.guest.put(&[1; 50]);
    let response = driver.0.guest.alloc(108, 16);
    let bufs = [Buf::Out(short, 50), Buf::In(response, 108)];
    let head = driver.0.queues[2].ring.place(&bufs);
    driver.0.submit(2);
    driver.0.queues[2].wait(head);
    assert_eq!(driver.0.guest.read(response + 11, 1), [Response::FAILURE.0]);
    // No room for the answer: nothing can be said, and the ring is broken.
    driver.0.queues[2].ring.place(&[Buf::Out(short, 50), Buf::In(response, 107)]);
    driver.0.submit(2);
    server.notices.wait_for("Fault { queue: 2, fault: Short");
}

#[test]
fn a_driver_may_choose_its_sizes() {
    use proto::vhost_user::Request;
    let (_disk, _server, mut driver) = one_lun(1);
    // sense_size 18, cdb_size 16
    let bytes = [18, 0, 0, 0, 16, 0, 0, 0].to_vec();
    driver.0.client.done(Request::SetConfig { offset: 20, flags: 0, bytes });
    let mut request = [&address_of(0)[..], &[0; 11], &[0x28, 0, 0, 0, 0, 1, 0, 0, 1]].concat();
    request.resize(35, 0);
    let out = driver.0.guest.put(&request);
    let (response, data) = (driver.0.guest.alloc(30, 16), driver.0.guest.alloc(512, 512));
    let bufs = [Buf::Out(out, 35), Buf::In(response, 30), Buf::In(data, 512)];
    let head = driver.0.queues[2].ring.place(&bufs);
    driver.0.submit(2);
    assert_eq!(driver.0.queues[2].wait(head).len, 542);
    assert_eq!(driver.0.guest.read(response, 12), [0; 12]);
}

#[test]
fn what_is_repeatable_runs_again_in_its_order_and_the_rest_is_cleared() {
    let (disk, mut server, mut driver) = one_lun(1);
    disk.hold(true);
    let at = driver.0.guest.alloc(512, 512);
    let list = driver.0.guest.put(&unmap_list(40, 8));
    let mut begun = Vec::new();
    let mut begin = |driver: &mut ScsiDriver, bytes: &[u8], data: Option<Buf>| {
        begun.push(driver.begin(0, 0, cdb(bytes), data));
    };
    begin(&mut driver, &[0x2a, 0, 0, 0, 0, 3, 0, 0, 1], Some(Buf::Out(at, 512)));
    begin(&mut driver, &[0x28, 0, 0, 0, 0, 2, 0, 0, 1], Some(Buf::In(at, 512)));
    // WRITE SAME of 2 blocks: it is not known how far it came.
    begin(&mut driver, &[0x41, 0, 0, 0, 0, 9, 0, 0, 2], Some(Buf::Out(at, 512)));
    begin(&mut driver, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24], Some(Buf::Out(list, 24)));
    begin(&mut driver, &[0x35], None);
    begin(&mut driver, &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], Some(Buf::In(at, 512)));
    disk.wait_begun(6);
    let seen = |disk: &Disk, from: usize| {
        let entries = disk.journal().split_off(from);
        entries.iter().map(|entry| (entry.op, entry.offset / 512)).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let before = disk.journal().len();
        server.kill_and_restart(&[(0, &disk)]);
        driver.0.reconnect(&server.path());
        disk.wait_begun(before + 5);
        let write = Op::Write { fua: false, atomic: false };
        let expected =
            [(write, 3), (Op::Read, 2), (Op::Discard, 40), (Op::Flush, 0), (Op::Read, 1)];
        let again = seen(&disk, before);
        let is_write = |op: &Op| matches!(op, Op::Write { .. });
        let same = |(op, lba): &(Op, u64), (other, at): &(Op, u64)| {
            lba == at && (op == other || is_write(op) && is_write(other))
        };
        assert!(again.iter().zip(&expected).all(|(a, b)| same(a, b)), "{again:?}");
        assert_eq!(again.len(), expected.len());
    }
    disk.answer_all();
    for (number, command) in begun.iter().enumerate() {
        let reply = driver.finish(command);
        match number {
            2 => assert_eq!(reply, Reply::check(6, 0x2f02, 512)),
            _ => assert_eq!(reply, Reply::GOOD, "{number}"),
        }
    }
    assert_eq!(driver.run(0, cdb(&[0]), None), Reply::GOOD);
}

/// The parameter list of an UNMAP of one range.
fn unmap_list(lba: u8, blocks: u8) -> [u8; 24] {
    let mut list = [0; 24];
    (list[1], list[3], list[15], list[19]) = (22, 16, lba, blocks);
    list
}

#[test]
fn a_task_is_aborted_wherever_it_runs() {
    let (disk, _server, mut driver) = one_lun(3);
    disk.hold(true);
    let at = driver.0.guest.alloc(512, 512);
    let read = cdb(&[0x28, 0, 0, 0, 0, 2, 0, 0, 1]);
    for queue in 0..3 {
        let tag = 100 + queue as u64;
        let command = driver.begin_as(queue, (address_of(0), tag, 0), &read, &[Buf::In(at, 512)]);
        disk.wait_begun(queue + 1);
        assert_eq!(driver.manage(QUERY_TASK, 0, tag), Response::FUNCTION_SUCCEEDED);
        assert_eq!(driver.manage(QUERY_TASK, 0, 99), Response::OK);
        let abort = driver.begin_manage(ABORT_TASK, 0, tag);
        // What runs cannot be called back: the function waits for it.
        assert_eq!(driver.manage(ABORT_TASK, 0, 99), Response::OK);
        assert!(driver.0.queues[0].take_answer(abort.0).is_none());
        disk.answer(queue, How::Do);
        assert_eq!(driver.finish_manage(abort), Response::OK);
        // The task's own answer is there when the function is answered.
        driver.0.queues[2 + queue].reap_all();
        assert!(driver.0.queues[2 + queue].take_answer(command.head).is_some());
        assert_eq!(driver.reply(&command), Reply::refused(Response::ABORTED, 512));
        assert_eq!(driver.manage(QUERY_TASK, 0, tag), Response::OK);
    }
}

#[test]
fn a_reset_tells_tasks_to_come_again() {
    let (disk, _server, mut driver) = one_lun(1);
    disk.hold(true);
    let command = driver.begin_write(0, 0, 0, &[1; 512]);
    disk.wait_begun(1);
    let reset = driver.begin_manage(LOGICAL_UNIT_RESET, 0, 0);
    assert_eq!(driver.manage(ABORT_TASK_SET, 7, 0), Response::INCORRECT_LUN);
    disk.answer_all();
    assert_eq!(driver.finish_manage(reset), Response::OK);
    assert_eq!(driver.finish(&command).response, Response::RESET);
    assert_eq!(driver.run(0, cdb(&[0]), None).sense, Some((6, 0x2903)));
    assert_eq!(driver.run(0, cdb(&[0]), None), Reply::GOOD);
}

#[test]
fn task_management_of_a_dead_server_is_not_carried_out() {
    let (disk, mut server, mut driver) = one_lun(1);
    disk.hold(true);
    let write = driver.begin_write(0, 0, 0, &[1; 512]);
    disk.wait_begun(1);
    let abort = driver.begin_manage(ABORT_TASK_SET, 0, 0);
    // It has been taken when the next one is answered.
    assert_eq!(driver.manage(QUERY_TASK, 0, 99), Response::OK);
    server.kill_and_restart(&[(0, &disk)]);
    driver.0.reconnect(&server.path());
    assert_eq!(driver.finish_manage(abort), Response::BUSY);
    disk.wait_begun(2);
    disk.answer_all();
    assert_eq!(driver.finish(&write), Reply::GOOD);
}

#[test]
fn whoever_comes_next_is_told_unless_the_guest_has_moved_away() {
    let (_disk, server, mut driver) = one_lun(1);
    let turn = |driver: &mut ScsiDriver| driver.run(0, cdb(&[0]), None);
    assert_eq!(turn(&mut driver), Reply::GOOD);
    driver.0.reconnect_after_hanging_up(&server.path());
    assert_eq!(turn(&mut driver), Reply::check(6, 0x2907, 0));
    assert_eq!(turn(&mut driver), Reply::GOOD);
    driver.0.start_log(Log::new(1 << 30));
    driver.0.reconnect_after_hanging_up(&server.path());
    assert_eq!(turn(&mut driver), Reply::GOOD);
}

#[test]
fn luns_come_and_go_and_change() {
    let (disk, server, mut driver) = one_lun(2);
    let buffers = driver.give_event_buffers(4);
    server.plug(7, &disk);
    assert_eq!(driver.event(buffers[0]), (1, 7, 1));
    let (reply, inquiry) = driver.read(7, cdb(&[0x12, 0, 0, 0, 36]), 36);
    assert_eq!((reply, inquiry[0]), (Reply::GOOD, 0));
    // Of an attention each core has raised, the driver hears once.
    server.change(7, Change::Resized);
    assert_eq!(driver.event(buffers[1]), (3, 7, 0x092a));
    server.unplug(7);
    assert_eq!(driver.event(buffers[2]), (1, 7, 2));
    assert_eq!(driver.run(7, cdb(&[0]), None), Reply::check(5, 0x2500, 0));
    driver.0.queues[1].reap_all();
    assert!(driver.0.queues[1].take_answer(buffers[3].0).is_none());
}

#[test]
fn events_wait_for_buffers_also_those_of_a_dead_server() {
    let (disk, mut server, mut driver) = one_lun(1);
    for number in 1..20 {
        server.plug(number, &disk);
    }
    let few = driver.give_event_buffers(3);
    for (number, buffer) in few.into_iter().enumerate() {
        assert_eq!(driver.event(buffer), (1, number as u8 + 1, 1));
    }
    let many = driver.give_event_buffers(18);
    for (number, buffer) in many[..16].iter().enumerate() {
        assert_eq!(driver.event(*buffer), (1, number as u8 + 4, 1));
    }
    // Two more buffers wait; a server that is killed has not lost them.
    server.kill_and_restart(&[(0, &disk)]);
    driver.0.reconnect(&server.path());
    // Who goes on with another server may have missed something, and is told so.
    assert_eq!(driver.event(many[16]), (EVENTS_MISSED, 0, 0));
    server.plug(30, &disk);
    assert_eq!(driver.event(many[17]), (1, 30, 1));
    assert_eq!(server.info().session.unwrap().queues.len(), 3);
}

#[test]
fn notifications_are_asked_for() {
    let (_disk, _server, mut driver) = one_lun(1);
    for (control_type, lun, requested, expected) in [
        (1, 0, u32::MAX, (Response::OK, 0x18)),
        (1, 0, 2, (Response::OK, 0)),
        (2, 0, 0x10, (Response::OK, 0x10)),
        (2, 0, 0, (Response::OK, 0)),
        (2, 9, 0x10, (Response::INCORRECT_LUN, 0)),
    ] {
        let asked = Notification {
            control_type: control_type.into(),
            lun: address_of(lun),
            event_requested: requested.into(),
        };
        let (head, at) = driver.begin_control(asked.as_bytes(), 5);
        driver.0.queues[0].wait(head);
        let bytes = driver.0.guest.read(at, 5);
        let response = NotificationResponse::read_from_bytes(&bytes).unwrap();
        let got = (Response(response.response), response.event_actual.get());
        assert_eq!(got, expected, "{asked:?}");
    }
    let (head, at) = driver.begin_control(&[9, 0, 0, 0], 1);
    assert_eq!(driver.finish_manage((head, at)), Response::FAILURE);
}

#[test]
fn no_request_is_too_odd() {
    let (disk, server, mut driver) = one_lun(2);
    server.plug(3, &disk);
    let data = driver.0.guest.alloc(4096, 512);
    let request = (0..2usize, 0..4u16, vec(any::<u8>(), 0..32), 0..9u32, any::<(bool, u8)>());
    let mut runner = proptest::test_runner::TestRunner::new(proptest_config(400));
    let driver = std::cell::RefCell::new(&mut driver);
    let tested = runner.run(&request, |(queue, lun, cdb, blocks, (is_out, attribute))| {
        let driver = &mut *driver.borrow_mut();
        let len = blocks * 512;
        let data = match (len, is_out) {
            (0, _) => None,
            (_, true) => Some(Buf::Out(data, len)),
            (_, false) => Some(Buf::In(data, len)),
        };
        // Not FORMAT UNIT and SANITIZE, which go on for long, and no ACA, which stays.
        let cdb: Vec<u8> = cdb.iter().map(|byte| byte & !4).collect();
        prop_assume!(!matches!(cdb.first(), Some(0x48)));
        let address = (address_of(lun), 7, attribute % 3);
        let command = driver.begin_as(queue, address, &cdb, data.as_slice());
        let reply = driver.finish(&command);
        prop_assert!(reply.residual <= len, "{reply:?}");
        Ok(())
    });
    tested.unwrap();
    assert!(!server.notices.contain("Fault"), "{:?}", server.notices.all());
}

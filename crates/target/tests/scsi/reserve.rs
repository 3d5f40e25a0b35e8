//! Reservations as two initiators see them, byte by byte: what libiscsi's suite asks, and what it
//! leaves out.

use std::pin::pin;

use block::{Buffer, Sgl};
use target::lun::reservation::REGISTRANTS_MAX;
use target::lun::{Initiator, NexusId, PortId};
use target::scsi::persist::transport_id;
use target::scsi::{Data, Task};
use wire::scsi::{AdditionalSense as Code, SenseKey, Status};

use crate::support::{BLOCK, Bench, Client, Reply, cdb10, poll};

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const REGISTER_AND_MOVE: u8 = 7;

fn out_cdb(service: u8, kind: u8, length: usize) -> [u8; 10] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [0x5f, service, kind, 0, 0, a, b, c, d, 0]
}

fn out(client: &Client, service: u8, kind: u8, key: u64, action_key: u64) -> Reply {
    let list = list(key, action_key, 0);
    client.send(&out_cdb(service, kind, list.len()), &list)
}

fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&action_key.to_be_bytes());
    list[20] = flags;
    list
}

fn register(client: &Client, key: u64) {
    out(client, REGISTER_AND_IGNORE, 0, 0, key).good();
}

fn read(client: &Client, service: u8, room: u8) -> Vec<u8> {
    client.ask(&[0x5e, service, 0, 0, 0, 0, 0, 0, room, 0]).good()
}

/// Generation and keys.
fn keys(client: &Client) -> (u32, Vec<u64>) {
    let data = read(client, 0, 255);
    let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!(number(4) as usize, data.len() - 8);
    let (keys, rest) = data[8..].as_chunks::<8>();
    assert!(rest.is_empty());
    (number(0), keys.iter().map(|key| u64::from_be_bytes(*key)).collect())
}

/// Type and key of the reservation.
fn reserved(client: &Client) -> Option<(u8, u64)> {
    let data = read(client, 1, 255);
    (data.len() > 8).then(|| (data[21], u64::from_be_bytes(data[8..16].try_into().unwrap())))
}

#[track_caller]
fn conflicts(reply: Reply) {
    assert_eq!(reply.answer.status, Status::RESERVATION_CONFLICT);
    assert_eq!(reply.answer.sense, None);
}

fn writes(client: &Client) -> bool {
    let reply = client.send(&cdb10(0x2a, 0, 0, 1), &[7; BLOCK]);
    reply.answer.status == Status::GOOD
}

fn reads(client: &Client) -> bool {
    client.ask(&cdb10(0x28, 0, 0, 1)).answer.status == Status::GOOD
}

/// Every type: who may read and write, registered and not, and who has it then.
#[test]
fn access_is_as_the_type_says() {
    for (kind, registered, outsider) in [
        (1, (true, false), (true, false)),
        (3, (false, false), (false, false)),
        (5, (true, true), (true, false)),
        (6, (true, true), (false, false)),
        (7, (true, true), (true, false)),
        (8, (true, true), (false, false)),
    ] {
        let bench = Bench::new();
        let (a, b) = (bench.nexus("a"), bench.nexus("b"));
        register(&a, 1);
        register(&b, 2);
        out(&a, RESERVE, kind, 1, 0).good();
        let shown = if kind >= 7 { 0 } else { 1 };
        assert_eq!(reserved(&a), Some((kind, shown)));
        assert!(reads(&a) && writes(&a));
        assert_eq!((reads(&b), writes(&b)), registered, "registered, type {kind}");
        out(&b, REGISTER, 0, 2, 0).good();
        assert_eq!((reads(&b), writes(&b)), outsider, "not registered, type {kind}");
        b.ask(&[0, 0, 0, 0, 0, 0]).good();
        b.ask(&[0x12, 0, 0, 0, 36, 0]).good();
        let other = if kind == 1 { 3 } else { 1 };
        let wrong = out(&a, RELEASE, other, 1, 0);
        wrong.illegal(Code::INVALID_RELEASE_OF_PERSISTENT_RESERVATION);
        out(&a, RELEASE, kind, 1, 0).good();
        assert_eq!(reserved(&a), None);
        assert!(reads(&b) && writes(&b));
    }
}

#[test]
fn a_reservation_ends_with_the_registration_of_its_holder_unless_all_hold_it() {
    for kind in [1, 3, 5, 6, 7, 8] {
        let bench = Bench::new();
        let (a, b) = (bench.nexus("a"), bench.nexus("b"));
        register(&a, 1);
        register(&b, 2);
        out(&a, RESERVE, kind, 1, 0).good();
        out(&a, REGISTER, 0, 1, 0).good();
        if matches!(kind, 5 | 6) {
            b.ask(&[0; 6]).attention(Code::RESERVATIONS_RELEASED);
        }
        b.ask(&[0; 6]).good();
        assert_eq!(reserved(&b), (kind >= 7).then_some((kind, 0)));
    }
}

#[test]
fn a_key_is_needed_to_change_a_key() {
    let bench = Bench::new();
    let a = bench.nexus("a");
    conflicts(out(&a, REGISTER, 0, 5, 6));
    out(&a, REGISTER, 0, 0, 5).good();
    conflicts(out(&a, REGISTER, 0, 4, 6));
    conflicts(out(&a, RESERVE, 1, 4, 0));
    assert_eq!(keys(&a), (1, vec![5]));
    out(&a, REGISTER, 0, 5, 6).good();
    assert_eq!(keys(&a), (2, vec![6]));
    out(&a, REGISTER, 0, 6, 0).good();
    assert_eq!(keys(&a), (3, vec![]));
    out(&a, REGISTER, 0, 0, 0).good();
    assert_eq!(keys(&a), (3, vec![]));
}

#[test]
fn keys_are_cut_to_the_room_and_their_length_is_not() {
    let bench = Bench::new();
    let a = bench.nexus("a");
    register(&a, 5);
    assert_eq!(read(&a, 0, 8), [0, 0, 0, 1, 0, 0, 0, 8]);
    assert_eq!(read(&a, 0, 3), [0, 0, 0]);
    assert_eq!(read(&a, 0, 0), []);
}

#[test]
fn service_actions_that_there_are_not_are_refused() {
    let a = Bench::new().nexus("a");
    for service in 0..32 {
        let reply = a.ask(&[0x5e, service, 0, 0, 0, 0, 0, 1, 0, 0]);
        if service < 4 { _ = reply.good() } else { reply.invalid_field() }
    }
    for service in 8..32 {
        out(&a, service, 0, 0, 0).invalid_field();
    }
    out(&a, RESERVE, 0x11, 0, 0).invalid_field();
    let length = |length: usize, list: &[u8]| a.send(&out_cdb(REGISTER, 0, length), list);
    length(23, &[0; 23]).illegal(Code::PARAMETER_LIST_LENGTH_ERROR);
    length(25, &[0; 25]).illegal(Code::PARAMETER_LIST_LENGTH_ERROR);
    length(24, &[0; 16]).illegal(Code::PARAMETER_LIST_LENGTH_ERROR);
}

#[test]
fn clear_and_preempt_count_and_tell() {
    let bench = Bench::new();
    let (a, b) = (bench.nexus("a"), bench.nexus("b"));
    register(&a, 1);
    register(&b, 2);
    assert_eq!(keys(&a), (2, vec![1, 2]));
    out(&b, PREEMPT, 3, 2, 1).good();
    a.ask(&[0; 6]).attention(Code::REGISTRATIONS_PREEMPTED);
    a.ask(&[0; 6]).good();
    b.ask(&[0; 6]).good();
    assert_eq!(keys(&a), (3, vec![2]));
    conflicts(out(&a, CLEAR, 0, 1, 0));
    register(&a, 1);
    out(&a, RESERVE, 3, 1, 0).good();
    conflicts(out(&b, RESERVE, 3, 2, 0));
    conflicts(out(&b, PREEMPT, 1, 2, 9));
    out(&b, PREEMPT, 1, 2, 0).invalid_parameter();
    out(&b, PREEMPT, 0, 2, 1).invalid_field();
    out(&b, PREEMPT, 5, 2, 1).good();
    assert_eq!(reserved(&b), Some((5, 2)));
    a.ask(&[0; 6]).attention(Code::REGISTRATIONS_PREEMPTED);
    register(&a, 1);
    out(&a, CLEAR, 0, 1, 0).good();
    b.ask(&[0; 6]).attention(Code::RESERVATIONS_PREEMPTED);
    assert_eq!((keys(&a), reserved(&a)), ((7, vec![]), None));
}

/// PREEMPT AND ABORT is answered when the victim's write has ended, and the victim's answer, if it
/// wants one, says so.
#[test]
fn preempt_and_abort_waits_for_the_write_that_it_aborts() {
    let bench = Bench::new();
    let (a, b) = (bench.nexus("a"), bench.nexus("b"));
    register(&a, 1);
    register(&b, 2);
    out(&a, RESERVE, 5, 1, 0).good();
    bench.disk.slow.set(true);
    let block = Buffer::from_bytes(&[7; BLOCK]);
    let write = b.nexus.parse([0; 8], &cdb10(0x2a, 0, 0, 1)).unwrap();
    let data = Data { out: block.sgl(), into: Sgl::empty() };
    let mut writing = pin!(b.nexus.execute(&write, Task::default(), data));
    assert!(poll(writing.as_mut()).is_pending());

    let parameters = Buffer::from_bytes(&list(1, 2, 0));
    let preempt = a.nexus.parse([0; 8], &out_cdb(PREEMPT_AND_ABORT, 5, 24)).unwrap();
    let data = Data { out: parameters.sgl(), into: Sgl::empty() };
    let mut preempting = pin!(a.nexus.execute(&preempt, Task::default(), data));
    assert!(poll(preempting.as_mut()).is_pending(), "the write is still with the disk");
    bench.disk.slow.set(false);
    b.ask(&[0; 6]).attention(Code::REGISTRATIONS_PREEMPTED);
    b.ask(&[0; 6]).attention(Code::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR);
    assert!(!writes(&b) && reads(&b), "in force before it is answered");
    bench.disk.release();
    let written = bench.world.block_on(writing);
    assert!(written.silent);
    assert_eq!(bench.world.block_on(preempting).status, Status::GOOD);
    assert_eq!(keys(&a).1, [1]);
}

#[test]
fn capabilities_are_told() {
    let a = Bench::new().nexus("a");
    assert_eq!(read(&a, 2, 255), [0, 8, 0x1d, 0x90, 0xea, 0x01, 0, 0]);
    let list = list(0, 5, 1);
    a.send(&out_cdb(REGISTER, 0, 24), &list).good();
    assert_eq!(read(&a, 2, 255)[3], 0x91, "to survive loss of power");
    out(&a, REGISTER, 0, 5, 6).good();
    assert_eq!(read(&a, 2, 255)[3], 0x90, "the last registration has the say");
}

/// The name of an initiator as its transport gives it.
fn named(name: &str) -> Initiator {
    transport_id::iscsi(name, [0, 2, 0x3d, 0, 0, 1]).unwrap()
}

#[test]
fn others_are_registered_and_given_the_reservation_by_name() {
    let bench = Bench::new();
    let a = bench.nexus("a");
    let b = bench.nexus_of(NexusId::new(named("iqn.b"), PortId(1)));
    // Written in another way than the transport does.
    let mut id = named("iqn.b").bytes().to_vec();
    id[4..9].make_ascii_uppercase();
    let mut also = list(0, 5, 0x08);
    also.extend((id.len() as u32).to_be_bytes());
    also.extend(&id);
    a.send(&out_cdb(REGISTER, 0, also.len()), &also).good();
    assert_eq!(keys(&b), (1, vec![5, 5]));
    conflicts(a.send(&out_cdb(REGISTER, 0, also.len()), &also));
    out(&a, RESERVE, 3, 5, 0).good();
    let mut move_to = vec![0; 24];
    move_to[7] = 5;
    move_to[15] = 9;
    move_to[17] = 0x02;
    move_to[19] = 1;
    move_to[23] = id.len() as u8;
    move_to.extend(&id);
    a.send(&out_cdb(REGISTER_AND_MOVE, 0, move_to.len()), &move_to).good();
    assert!(writes(&b) && !reads(&a));
    assert_eq!((keys(&a).1, reserved(&a)), (vec![9], Some((3, 9))));
    let status = read(&b, 3, 255);
    assert_eq!(status[8 + 7], 9);
    assert_eq!((status[8 + 12], status[8 + 13], status[8 + 19]), (1, 3, 1));
    assert_eq!(status[8 + 24..], *named("iqn.b").bytes(), "in its normal form");
    conflicts(a.send(&out_cdb(REGISTER_AND_MOVE, 0, move_to.len()), &move_to));
}

#[test]
fn simple_reservations_shut_the_others_out() {
    let bench = Bench::new();
    let (a, b) = (bench.nexus("a"), bench.nexus("b"));
    let (reserve, release) = ([0x16, 0, 0, 0, 0, 0], [0x17, 0, 0, 0, 0, 0]);
    a.ask(&reserve).good();
    a.ask(&reserve).good();
    conflicts(b.ask(&reserve));
    b.ask(&release).good();
    assert!(writes(&a) && !reads(&b));
    conflicts(b.ask(&[0x1a, 0, 0x3f, 0, 255, 0]));
    conflicts(b.ask(&[0; 6]));
    b.ask(&[0x12, 0, 0, 0, 36, 0]).good();
    conflicts(a.ask(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0]));
    conflicts(out(&a, REGISTER_AND_IGNORE, 0, 0, 1));
    a.ask(&release).good();
    b.ask(&reserve).good();
    b.ask(&release).good();
    register(&a, 1);
    conflicts(a.ask(&reserve));
    out(&a, RESERVE, 5, 1, 0).good();
    a.ask(&reserve).good();
    a.ask(&release).good();
    conflicts(b.ask(&reserve));
    conflicts(b.ask(&release));
    assert_eq!(reserved(&a), Some((5, 1)), "which they leave alone");
}

#[test]
fn one_registration_too_many_is_refused() {
    let bench = Bench::new();
    let a = bench.nexus("a");
    let mut registered = 0;
    while registered < REGISTRANTS_MAX {
        let count = (REGISTRANTS_MAX - registered).min(500) as u64;
        let first = bench.nexus(&format!("first-{registered}"));
        let ids: Vec<Initiator> =
            (1..count).map(|at| transport_id::sas(registered as u64 + at)).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.bytes()).copied().collect();
        let mut list = list(0, 5, 0x08);
        list.extend((bytes.len() as u32).to_be_bytes());
        list.extend(bytes);
        first.send(&out_cdb(REGISTER, 0, list.len()), &list).good();
        registered += count as usize;
    }
    let reply = out(&a, REGISTER_AND_IGNORE, 0, 0, 1);
    reply.fails(SenseKey::ILLEGAL_REQUEST, Code::INSUFFICIENT_REGISTRATION_RESOURCES);
}

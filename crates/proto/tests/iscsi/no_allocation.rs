//! A command costs no allocation, on either side, once the queues have grown to what the load
//! needs: counted by the allocator of this test's program.

use crate::allocator::of_this_thread as allocations;
use crate::support::{INITIATOR, Known, LUN, TARGET, config};
use proto::iscsi::initiator::{self, Initiator, NewCommand};
use proto::iscsi::{
    Admission, Answer, DigestPolicy, Direction, Event, Head, Segment, SessionKind, Target, Wishes,
};
use std::rc::Rc;

const LENGTH: u32 = 3000;
const DEPTH: u32 = 8;
const ROUNDS: u32 = 50;

/// Both ends of a line, with room for what is on it.
struct Line {
    target: Target,
    initiator: Initiator,
    to_target: Vec<u8>,
    to_initiator: Vec<u8>,
    done: u32,
}

impl Line {
    fn new(wishes: Wishes) -> Self {
        let target_config = proto::iscsi::Config { wishes, ..config() };
        let initiator_config = initiator::Config {
            wishes,
            name: INITIATOR.into(),
            isid: [1; 6],
            kind: SessionKind::Normal { target: TARGET.into() },
            chap: None,
            commands: 16,
        };
        Self {
            target: Target::new(target_config, Rc::new(Known::default()), [1; 33]),
            initiator: Initiator::new(initiator_config, [2; 33]),
            to_target: Vec::with_capacity(1 << 17),
            to_initiator: Vec::with_capacity(1 << 17),
            done: 0,
        }
    }

    fn turn(&mut self) {
        let mut head = Head::new();
        let data = [7; LENGTH as usize];
        while let Some(segment) = self.initiator.next_pdu(&mut head) {
            self.to_target.extend_from_slice(head.as_bytes());
            match segment {
                initiator::Segment::Bytes(bytes) => self.to_target.extend_from_slice(bytes),
                initiator::Segment::DataOut { offset, length, .. } => {
                    let data = &data[offset as usize..(offset + length) as usize];
                    let digest = proto::iscsi::Digest::new().update(data);
                    self.to_target.extend_from_slice(data);
                    let trailer = self.initiator.trailer(length, digest);
                    self.to_target.extend_from_slice(trailer.as_bytes());
                }
            }
        }
        self.serve();
        while let Some(segment) = self.target.next_pdu(&mut head) {
            self.to_initiator.extend_from_slice(head.as_bytes());
            match segment {
                Segment::Bytes(bytes) => self.to_initiator.extend_from_slice(bytes),
                Segment::DataIn { offset, length, .. } => {
                    let data = &data[offset as usize..(offset + length) as usize];
                    let digest = proto::iscsi::Digest::new().update(data);
                    self.to_initiator.extend_from_slice(data);
                    let trailer = self.target.trailer(length, digest);
                    self.to_initiator.extend_from_slice(trailer.as_bytes());
                }
            }
        }
        self.collect();
    }

    fn serve(&mut self) {
        let mut at = 0;
        loop {
            let progress = self.target.handle_input(&self.to_target[at..]);
            at += progress.consumed;
            match progress.event {
                Event::Idle { .. } => break,
                Event::Admit => self.target.admit(&Admission::Granted { tsih: 1 }),
                Event::Command { task, receives } => {
                    if !receives || self.target.accept(task, LENGTH) {
                        self.target.respond(task, &DONE);
                    }
                }
                Event::DataOut(data) => {
                    let end = at + data.length as usize;
                    let digest = self.target.incoming_digest().update(&self.to_target[at..end]);
                    self.target.handle_placed(data.length, digest);
                    at = end;
                }
                Event::DataEnd { task, fault } => {
                    assert_eq!(fault, None);
                    self.target.respond(task, &DONE);
                }
                Event::LoggedIn => {}
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(at, self.to_target.len());
        self.to_target.clear();
    }

    fn collect(&mut self) {
        let mut at = 0;
        loop {
            let progress = self.initiator.handle_input(&self.to_initiator[at..]);
            at += progress.consumed;
            match progress.event {
                initiator::Event::Idle { .. } => break,
                initiator::Event::DataIn(data) => {
                    let end = at + data.length as usize;
                    let arrived = &self.to_initiator[at..end];
                    let digest = self.initiator.incoming_digest().update(arrived);
                    self.initiator.handle_placed(data.length, digest);
                    at = end;
                }
                initiator::Event::Done { outcome, .. } => {
                    assert_eq!(outcome.status, 0);
                    self.done += 1;
                }
                initiator::Event::LoggedIn => {}
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(at, self.to_initiator.len());
        self.to_initiator.clear();
    }

    fn round(&mut self, direction: Direction) {
        for _ in 0..DEPTH {
            let command =
                NewCommand { lun: LUN, cdb: &[0x28; 10], attribute: 1, direction, length: LENGTH };
            self.initiator.command(&command).unwrap();
        }
        let before = self.done;
        while self.done < before + DEPTH {
            self.turn();
        }
    }
}

const DONE: Answer<'static> =
    Answer { status: 0, moved: LENGTH, wanted: LENGTH as u64, sense: &[] };

#[test]
fn commands_cost_no_allocation() {
    let digest = DigestPolicy::Required;
    let small = Wishes {
        header_digest: digest,
        data_digest: digest,
        max_recv_data_segment_length: 512,
        max_burst_length: 1024,
        first_burst_length: 800,
        ..Wishes::default()
    };
    // All in one PDU; in many, with unsolicited data; and with R2Ts only.
    let solicited = Wishes { initial_r2t: true, immediate_data: false, ..small };
    for wishes in [Wishes::default(), small, solicited] {
        let mut line = Line::new(wishes);
        for _ in 0..4 {
            line.turn();
        }
        for direction in [Direction::In, Direction::Out] {
            for _ in 0..3 {
                line.round(direction);
            }
            let before = allocations();
            assert!(before > 0, "a login allocates");
            for _ in 0..ROUNDS {
                line.round(direction);
            }
            assert_eq!(allocations() - before, 0, "{direction:?} with {wishes:?}");
        }
    }
}

//! The owner of an initiator, and the line between it and a target.

use super::{Host, INITIATOR, TARGET};
use proto::iscsi::initiator::{Config, Event, Initiator, NewCommand, Outcome, Segment, TaskId};
use proto::iscsi::{Digest, Direction, HEADER_BYTES_MAX, Head, SessionKind, Wishes};
use std::collections::HashMap;

pub const LUN: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

pub fn normal(wishes: Wishes) -> Config {
    Config {
        wishes,
        name: INITIATOR.into(),
        isid: [0x80, 1, 2, 3, 4, 5],
        kind: SessionKind::Normal { target: TARGET.into() },
        chap: None,
        commands: 16,
    }
}

pub struct Client {
    pub initiator: Initiator,
    /// Events but Idle, DataIn and Done.
    pub events: Vec<Event>,
    pub done: HashMap<TaskId, (Outcome, Vec<u8>)>,
    pub reads: HashMap<TaskId, Vec<u8>>,
    pub writes: HashMap<TaskId, Vec<u8>>,
    pub chunk: usize,
    input: Vec<u8>,
}

impl Client {
    pub fn new(config: Config) -> Self {
        Self {
            initiator: Initiator::new(config, [0xa5; 33]),
            events: Vec::new(),
            done: HashMap::new(),
            reads: HashMap::new(),
            writes: HashMap::new(),
            chunk: usize::MAX,
            input: Vec::new(),
        }
    }

    /// READ of the host's disk: an address and a length of bytes.
    pub fn read(&mut self, at: u32, length: u32) -> TaskId {
        self.command(0x28, at, Direction::In, length)
    }

    pub fn write(&mut self, at: u32, data: &[u8]) -> TaskId {
        let task = self.command(0x2a, at, Direction::Out, data.len() as u32);
        self.writes.insert(task, data.to_vec());
        task
    }

    pub fn command(&mut self, code: u8, at: u32, direction: Direction, length: u32) -> TaskId {
        let mut cdb = [0; 10];
        cdb[0] = code;
        cdb[2..6].copy_from_slice(&at.to_be_bytes());
        let command = NewCommand { lun: LUN, cdb: &cdb, attribute: 1, direction, length };
        self.initiator.command(&command).unwrap()
    }

    pub fn arrive(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.chunk) {
            self.input.extend_from_slice(piece);
            self.read_input();
        }
    }

    fn read_input(&mut self) {
        let mut at = 0;
        loop {
            let progress = self.initiator.handle_input(&self.input[at..]);
            at += progress.consumed;
            match progress.event {
                Event::Idle { needed } => {
                    assert!(needed > self.input.len() - at && needed <= HEADER_BYTES_MAX);
                    break;
                }
                Event::DataIn(_) => match self.place(at) {
                    0 => break,
                    count => at += count,
                },
                Event::Done { task, outcome } => {
                    let data = self.reads.remove(&task).unwrap_or_default();
                    assert_eq!(outcome.received as usize, data.len());
                    self.writes.remove(&task);
                    assert!(self.done.insert(task, (outcome, data)).is_none());
                }
                Event::Ended | Event::Blocked => {
                    if self.events.last() != Some(&progress.event) {
                        self.events.push(progress.event);
                    }
                    break;
                }
                event => self.events.push(event),
            }
        }
        self.input.drain(..at);
    }

    fn place(&mut self, at: usize) -> usize {
        let wanted = self.initiator.data_in().unwrap();
        let there = &self.input[at..];
        let count = there.len().min(wanted.length as usize);
        let memory = self.reads.entry(wanted.task).or_default();
        assert_eq!(memory.len(), wanted.offset as usize, "data comes in order");
        memory.extend_from_slice(&there[..count]);
        let digest = self.initiator.incoming_digest().update(&there[..count]);
        self.initiator.handle_placed(count as u32, digest);
        count
    }

    /// Everything that the initiator has to send.
    pub fn send(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut head = Head::new();
        while let Some(segment) = self.initiator.next_pdu(&mut head) {
            bytes.extend_from_slice(head.as_bytes());
            match segment {
                Segment::Bytes(data) => bytes.extend_from_slice(data),
                Segment::DataOut { task, offset, length } => {
                    let (from, to) = (offset as usize, (offset + length) as usize);
                    let data = &self.writes[&task][from..to];
                    bytes.extend_from_slice(data);
                    let digest = Digest::new().update(data);
                    bytes.extend_from_slice(self.initiator.trailer(length, digest).as_bytes());
                }
            }
        }
        bytes
    }
}

/// Both sides talk until nobody has anything to say. What they said, in both directions.
pub fn talk(client: &mut Client, host: &mut Host) -> (Vec<u8>, Vec<u8>) {
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    loop {
        let out = client.send();
        host.arrive(&out);
        let back = host.transmit();
        client.arrive(&back);
        if out.is_empty() && back.is_empty() {
            return (said, heard);
        }
        said.extend(out);
        heard.extend(back);
    }
}

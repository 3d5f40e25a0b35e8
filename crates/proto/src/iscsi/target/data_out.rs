//! Data from the initiator: immediate data, unsolicited Data-Out PDUs, and those that R2Ts asked
//! for (RFC 7143, 4.2.5.2, 11.7, 11.8).
//!
//! Everything comes in order (DataPDUInOrder and DataSequenceInOrder are Yes), so where a task is
//! takes a few numbers: sequences follow each other, and every solicited one but the last has
//! MaxBurstLength bytes. What does not fit is a fault of the task: the rest of its data is thrown
//! away, no more is asked for, and when all that was asked for is over the owner is told (11.4.7.2,
//! 7.9).

use super::Target;
use super::tasks::{INDEX_BITS, State};
use super::{Event, TaskId};
use crate::iscsi::parameters::Parameters;
use crate::iscsi::receive::Fate;
use wire::iscsi::{DataOut as DataOutPdu, Header, RESERVED_TAG, RejectReason, flag};

/// Data of a command is coming in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOut {
    pub task: TaskId,
    /// Where in the command's data these bytes belong.
    pub offset: u32,
    pub length: u32,
}

/// Data of a command that is not what it should be. The command fails with ABORTED COMMAND and
/// these additional sense codes (RFC 7143, 11.4.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// A digest was wrong, or a PDU is missing.
    Lost,
    /// Data that nobody asked for.
    Unsolicited,
    /// More or less of it than was asked for.
    Amount,
}

impl DataFault {
    /// Additional sense code and qualifier.
    pub const fn additional_sense(self) -> u16 {
        match self {
            Self::Lost => 0x4705,
            Self::Unsolicited => 0x0c0c,
            Self::Amount => 0x0c0d,
        }
    }
}

/// How far the data of a task has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataOutState {
    /// The owner has said how much it wants.
    pub accepted: bool,
    pub want: u32,
    /// Unsolicited PDUs are still to come.
    pub unsolicited: bool,
    /// Everything before this offset has arrived.
    pub received: u32,
    /// Where the first solicited sequence begins.
    pub base: u32,
    /// Everything before this offset was asked for.
    pub requested: u32,
    pub r2t_sn: u32,
    /// Sequences that have ended, of those that R2Ts asked for.
    pub r2t_done: u32,
    /// DataSN of the next PDU of the sequence that is coming in.
    pub data_sn: u32,
    pub fault: Option<DataFault>,
    /// It stands in the queue of what is to be sent.
    pub queued: bool,
}

impl DataOutState {
    /// Sequences that the initiator may still send PDUs of.
    pub fn is_open(&self) -> bool {
        self.unsolicited || self.r2t_sn != self.r2t_done
    }

    /// Where the sequence that is coming in ends.
    fn sequence_end(&self, solicited: bool, expected: u32, parameters: &Parameters) -> u32 {
        if !solicited {
            return expected.min(parameters.first_burst_length);
        }
        let before = u64::from(self.r2t_done) * u64::from(parameters.max_burst_length);
        let end = u64::from(self.base) + before + u64::from(parameters.max_burst_length);
        end.min(u64::from(self.requested)) as u32
    }

    /// What the next R2T asks for, if one may be sent now: offset and length.
    pub fn next_request(&self, parameters: &Parameters) -> Option<(u32, u32)> {
        let outstanding = self.r2t_sn.wrapping_sub(self.r2t_done);
        let may = self.accepted && !self.unsolicited && self.fault.is_none();
        if !may || outstanding >= parameters.max_outstanding_r2t || self.requested >= self.want {
            return None;
        }
        let length = parameters.max_burst_length.min(self.want - self.requested);
        Some((self.requested, length))
    }

    /// Nothing more will come, and nothing more is to be asked for.
    pub fn is_complete(&self) -> bool {
        self.accepted && !self.is_open() && (self.fault.is_some() || self.requested >= self.want)
    }

    fn fail(&mut self, fault: DataFault) {
        self.fault.get_or_insert(fault);
    }
}

/// A target transfer tag: place, low bits of R2TSN, generation. Never the reserved tag.
pub(super) fn transfer_tag(id: TaskId, r2t_sn: u32) -> u32 {
    let sn = r2t_sn & SN_MASK;
    id.index() as u32 | sn << INDEX_BITS | u32::from(id.generation()) << 16
}

const SN_MASK: u32 = (1 << (16 - INDEX_BITS)) - 1;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

impl Target {
    /// The owner takes `want` bytes of the command's data (less than was announced, or nothing,
    /// when it has already failed). True: all of it is here, or none will come, so run the command
    /// now; false: [`Event::DataEnd`] will tell.
    pub fn accept(&mut self, id: TaskId, want: u32) -> bool {
        let Some(task) = self.tasks.find(id) else { return true };
        assert!(task.state == State::Receiving && !task.data_out.accepted, "accepted twice");
        task.data_out.accepted = true;
        task.data_out.want = want.min(task.expected);
        task.data_out.requested = task.data_out.base;
        // Immediate data of this command is yet to be read.
        if let Some(incoming) = self.incoming.as_mut().filter(|it| it.task == id) {
            let is_sound = task.data_out.fault.is_none();
            incoming.keep = if is_sound { incoming.keep.min(task.data_out.want) } else { 0 };
            return false;
        }
        self.advance_data_out(id).is_some()
    }

    /// Data that is coming in now and that the owner takes: `length` bytes are left of it. It is to
    /// be asked for before each read, because an aborted command wants no more.
    pub fn data_out(&self) -> Option<DataOut> {
        let incoming = self.incoming.filter(|it| it.keep > 0)?;
        Some(DataOut { task: incoming.task, offset: incoming.offset, length: incoming.keep })
    }

    /// Takes notice of immediate data of a command, and of unsolicited data to come.
    #[inline]
    pub(super) fn begin_data_out(&mut self, id: TaskId, header: &Header) -> Fate {
        let parameters = &self.parameters;
        let (immediate, is_final) = (header.data_bytes(), header.flags & flag::FINAL != 0);
        let task = self.tasks.find(id).expect("it was just made");
        let expected = task.expected;
        let data = &mut task.data_out;
        data.unsolicited = !is_final;
        if !is_final && parameters.initial_r2t {
            data.fail(DataFault::Unsolicited);
        }
        if immediate == 0 {
            return Fate::Discarded;
        }
        if !parameters.immediate_data || immediate > parameters.first_burst_length {
            data.fail(DataFault::Unsolicited);
        } else if immediate > expected {
            data.fail(DataFault::Amount);
        }
        data.received = immediate.min(expected);
        data.base = data.received;
        self.incoming = Some(Incoming {
            task: id,
            offset: 0,
            keep: immediate,
            ends: None,
            header: parameters.data_digest.then_some(*header),
        });
        Fate::Placed
    }

    pub(super) fn handle_data_out(&mut self, header: &Header) -> Fate {
        let pdu: &DataOutPdu = header.view();
        let (length, is_final) = (header.data_bytes(), pdu.flags & flag::FINAL != 0);
        let transfer_tag_sent = pdu.target_transfer_tag.get();
        let is_solicited = transfer_tag_sent != RESERVED_TAG;
        let Some(id) = self.task_of(pdu) else {
            self.reject(header, RejectReason::INVALID_PDU_FIELD);
            return Fate::Discarded;
        };
        let task = self.tasks.find(id).expect("it was found by its tag");
        let data = &mut task.data_out;
        let offset = pdu.buffer_offset.get();
        let end = data.sequence_end(is_solicited, task.expected, &self.parameters);
        if pdu.data_sn.get() != data.data_sn || offset != data.received {
            data.fail(DataFault::Lost);
        } else if u64::from(offset) + u64::from(length) > u64::from(end) {
            data.fail(DataFault::Amount);
        }
        data.data_sn = data.data_sn.wrapping_add(1);
        if data.fault.is_none() {
            data.received += length;
            if is_final && is_solicited && data.received != end {
                data.fail(DataFault::Amount);
            }
        }
        let takes = data.fault.is_none() && task.is_with_owner();
        let keep = if takes { length.min(task.data_out.want.saturating_sub(offset)) } else { 0 };
        let ends = is_final.then_some(is_solicited);
        let digests = self.parameters.data_digest;
        self.incoming =
            Some(Incoming { task: id, offset, keep, ends, header: digests.then_some(*header) });
        if keep > 0 { Fate::Placed } else { Fate::Discarded }
    }

    /// Whether a PDU brings data of a command that the owner has not accepted yet.
    pub(super) fn is_too_early(&self, header: &Header) -> bool {
        let task = self.task_of(header.view()).and_then(|id| self.tasks.get(id));
        task.is_some_and(|task| task.is_with_owner() && !task.data_out.accepted)
    }

    /// The task that a Data-Out PDU belongs to, if it may send one now.
    fn task_of(&self, pdu: &DataOutPdu) -> Option<TaskId> {
        let tag = pdu.initiator_task_tag.get();
        let transfer = pdu.target_transfer_tag.get();
        if transfer == RESERVED_TAG {
            let id = self.tasks.by_tag(tag)?;
            let task = self.tasks.get(id)?;
            return task.data_out.unsolicited.then_some(id);
        }
        let id = TaskId::new((transfer & INDEX_MASK) as u16, (transfer >> 16) as u16);
        let task = self.tasks.get(id)?;
        let data = &task.data_out;
        let is_next = !data.unsolicited
            && data.r2t_sn != data.r2t_done
            && transfer == transfer_tag(id, data.r2t_done);
        (is_next && task.tag == tag).then_some(id)
    }

    /// The data segment of a command or Data-Out PDU is over.
    pub(super) fn handle_data_out_end(&mut self, is_intact: bool) -> Option<Event> {
        let incoming = self.incoming.take()?;
        if !is_intact {
            let header = incoming.header.expect("it is kept when there are digests");
            self.reject(&header, RejectReason::DATA_DIGEST_ERROR);
        }
        let task = self.tasks.find(incoming.task)?;
        let data = &mut task.data_out;
        if !is_intact {
            data.fail(DataFault::Lost);
        }
        match incoming.ends {
            Some(true) => {
                data.r2t_done = data.r2t_done.wrapping_add(1);
                data.data_sn = 0;
            }
            Some(false) => {
                data.unsolicited = false;
                data.data_sn = 0;
                data.base = data.received;
                data.requested = data.received;
            }
            None => {}
        }
        self.advance_data_out(incoming.task)
    }

    /// Asks for more, or tells the owner that everything is here, or lets an aborted task go.
    fn advance_data_out(&mut self, id: TaskId) -> Option<Event> {
        let task = self.tasks.find(id)?;
        match task.state {
            State::Receiving if task.data_out.is_complete() => {
                task.state = State::Running;
                Some(Event::DataEnd { task: id, fault: task.fault() })
            }
            State::Receiving => {
                let data = &mut task.data_out;
                if !data.queued && data.next_request(&self.parameters).is_some() {
                    data.queued = true;
                    self.output.push_r2t(id);
                }
                None
            }
            State::Draining if !task.data_out.is_open() => {
                self.end_task(id);
                self.tell_window();
                None
            }
            _ => None,
        }
    }
}

/// Data that is coming in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub task: TaskId,
    pub offset: u32,
    /// Bytes that the owner still takes.
    pub keep: u32,
    /// It ends a sequence: a solicited one (true), or the unsolicited one.
    pub ends: Option<bool>,
    /// Kept where a Reject may need it.
    pub header: Option<Header>,
}

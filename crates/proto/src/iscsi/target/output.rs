//! What goes out: one queue for everything, so that the order in which PDUs are numbered is the
//! order in which they are sent.
//!
//! Answers and R2Ts stand in the queue as tags, their headers are made when the owner takes them;
//! so a command costs no allocation, and every PDU carries the newest command window.

use super::data_out::transfer_tag;
use super::tasks::{AnswerState, State};
use super::{Target, TaskId};
use crate::iscsi::digest::Digest;
use crate::iscsi::head::{Head, Trailer};
use std::collections::VecDeque;
use wire::iscsi::{
    BHS_BYTES, DataIn, LoginResponse, NopIn, Opcode, Pdu, R2t, RESERVED_TAG, Reject, RejectReason,
    ScsiResponse, Uint24, flag,
};
use zerocopy::{FromBytes, IntoBytes};

/// Control PDUs waiting to be sent at which nothing more is read.
pub const CONTROLS_MAX: usize = 64;
/// Bytes of their data at which nothing more is read.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// The data of a PDU that [`Target::next_pdu`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Send this behind the head, padding and digest included. Often empty.
    Bytes(&'a [u8]),
    /// Send these bytes of what the command has read, then a [`Trailer`]. With the last of them the
    /// place of the task may be another one's, while they are still being sent.
    DataIn { task: TaskId, offset: u32, length: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Control,
    R2t(TaskId),
    Answer(TaskId),
}

/// How StatSN is used (RFC 7143, 4.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatSn {
    /// This PDU is a status and takes a number.
    Takes,
    /// It tells the next number and takes none.
    Tells,
}

/// A PDU that is not of a SCSI command's own.
pub(super) struct Control {
    header: ControlHeader,
    data: Vec<u8>,
    stat_sn: StatSn,
    is_login: bool,
}

/// Any PDU of a target: they all have their sequence numbers where a NOP-In has them.
type ControlHeader = NopIn;

pub(super) struct Output {
    queue: VecDeque<Item>,
    controls: VecDeque<Control>,
    control_bytes: usize,
    /// The data segment that was given last.
    segment: Vec<u8>,
}

impl Output {
    /// Room for an answer and an R2T of every task is made once.
    pub fn new(tasks: u16) -> Self {
        let queue = VecDeque::with_capacity(2 * usize::from(tasks) + CONTROLS_MAX);
        Self { queue, controls: VecDeque::new(), control_bytes: 0, segment: Vec::new() }
    }

    pub fn is_full(&self) -> bool {
        self.controls.len() >= CONTROLS_MAX || self.control_bytes >= CONTROL_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push_r2t(&mut self, id: TaskId) {
        self.queue.push_back(Item::R2t(id));
    }

    pub fn push_answer(&mut self, id: TaskId) {
        self.queue.push_back(Item::Answer(id));
    }

    pub fn push_control<P: Pdu>(&mut self, pdu: &P, data: Vec<u8>, stat_sn: StatSn) {
        let bytes = pdu.as_bytes();
        let mut header = ControlHeader::read_from_bytes(bytes).expect("headers have one size");
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        assert!(length <= Uint24::MAX, "a control PDU of {length} bytes");
        header.data_segment_length = Uint24::new(length);
        let is_login = P::OPCODE == LoginResponse::OPCODE;
        self.control_bytes += data.len();
        self.controls.push_back(Control { header, data, stat_sn, is_login });
        self.queue.push_back(Item::Control);
    }
}

impl Target {
    /// The next PDU to be sent: its header in `head`, its data in what is returned. PDUs must be
    /// sent in the order in which they are taken, and a connection that does not take them should
    /// not be made to: the answers behind this call hold the command window.
    #[inline]
    pub fn next_pdu(&mut self, head: &mut Head) -> Option<Segment<'_>> {
        loop {
            match *self.output.queue.front()? {
                Item::Answer(id) => return Some(self.answer_pdu(id, head)),
                Item::R2t(id) => {
                    self.output.queue.pop_front();
                    if self.r2t_pdu(id, head) {
                        return Some(Segment::Bytes(&[]));
                    }
                }
                Item::Control => {
                    self.output.queue.pop_front();
                    self.control_pdu(head);
                    return Some(Segment::Bytes(&self.output.segment));
                }
            }
        }
    }

    /// Whether [`next_pdu`](Self::next_pdu) has something.
    pub fn has_pdus(&self) -> bool {
        !self.output.is_empty()
    }

    /// What is to be sent behind `length` bytes of [`Segment::DataIn`]. `digest` was fed with them;
    /// it is needed when [`data_digest`](Self::data_digest) says so.
    pub fn trailer(&self, length: u32, digest: Digest) -> Trailer {
        Trailer::new(length, self.parameters.data_digest.then_some(digest))
    }

    /// Whether data segments carry digests.
    pub fn data_digest(&self) -> bool {
        self.parameters.data_digest
    }

    /// StatSN of a status that is sent now.
    #[inline]
    fn take_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        stat_sn
    }

    #[inline]
    fn answer_pdu(&mut self, id: TaskId, head: &mut Head) -> Segment<'_> {
        let task = self.tasks.find(id).expect("an answered task stays until its answer is sent");
        if task.answer.sent == task.answer.length {
            return self.response_pdu(id, head);
        }
        let answer = &mut task.answer;
        if answer.burst_left == 0 {
            answer.burst_left = self.parameters.max_burst_length;
        }
        let (offset, left) = (answer.sent, answer.length - answer.sent);
        // Only the last PDU may need padding.
        let most = (self.parameters.max_send_data_segment_length & !3).min(answer.burst_left);
        let length = left.min(if most > 3 { most & !3 } else { most });
        answer.sent += length;
        answer.burst_left -= length;
        let is_last = length == left;
        let with_status = is_last && answer.has_plain_status();
        let mut pdu = DataIn {
            flags: if is_last || answer.burst_left == 0 { flag::FINAL } else { 0 },
            data_segment_length: Uint24::new(length),
            initiator_task_tag: task.tag.into(),
            target_transfer_tag: RESERVED_TAG.into(),
            data_sn: answer.data_sn.into(),
            buffer_offset: offset.into(),
            ..DataIn::default()
        };
        answer.data_sn = answer.data_sn.wrapping_add(1);
        if with_status {
            pdu.flags |= flag::STATUS | answer.flags;
            pdu.status = answer.status;
            pdu.residual_count = answer.residual.into();
            pdu.stat_sn = self.take_stat_sn().into();
            self.output.queue.pop_front();
            self.end_task(id);
        }
        pdu.exp_cmd_sn = self.exp_cmd_sn.into();
        pdu.max_cmd_sn = self.advertise().into();
        head.set(&pdu, self.parameters.header_digest);
        Segment::DataIn { task: id, offset, length }
    }

    fn response_pdu(&mut self, id: TaskId, head: &mut Head) -> Segment<'_> {
        let task = self.tasks.find(id).expect("an answered task stays until its answer is sent");
        let answer = &mut task.answer;
        let mut pdu = ScsiResponse {
            flags: flag::FINAL | answer.flags,
            status: answer.status,
            initiator_task_tag: task.tag.into(),
            exp_data_sn: answer.data_sn.wrapping_add(task.data_out.r2t_sn).into(),
            residual_count: answer.residual.into(),
            ..ScsiResponse::default()
        };
        self.output.segment.clear();
        if let Some(sense) = answer.sense.take() {
            let length = u16::try_from(sense.len()).expect("sense data is short");
            self.output.segment.extend_from_slice(&length.to_be_bytes());
            self.output.segment.extend_from_slice(&sense);
            pdu.data_segment_length = Uint24::new(self.output.segment.len() as u32);
        }
        pdu.stat_sn = self.take_stat_sn().into();
        self.output.queue.pop_front();
        self.end_task(id);
        pdu.exp_cmd_sn = self.exp_cmd_sn.into();
        pdu.max_cmd_sn = self.advertise().into();
        head.set(&pdu, self.parameters.header_digest);
        self.seal_segment(self.parameters.data_digest);
        Segment::Bytes(&self.output.segment)
    }

    /// False when the task has nothing to ask for any more.
    fn r2t_pdu(&mut self, id: TaskId, head: &mut Head) -> bool {
        let Some(task) = self.tasks.find(id).filter(|it| it.state == State::Receiving) else {
            return false;
        };
        let data = &mut task.data_out;
        data.queued = false;
        let Some((offset, length)) = data.next_request(&self.parameters) else { return false };
        let r2t_sn = data.r2t_sn;
        data.requested = offset + length;
        data.r2t_sn = r2t_sn.wrapping_add(1);
        if data.next_request(&self.parameters).is_some() {
            data.queued = true;
            self.output.push_r2t(id);
        }
        let pdu = R2t {
            flags: flag::FINAL,
            lun: task.lun,
            initiator_task_tag: task.tag.into(),
            target_transfer_tag: transfer_tag(id, r2t_sn).into(),
            stat_sn: self.stat_sn.into(),
            exp_cmd_sn: self.exp_cmd_sn.into(),
            max_cmd_sn: self.advertise().into(),
            r2t_sn: r2t_sn.into(),
            buffer_offset: offset.into(),
            desired_data_transfer_length: length.into(),
            ..R2t::default()
        };
        head.set(&pdu, self.parameters.header_digest);
        true
    }

    fn control_pdu(&mut self, head: &mut Head) {
        let control = self.output.controls.pop_front().expect("one stands in the queue");
        self.output.control_bytes -= control.data.len();
        let mut header = control.header;
        header.stat_sn = match control.stat_sn {
            StatSn::Takes => self.take_stat_sn().into(),
            StatSn::Tells => self.stat_sn.into(),
        };
        let is_management = Opcode(header.opcode) == Opcode::TASK_MANAGEMENT_RESPONSE;
        if is_management && self.tasks.draining > 0 {
            self.tasks.drain_by(header.stat_sn.get());
        }
        header.exp_cmd_sn = self.exp_cmd_sn.into();
        header.max_cmd_sn = self.advertise().into();
        // The last login response is still without digests (RFC 7143, 6.3.4).
        let is_sealed = !control.is_login;
        head.set(&header, is_sealed && self.parameters.header_digest);
        self.output.segment = control.data;
        self.seal_segment(is_sealed && self.parameters.data_digest);
    }

    fn seal_segment(&mut self, with_digest: bool) {
        let segment = &mut self.output.segment;
        let digest = with_digest.then(|| Digest::new().update(segment));
        let trailer = Trailer::new(segment.len() as u32, digest);
        segment.extend_from_slice(trailer.as_bytes());
    }

    /// Tells the initiator that a PDU is refused (RFC 7143, 11.17).
    pub(super) fn reject(&mut self, bad: &wire::iscsi::Header, reason: RejectReason) {
        let pdu = Reject {
            flags: flag::FINAL,
            reason: reason.0,
            initiator_task_tag: RESERVED_TAG.into(),
            ..Reject::default()
        };
        self.output.push_control(&pdu, bad.as_bytes()[..BHS_BYTES].to_vec(), StatSn::Takes);
    }

    /// MaxCmdSN as it is told now.
    #[inline]
    fn advertise(&mut self) -> u32 {
        self.advertised_max_cmd_sn = self.max_cmd_sn;
        self.max_cmd_sn
    }
}

impl AnswerState {
    /// The status fits into the last Data-In PDU: it is GOOD and there is no sense data.
    fn has_plain_status(&self) -> bool {
        self.status == 0 && self.sense.is_none()
    }
}

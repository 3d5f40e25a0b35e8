//! The tasks of a session: a slab with a fixed number of places, made once, so that a command costs
//! no allocation. Places below a high-water mark are the only ones ever looked at.

use super::TaskId;
use super::data_out::{DataFault, DataOutState};
use wire::iscsi::{CDB_BYTES, RESERVED_TAG, ScsiCommand, flag};

/// Most commands that an initiator may have under way, immediate ones aside: the largest window.
pub const WINDOW_MAX: u16 = 4096;
/// Most immediate commands and task management requests under way at a time, beyond the window.
pub const IMMEDIATE_MAX: u16 = 16;

/// Indexes fill the low bits of a [`TaskId`], and the low bits of a target transfer tag.
pub(super) const INDEX_BITS: u32 = 13;
const _: () = assert!(WINDOW_MAX as u32 + (IMMEDIATE_MAX as u32) < 1 << INDEX_BITS);
const GENERATION_MASK: u16 = 0x7fff;

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// With the owner, who has yet to say how much data it wants, or data is on its way.
    Receiving,
    /// With the owner, complete.
    Running,
    /// Answered; the answer is yet to be sent.
    Answering,
    /// Aborted; data that was asked for is still to come and is thrown away.
    Draining,
}

pub(super) struct Task {
    generation: u16,
    pub state: State,
    /// It gives back a place in the command window when it ends.
    pub holds_credit: bool,
    pub flags: u8,
    pub lun: [u8; 8],
    pub tag: u32,
    pub expected: u32,
    pub cmd_sn: u32,
    pub cdb: [u8; CDB_BYTES],
    pub extended_cdb: Option<Box<[u8]>>,
    pub data_out: DataOutState,
    pub answer: AnswerState,
    /// Draining ends at the latest when the initiator has seen this status.
    pub drained_by: Option<u32>,
}

/// An answer on its way out.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerState {
    pub status: u8,
    /// [`flag::OVERFLOW`] or [`flag::UNDERFLOW`].
    pub flags: u8,
    pub residual: u32,
    pub length: u32,
    pub sent: u32,
    pub data_sn: u32,
    pub burst_left: u32,
    pub sense: Option<Box<[u8]>>,
}

pub(super) struct Tasks {
    slots: Box<[Task]>,
    /// Initiator task tags of the slots, dense, so that looking for one is quick. A free place has
    /// the reserved tag.
    tags: Box<[u32]>,
    free: Vec<u16>,
    high: usize,
    /// Tasks that the owner has not answered or aborted yet.
    pub with_owner: usize,
    pub draining: usize,
}

impl Tasks {
    pub fn new(count: u16) -> Self {
        let slots = (0..count).map(|_| Task::vacant()).collect();
        let tags = vec![RESERVED_TAG; usize::from(count)].into();
        let free = (0..count).rev().collect();
        Self { slots, tags, free, high: 0, with_owner: 0, draining: 0 }
    }

    /// A place for a command.
    #[inline]
    pub fn begin(&mut self, command: &ScsiCommand, holds_credit: bool) -> Option<TaskId> {
        let index = self.free.pop()?;
        let place = usize::from(index);
        self.high = self.high.max(place + 1);
        let tag = command.initiator_task_tag.get();
        self.tags[place] = tag;
        let task = &mut self.slots[place];
        task.generation = task.generation.wrapping_add(1) & GENERATION_MASK;
        task.state = State::Receiving;
        task.holds_credit = holds_credit;
        task.flags = command.flags;
        task.lun = command.lun;
        task.tag = tag;
        task.expected = command.expected_data_transfer_length.get();
        task.cmd_sn = command.cmd_sn.get();
        task.cdb = command.cdb;
        task.data_out = DataOutState::default();
        self.with_owner += 1;
        Some(TaskId::new(index, task.generation))
    }

    /// The place is free again; its window credit is the caller's to give back.
    #[inline]
    pub fn end(&mut self, id: TaskId) -> &Task {
        let place = id.index();
        let task = &mut self.slots[place];
        debug_assert!(task.state != State::Free && task.generation == id.generation());
        if task.state == State::Draining {
            self.draining -= 1;
        }
        task.state = State::Free;
        task.extended_cdb = None;
        task.drained_by = None;
        self.tags[place] = RESERVED_TAG;
        self.free.push(id.index() as u16);
        task
    }

    /// The task, if it still is that one.
    #[inline]
    pub fn find(&mut self, id: TaskId) -> Option<&mut Task> {
        let task = self.slots.get_mut(id.index())?;
        (task.generation == id.generation() && task.state != State::Free).then_some(task)
    }

    #[inline]
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        let task = self.slots.get(id.index())?;
        (task.generation == id.generation() && task.state != State::Free).then_some(task)
    }

    /// The task with this initiator task tag.
    #[inline]
    pub fn by_tag(&self, tag: u32) -> Option<TaskId> {
        let index = self.tags[..self.high].iter().position(|it| *it == tag)?;
        (tag != RESERVED_TAG).then(|| self.id(index))
    }

    #[inline]
    pub fn has_tag(&self, tag: u32) -> bool {
        // All of them, without a branch per tag: that is quicker than stopping early.
        self.tags[..self.high].iter().fold(false, |found, it| found | (*it == tag))
    }

    pub fn all(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let used = self.slots[..self.high].iter().enumerate();
        used.filter(|(_, task)| task.state != State::Free).map(|(i, task)| (self.id(i), task))
    }

    /// Draining tasks whose end is not yet known get one.
    pub fn drain_by(&mut self, stat_sn: u32) {
        let used = self.slots[..self.high].iter_mut();
        for task in used.filter(|task| task.state == State::Draining) {
            task.drained_by.get_or_insert(stat_sn);
        }
    }

    fn id(&self, index: usize) -> TaskId {
        TaskId::new(index as u16, self.slots[index].generation)
    }
}

impl Task {
    fn vacant() -> Self {
        Self {
            generation: 0,
            state: State::Free,
            holds_credit: false,
            flags: 0,
            lun: [0; 8],
            tag: RESERVED_TAG,
            expected: 0,
            cmd_sn: 0,
            cdb: [0; CDB_BYTES],
            extended_cdb: None,
            data_out: DataOutState::default(),
            answer: AnswerState::default(),
            drained_by: None,
        }
    }

    pub fn writes(&self) -> bool {
        self.flags & flag::WRITE != 0
    }

    pub fn reads(&self) -> bool {
        self.flags & flag::READ != 0
    }

    /// With the owner: neither answered nor aborted.
    pub fn is_with_owner(&self) -> bool {
        matches!(self.state, State::Receiving | State::Running)
    }

    pub fn fault(&self) -> Option<DataFault> {
        self.data_out.fault
    }
}

impl TaskId {
    pub(super) const fn new(index: u16, generation: u16) -> Self {
        Self(index as u32 | (generation as u32) << 16)
    }

    /// Its place among the tasks of the session, below [`task_slots`](super::Target::task_slots);
    /// another task's when it has ended.
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    pub(super) const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

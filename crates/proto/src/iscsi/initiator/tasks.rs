//! The commands of an initiator: a slab with a fixed number of places, made once.

use super::TaskId;

/// Most commands under way.
pub const COMMANDS_MAX: u16 = 4096;
/// Most R2Ts of one command that are not fulfilled: MaxOutstandingR2T is not negotiated beyond.
pub const R2TS_MAX: usize = 8;

/// Tags with this bit are not of commands.
pub(super) const REQUEST_TAG: u32 = 1 << 31;
/// The rest of such a tag: never all ones, which would be the reserved tag.
pub(super) const REQUEST_NUMBER_MASK: u32 = 0x3fff_ffff;
/// Sequences of a task that are to be sent: the unsolicited one, and those that R2Ts ask for.
const SEQUENCES_MAX: usize = R2TS_MAX + 1;
const GENERATION_MASK: u16 = 0x7fff;

/// A sequence of data that is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    pub transfer_tag: u32,
    pub offset: u32,
    pub end: u32,
}

#[derive(Clone)]
pub(super) struct Task {
    generation: u16,
    is_used: bool,
    pub flags: u8,
    pub lun: [u8; 8],
    pub cdb: [u8; 16],
    pub length: u32,
    pub cmd_sn: u32,
    /// Bytes of data-in that have come.
    pub received: u32,
    /// DataSN of the next Data-In, or R2TSN of the next R2T.
    pub data_in_sn: u32,
    pub r2t_sn: u32,
    /// Sequences to be sent, the first one under way.
    pub sequences: [Sequence; SEQUENCES_MAX],
    pub sequence_count: usize,
    pub data_out_sn: u32,
    /// It stands in the queue of what is to be sent.
    pub queued: bool,
}

pub(super) struct Tasks {
    slots: Box<[Task]>,
    free: Vec<u16>,
}

impl Tasks {
    pub fn new(count: u16) -> Self {
        let slots = vec![Task::vacant(); usize::from(count)].into();
        Self { slots, free: (0..count).rev().collect() }
    }

    pub fn begin(&mut self) -> Option<(TaskId, &mut Task)> {
        let index = self.free.pop()?;
        let task = &mut self.slots[usize::from(index)];
        let generation = task.generation.wrapping_add(1) & GENERATION_MASK;
        *task = Task { generation, is_used: true, ..Task::vacant() };
        Some((TaskId(u32::from(index) | u32::from(generation) << 16), task))
    }

    pub fn end(&mut self, id: TaskId) {
        if let Some(task) = self.find(id) {
            task.is_used = false;
            self.free.push(id.index() as u16);
        }
    }

    /// The commands under way.
    pub fn all(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let used = self.slots.iter().enumerate().filter(|(_, task)| task.is_used);
        used.map(|(index, task)| (TaskId(index as u32 | u32::from(task.generation) << 16), task))
    }

    pub fn find(&mut self, id: TaskId) -> Option<&mut Task> {
        let task = self.slots.get_mut(id.index())?;
        (task.is_used && u32::from(task.generation) == id.0 >> 16).then_some(task)
    }

    pub fn get(&self, id: TaskId) -> Option<&Task> {
        let task = self.slots.get(id.index())?;
        (task.is_used && u32::from(task.generation) == id.0 >> 16).then_some(task)
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Task {
    const fn vacant() -> Self {
        Self {
            generation: 0,
            is_used: false,
            flags: 0,
            lun: [0; 8],
            cdb: [0; 16],
            length: 0,
            cmd_sn: 0,
            received: 0,
            data_in_sn: 0,
            r2t_sn: 0,
            sequences: [Sequence { transfer_tag: 0, offset: 0, end: 0 }; SEQUENCES_MAX],
            sequence_count: 0,
            data_out_sn: 0,
            queued: false,
        }
    }

    /// False when the target has asked for more than was agreed.
    pub fn push_sequence(&mut self, sequence: Sequence) -> bool {
        if self.sequence_count == SEQUENCES_MAX {
            return false;
        }
        self.sequences[self.sequence_count] = sequence;
        self.sequence_count += 1;
        true
    }

    pub fn pop_sequence(&mut self) {
        self.sequences.copy_within(1..self.sequence_count, 0);
        self.sequence_count -= 1;
        self.data_out_sn = 0;
    }
}

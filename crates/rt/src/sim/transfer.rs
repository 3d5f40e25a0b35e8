//! Operations on files: asked for by a core, done piece by piece at times of their own, answered.
//!
//! A transfer may reach the disk in several pieces, so that two that overlap can mix. Its bytes are
//! taken from memory when a piece is done, not when it was asked for, because that is when the
//! hardware looks. When the process is killed its operations are cut off from it: some are
//! cancelled, the others go on without it, now and then much later, and hold their description's
//! locks until they have ended.

use std::ops::Range;

use block::{Error, Outcome};

use super::fault::{Harm, On};
use super::file::Inode;
use super::image::SECTOR;
use super::random::Random;
use super::room::{CoreKey, Event, HostId, InodeId, OpId, OpenId, ProcessId, State};
use crate::file::{Allocate, FileKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write { durable: bool },
    Sync,
    Allocate(Allocate),
}

/// What a core asks of a file.
pub(super) struct Asked {
    pub(super) open: OpenId,
    pub(super) what: What,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Memory lies as direct I/O wants it.
    pub(super) aligned: bool,
}

pub(super) struct Operation {
    /// None: its process is dead.
    core: Option<CoreKey>,
    process: ProcessId,
    open: OpenId,
    inode: InodeId,
    what: What,
    offset: u64,
    len: u64,
    /// Where it goes to; elsewhere when misdirected.
    target: u64,
    /// Through the page cache.
    cached: bool,
    pieces: Vec<Piece>,
    harm: Option<Harm>,
    /// For a sync: what had been answered when it was asked for.
    covers: u64,
    /// The file ended before what was asked for.
    short: bool,
    /// What a dead process wanted to write.
    kept: Vec<u8>,
}

struct Piece {
    /// Within the transfer.
    range: Range<u64>,
    done: bool,
}

/// A piece that is being done: where its bytes are in the memory of which core.
pub(super) struct Landing {
    pub(super) core: Option<CoreKey>,
    pub(super) range: Range<usize>,
    pub(super) write: bool,
}

/// Pieces of one transfer.
const PIECES_MAX: u64 = 4;

impl State {
    /// Cuts a range into pieces between units of the disk: usually one.
    pub(super) fn pieces(&mut self, range: &Range<u64>, unit: u64) -> Vec<Range<u64>> {
        let mut cuts = vec![range.start, range.end];
        let units = (range.end - range.start) / unit;
        if units > 1 && self.random.chance(self.options.pieces_ppm) {
            for _ in 0..self.random.range(1..PIECES_MAX) {
                let cut = range.start / unit + self.random.range(1..units + 1);
                cuts.push((cut * unit).min(range.end));
            }
            cuts.sort_unstable();
        }
        let pieces = cuts.windows(2).map(|pair| pair[0]..pair[1]);
        pieces.filter(|piece| !piece.is_empty()).collect()
    }

    pub(super) fn begin(&mut self, core: CoreKey, asked: &Asked) -> OpId {
        let op = OpId(self.serial());
        let process = self.cores[&core].process;
        let range = asked.offset..asked.offset.saturating_add(asked.len);
        let (inode, harm, covers, target) = match self.refusal(asked) {
            Some((inode, errno)) => (inode, Some(Harm::Errno(errno)), 0, asked.offset),
            None => {
                let id = self.files.open[&asked.open].inode;
                let inode = self.files.inodes.get_mut(&id).expect("an open file is kept");
                let harm = inode.fate(asked.what.on(), &range, &mut self.random);
                let target = inode.target(harm, asked.offset, asked.len);
                (id, harm, inode.image.answers(), target)
            }
        };
        let slow =
            matches!(asked.what, What::Sync | What::Allocate(_) | What::Write { durable: true });
        let latency = if slow { &self.options.sync } else { &self.options.transfer };
        let done_at = self.now + latency.draw(&mut self.random);
        let moves = matches!(asked.what, What::Read | What::Write { .. });
        let unit = self.files.inodes.get(&inode).map_or(SECTOR as u64, |inode| inode.image.unit());
        let pieces = if moves && asked.len > 0 { self.pieces(&range, unit) } else { Vec::new() };
        for index in 0..pieces.len() {
            let at = self.random.range(self.now.as_nanos() + 1..done_at.as_nanos() + 1);
            self.push(crate::Time::from_nanos(at), Event::Piece(op, index));
        }
        self.push(done_at, Event::Done(op));
        let pieces = pieces.into_iter().map(|piece| Piece {
            range: piece.start - asked.offset..piece.end - asked.offset,
            done: false,
        });
        let operation = Operation {
            core: Some(core),
            process,
            open: asked.open,
            inode,
            what: asked.what,
            offset: asked.offset,
            len: asked.len,
            target,
            cached: self.files.open.get(&asked.open).is_some_and(|open| !open.direct),
            pieces: pieces.collect(),
            harm,
            covers,
            short: false,
            kept: Vec::new(),
        };
        self.files.operations.insert(op, operation);
        if let Some(open) = self.files.open.get_mut(&asked.open) {
            open.in_flight += 1;
        }
        op
    }

    /// What the kernel refuses without asking the disk.
    fn refusal(&self, asked: &Asked) -> Option<(InodeId, i32)> {
        let Some(open) = self.files.open.get(&asked.open).filter(|open| !open.closed) else {
            return Some((InodeId(0), libc::EBADF));
        };
        let inode = &self.files.inodes[&open.inode];
        let moves = matches!(asked.what, What::Read | What::Write { .. });
        let end = asked.offset.saturating_add(asked.len);
        let crooked = (asked.offset | asked.len) & (u64::from(inode.logical_block) - 1) != 0;
        let full = inode.kind == FileKind::BlockDevice && end > inode.image.size();
        let rules = [
            (!open.write && !matches!(asked.what, What::Read | What::Sync), libc::EBADF),
            (end > i64::MAX as u64, libc::EINVAL),
            (moves && open.direct && (crooked || !asked.aligned), libc::EINVAL),
            (full && matches!(asked.what, What::Write { .. }), libc::ENOSPC),
        ];
        let (_, errno) = rules.iter().find(|(refused, _)| *refused)?;
        Some((open.inode, *errno))
    }

    /// What a hanging disk does later.
    pub(super) fn hangs(&mut self, event: Event) -> bool {
        let (Event::Piece(op, _) | Event::Done(op)) = event else { return false };
        let Some(operation) = self.files.operations.get(&op) else { return false };
        let inode = self.files.inodes.get_mut(&operation.inode);
        let Some(waiting) = inode.and_then(|inode| inode.hanging.as_mut()) else { return false };
        waiting.push(event);
        true
    }

    /// Where the bytes of a piece lie, if it is still to be done.
    pub(super) fn landing(&self, op: OpId, piece: usize) -> Option<Landing> {
        let operation = self.files.operations.get(&op)?;
        let piece = operation.pieces.get(piece).filter(|piece| !piece.done)?;
        Some(Landing {
            core: operation.core,
            range: piece.range.start as usize..piece.range.end as usize,
            write: operation.what != What::Read,
        })
    }

    /// The pieces that have not been done when the answer is due.
    pub(super) fn pieces_left(&self, op: OpId) -> Vec<usize> {
        let Some(operation) = self.files.operations.get(&op) else { return Vec::new() };
        let left = operation.pieces.iter().enumerate().filter(|(_, piece)| !piece.done);
        left.map(|(index, _)| index).collect()
    }

    /// Moves the bytes of a piece: from `bytes` to the disk, or the other way.
    pub(super) fn land(&mut self, op: OpId, piece: usize, bytes: &mut [u8]) {
        let Some(operation) = self.files.operations.get_mut(&op) else { return };
        let piece = &mut operation.pieces[piece];
        piece.done = true;
        let at = operation.target + piece.range.start;
        let Some(inode) = self.files.inodes.get_mut(&operation.inode) else { return };
        match operation.what {
            What::Read => {
                let end = at + bytes.len() as u64;
                operation.short |= end > inode.image.size();
                if operation.harm == Some(Harm::Decay) {
                    inode.image.decay(at..end, &mut self.random);
                }
                if !operation.short && !matches!(operation.harm, Some(Harm::Errno(_))) {
                    inode.image.read(at, bytes);
                }
            }
            _ => {
                if operation.core.is_none() {
                    let kept = piece.range.start as usize..piece.range.end as usize;
                    bytes.copy_from_slice(&operation.kept[kept]);
                }
                match operation.harm {
                    Some(Harm::Lost) => {}
                    Some(Harm::Errno(libc::EBADF | libc::EINVAL | libc::ENOSPC)) => {}
                    Some(Harm::Errno(_)) => {
                        let part = Part { op, at, bytes, cached: operation.cached };
                        land_in_part(inode, &part, &mut self.random);
                    }
                    _ => inode.image.write(op, at, bytes, operation.cached),
                }
            }
        }
    }

    /// Ends an operation: who asked, if anybody is left, and the answer.
    pub(super) fn answer(&mut self, op: OpId) -> Option<(CoreKey, Outcome)> {
        let operation = self.files.operations.remove(&op)?;
        let outcome = self.conclude(op, &operation);
        if outcome.is_ok() && operation.what == What::Sync {
            self.settle_names(operation.open);
        }
        self.let_go(operation.open);
        self.note(outcome.as_ref().map_or(u64::MAX, |count| *count));
        Some((operation.core?, outcome))
    }

    fn let_go(&mut self, open: OpenId) {
        if let Some(state) = self.files.open.get_mut(&open) {
            state.in_flight -= 1;
            if state.closed && state.in_flight == 0 {
                self.forget_open(open);
            }
        }
    }

    fn conclude(&mut self, op: OpId, operation: &Operation) -> Outcome {
        let Operation { what, offset, len, target, .. } = *operation;
        let failed = |errno| Err(Error::from_errno(errno, what.note(offset)));
        let Some(inode) = self.files.inodes.get_mut(&operation.inode) else {
            return failed(libc::EBADF);
        };
        let image = &mut inode.image;
        if let Some(Harm::Errno(errno)) = operation.harm {
            self.has_landed(op, operation);
            let image =
                &mut self.files.inodes.get_mut(&operation.inode).expect("found above").image;
            if what == What::Sync {
                image.stick(operation.covers);
            }
            return failed(errno);
        }
        match what {
            What::Read if operation.short => {
                failed(libc::EIO).map_err(|error| error.note("file is shorter than the device"))
            }
            What::Read => Ok(len),
            What::Write { durable } => {
                image.answered(op, target..target + len);
                if durable {
                    image.settle_op(op, target..target + len);
                }
                Ok(len)
            }
            What::Sync => {
                image.settle(operation.covers);
                Ok(0)
            }
            What::Allocate(how) => match inode.allocate(op, how, offset, len) {
                Ok(()) => Ok(0),
                Err(errno) => failed(errno),
            },
        }
    }

    /// A write goes no further. Nobody is told that it was done; what of it has reached the disk is
    /// there all the same, and a sync from now on covers it.
    fn has_landed(&mut self, op: OpId, operation: &Operation) {
        let Operation { target, len, .. } = *operation;
        if let (What::Write { .. }, Some(inode)) =
            (operation.what, self.files.inodes.get_mut(&operation.inode))
        {
            inode.image.answered(op, target..target + len);
        }
    }

    /// Whether this is a transfer of this range that has not been answered.
    pub(super) fn moves(&self, op: OpId, offset: u64, len: u64, reads: bool) -> bool {
        self.files.operations.get(&op).is_some_and(|operation| {
            (matches!(operation.what, What::Write { .. }) || reads && operation.what == What::Read)
                && operation.offset < offset.saturating_add(len)
                && offset < operation.offset.saturating_add(operation.len)
        })
    }

    /// Operations of a process with bytes still to be written: their pieces are in its memory.
    pub(super) fn writes_of(&self, process: ProcessId) -> Vec<(OpId, CoreKey)> {
        let writes = self.files.operations.iter().filter(|(_, operation)| {
            operation.process == process && matches!(operation.what, What::Write { .. })
        });
        writes.filter_map(|(op, operation)| Some((*op, operation.core?))).collect()
    }

    pub(super) fn keep_bytes(&mut self, op: OpId, bytes: Vec<u8>) {
        if let Some(operation) = self.files.operations.get_mut(&op) {
            operation.kept = bytes;
        }
    }

    /// The process is dead: its operations are cancelled, go on, or go on much later.
    pub(super) fn orphan_operations(&mut self, process: ProcessId) {
        let mine = self.operations_where(|operation| operation.process == process);
        for op in mine {
            let Some(mut operation) = self.files.operations.remove(&op) else { continue };
            operation.core = None;
            self.has_landed(op, &operation);
            if self.random.chance(self.options.cancelled_ppm) {
                self.let_go(operation.open);
            } else if self.random.chance(self.options.late_ppm) {
                // Another number: what was planned for the old one finds nothing.
                let late = OpId(self.serial());
                let done_at = self.now + self.options.late.draw(&mut self.random);
                for piece in 0..operation.pieces.len() {
                    let at = self.random.range(self.now.as_nanos()..done_at.as_nanos() + 1);
                    self.push(crate::Time::from_nanos(at), Event::Piece(late, piece));
                }
                self.push(done_at, Event::Done(late));
                self.files.operations.insert(late, operation);
            } else {
                self.files.operations.insert(op, operation);
            }
        }
    }

    /// A disk loses power: what was on its way to it lands in part or not at all, and who still
    /// waits is told so.
    pub(super) fn lose_power(&mut self, inode: InodeId) {
        for op in self.operations_where(|operation| operation.inode == inode) {
            let Some(operation) = self.files.operations.get_mut(&op) else { continue };
            let Some(disk) = self.files.inodes.get_mut(&inode) else { continue };
            let spoilt = matches!(operation.harm, Some(Harm::Errno(_) | Harm::Lost));
            for piece in operation.pieces.iter_mut().filter(|piece| !piece.done) {
                piece.done = true;
                let range = piece.range.start as usize..piece.range.end as usize;
                if let Some(bytes) = operation.kept.get(range).filter(|_| !spoilt) {
                    let at = operation.target + piece.range.start;
                    let part = Part { op, at, bytes, cached: operation.cached };
                    land_in_part(disk, &part, &mut self.random);
                }
            }
            operation.harm = Some(Harm::Errno(libc::EIO));
        }
        if let Some(disk) = self.files.inodes.get_mut(&inode) {
            disk.image.lose_power(&mut self.random);
        }
    }

    /// The kernel that knew of these operations is gone.
    pub(super) fn forget_operations(&mut self, inode: InodeId) {
        for op in self.operations_where(|operation| operation.inode == inode) {
            if let Some(operation) = self.files.operations.remove(&op) {
                self.let_go(operation.open);
            }
        }
    }

    fn operations_where(&self, which: impl Fn(&Operation) -> bool) -> Vec<OpId> {
        let found = self.files.operations.iter().filter(|(_, operation)| which(operation));
        found.map(|(op, _)| *op).collect()
    }

    /// The disks and files that go dark with a host.
    pub(super) fn own_disks(&self, host: HostId) -> Vec<InodeId> {
        let names = self.hosts[&host].names.values().map(|name| name.inode);
        let open = self.files.open.values().filter(|open| open.host == host);
        let mut own: Vec<InodeId> = names.chain(open.map(|open| open.inode)).collect();
        own.sort_unstable();
        own.dedup();
        own.retain(|inode| !self.files.inodes[inode].shared);
        own
    }
}

/// Bytes of a write on their way.
struct Part<'a> {
    op: OpId,
    at: u64,
    bytes: &'a [u8],
    cached: bool,
}

/// Each unit of a write lands or not.
fn land_in_part(inode: &mut Inode, part: &Part<'_>, random: &mut Random) {
    let unit = inode.image.unit();
    let Part { op, at, bytes, cached } = *part;
    let mut done = 0;
    while done < bytes.len() {
        let to_border = unit - (at + done as u64) % unit;
        let end = (done + to_border as usize).min(bytes.len());
        if random.coin() {
            inode.image.write(op, at + done as u64, &bytes[done..end], cached);
        }
        done = end;
    }
}

impl What {
    fn on(self) -> On {
        match self {
            Self::Read => On::Read,
            Self::Write { .. } => On::Write,
            Self::Sync => On::Sync,
            Self::Allocate(_) => On::Allocate,
        }
    }

    fn note(self, offset: u64) -> String {
        match self {
            Self::Read => format!("read at {offset}"),
            Self::Write { .. } => format!("write at {offset}"),
            Self::Sync | Self::Allocate(_) => "file operation".to_owned(),
        }
    }
}

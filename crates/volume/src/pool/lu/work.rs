//! Requests that take more than one step: several places, blocks without a place, parts of blocks,
//! discards, exclusive steps.
//!
//! They are cut into pieces that lie within one extent each, and all pieces are under way together.

use std::rc::Rc;

use block::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use block::{Asked, Buffer, Error, ErrorKind, Health, Op, Outcome, Request, RequestBuf, Sgl, step};
use rt::handles::{Closes, Span, Ticket};

use super::super::disks::Reading;
use super::super::journal::{RUN_BLOCKS_MAX, Spot};
use super::super::map::Run;
use super::super::owner::regions_of;
use super::super::passage::Guard;
use super::super::shape::BLOCK_BYTES;
use super::below::Under;
use super::closed;
use super::handle::{Handle, find, sealed_at};

const BLOCK: usize = BLOCK_BYTES as usize;
/// Records that one status request looks for.
const EXTENTS_MAX: usize = 1024;

/// What is written.
#[derive(Clone, Copy)]
enum Source<'a> {
    Data(Sgl<'a>),
    Zeroes,
}

impl Handle {
    pub(super) fn begin_slowly(
        self: &Rc<Self>,
        request: &Request<'_>,
        asked: Asked<'_>,
    ) -> Option<Outcome> {
        if self.is_closed() {
            return asked.now(Err(closed()));
        }
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        let (me, under_way) = (self.clone(), &self.under_way);
        if request.op == Op::Flush {
            return self.core.answer(asked, under_way.with(async move { me.flush().await }));
        }
        if request.len == 0 {
            return asked.now(Ok(0));
        }
        let buf = request.to_buf();
        match request.op {
            Op::Read => self.core.answer(asked, under_way.with(async move { me.read(&buf).await })),
            Op::CompareAndWrite { fua } | Op::OrWrite { fua } => {
                let step = async move { me.exclusive_step(&buf, fua).await };
                self.core.answer(asked, under_way.with(step))
            }
            Op::Status => {
                self.core.answer(asked, under_way.with(async move { me.status(&buf).await }))
            }
            _ => self.begin_change(buf, asked),
        }
    }

    async fn flush(&self) -> Outcome {
        self.ask(|service| service.flush()).await.map(|()| 0)
    }

    async fn read(&self, buf: &RequestBuf) -> Outcome {
        self.read_span(Span::new(buf.offset, buf.len), &buf.data.sgl()).await?;
        Ok(buf.len)
    }

    /// Reads bytes, of whatever pieces.
    async fn read_span(&self, span: Span, data: &Sgl<'_>) -> Result<(), Error> {
        let mut under_way: Vec<(Reading, Sgl<'_>, Guard)> = Vec::new();
        let mut absent: Vec<(Span, Rc<Under>, Guard)> = Vec::new();
        let mut at = span.start;
        let mut failed = Ok(());
        while at < span.end {
            let block = at / BLOCK_BYTES;
            let (page, extent, within) = self.form().locate(block);
            let stack = match self.stack(page).await {
                Ok(stack) => stack,
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            };
            let most = span.end.div_ceil(BLOCK_BYTES) - block;
            let guard = self.passage().guard();
            let run = find(&stack, (extent, within), most);
            let end = span.end.min((block + run.count()) * BLOCK_BYTES);
            let part = data.slice((at - span.start) as usize, (end - at) as usize);
            if let Run::Written { at: spot, .. } = run {
                match self.disks.begin_read((spot, at % BLOCK_BYTES), &part) {
                    Ok(reading) => under_way.push((reading, part, guard)),
                    Err(error) => {
                        failed = Err(error);
                        break;
                    }
                }
            } else if let (Run::Absent { .. }, Some(under)) = (run, self.under(at)) {
                match absent.last_mut() {
                    Some((last, ..)) if last.end == at => last.end = end,
                    // As it is now: when it is gone the map says something else.
                    _ => absent.push((Span { start: at, end }, under, guard)),
                }
            } else {
                part.fill_zero();
            }
            at = end;
        }
        for (part, under, _guard) in absent {
            let data = data.slice((part.start - span.start) as usize, part.len() as usize);
            failed = failed.and(under.read(part, &data).await);
        }
        // Also when one has failed: who is on the way counts until it has arrived.
        for (reading, part, _guard) in under_way {
            failed = failed.and(reading.end(&self.disks, &part).await);
        }
        failed
    }

    fn left_in_extent(&self, block: u64) -> u64 {
        let blocks = self.lu.shape.blocks_per_extent();
        blocks - block % blocks
    }

    /// A write of any kind. One that is not of whole blocks must first be alone with them.
    pub(super) async fn change_range(self: &Rc<Self>, buf: RequestBuf, span: Span) -> Outcome {
        let whole = span.widened(BLOCK_BYTES);
        let _ticket = match span == whole {
            true => None,
            false => Some(self.alone(&buf, whole).await?),
        };
        let (op, len) = (buf.op, buf.len);
        let (answer, fua) = match op {
            Op::Write { fua, .. } => {
                self.write_span(span, Source::Data(buf.data.sgl())).await?;
                (len, fua)
            }
            // What was discarded reads zero, parts of blocks too.
            Op::Discard => {
                self.write_zeroes(span).await?;
                (0, false)
            }
            Op::WriteZeroes { fua, .. } => {
                self.write_zeroes(span).await?;
                (0, fua)
            }
            _ => return Err(ErrorKind::Unsupported.into()),
        };
        if fua {
            self.flush().await?;
        }
        Ok(answer)
    }

    async fn alone(self: &Rc<Self>, buf: &RequestBuf, whole: Span) -> Result<Ticket<Self>, Error> {
        Ticket::for_request(&self.lu.ledger, self, (buf, whole)).await
    }

    /// Blocks that are wholly in the span read zero; nothing is said of parts.
    async fn zero_blocks(&self, span: Span) -> Result<(), Error> {
        let (first, end) = (span.start.div_ceil(BLOCK_BYTES), span.end / BLOCK_BYTES);
        if first >= end {
            return Ok(());
        }
        self.ask(move |service| service.zero(first, end - first)).await
    }

    async fn write_zeroes(self: &Rc<Self>, span: Span) -> Result<(), Error> {
        let start = span.start.next_multiple_of(BLOCK_BYTES).min(span.end);
        let end = (span.end / BLOCK_BYTES * BLOCK_BYTES).max(start);
        for (start, end) in [(span.start, start), (end, span.end)] {
            if start < end {
                self.write_span(Span { start, end }, Source::Zeroes).await?;
            }
        }
        self.zero_blocks(Span { start, end }).await
    }

    /// Writes bytes. Of a block that is written in part only its writer may be there.
    async fn write_span(self: &Rc<Self>, span: Span, source: Source<'_>) -> Result<(), Error> {
        let mut pieces = Vec::new();
        let mut at = span.start;
        while at < span.end {
            let block = at / BLOCK_BYTES;
            let most = self.left_in_extent(block).min(RUN_BLOCKS_MAX as u64);
            let end = span.end.min((block + most) * BLOCK_BYTES);
            pieces.push(Span { start: at, end });
            at = end;
        }
        let part_of = |piece: &Span| match source {
            Source::Data(data) => {
                let at = (piece.start - span.start) as usize;
                Source::Data(data.slice(at, piece.len() as usize))
            }
            Source::Zeroes => Source::Zeroes,
        };
        if let [piece] = &pieces[..] {
            return self.write_piece(*piece, part_of(piece)).await;
        }
        let mut tasks = Vec::new();
        for piece in &pieces {
            let (me, piece) = (self.clone(), *piece);
            // Memory and its pin go along: nobody stops a piece that has begun.
            let part = match part_of(&piece) {
                Source::Data(data) => Some(data.to_buf()),
                Source::Zeroes => None,
            };
            tasks.push(self.core.spawn_task(async move {
                let source = part.as_ref().map_or(Source::Zeroes, |it| Source::Data(it.sgl()));
                me.write_piece(piece, source).await
            }));
        }
        let mut written = Ok(());
        for task in tasks {
            written = written.and(task.await);
        }
        written
    }

    async fn write_piece(&self, piece: Span, source: Source<'_>) -> Result<(), Error> {
        let whole = piece.widened(BLOCK_BYTES);
        if let (Source::Data(data), true) = (source, whole == piece) {
            return self.write_blocks(piece.start / BLOCK_BYTES, &data).await;
        }
        let buffer = Buffer::zeroed(whole.len() as usize);
        if whole != piece {
            self.read_span(whole, &buffer.sgl()).await?;
        }
        let at = (piece.start - whole.start) as usize;
        let part = buffer.sgl().slice(at, piece.len() as usize);
        match source {
            Source::Data(data) => part.copy_from(&data),
            Source::Zeroes => part.fill_zero(),
        }
        self.write_blocks(whole.start / BLOCK_BYTES, &buffer.sgl()).await
    }

    /// Writes whole blocks of one extent: where they are, or with the owner's help.
    async fn write_blocks(&self, block: u64, data: &Sgl<'_>) -> Result<(), Error> {
        let count = (data.len() / BLOCK) as u64;
        let (page, extent, within) = self.form().locate(block);
        let stack = self.stack(page).await?;
        let guard = self.passage().guard();
        let at = sealed_at(&stack, (extent, within), count);
        // What is needed no more may leave memory.
        drop(stack);
        if let Some(at) = at {
            self.must_go_on().await?;
            self.open_regions(at, count).await?;
            let Err(error) = self.disks.write_data(at, data).await else { return Ok(()) };
            return self.ask(move |service| service.missed(at.slab, error)).await;
        }
        drop(guard);
        let ours = self.disks.ours(data);
        let sums = ours.sums().to_vec();
        let (ticket, at) = self.ask(move |service| service.reserve(block, sums)).await?;
        let written = self.disks.write_ours(at, &ours).await;
        self.disks.let_go(ours);
        self.ask(move |service| service.written(ticket, written)).await
    }

    /// Whether the LU has not failed, asked by who has the guard that its owner waits for then.
    async fn must_go_on(&self) -> Result<(), Error> {
        match self.lu.health() {
            Health::Good => Ok(()),
            _ => self.ask(|service| async move { service.must_serve() }).await,
        }
    }

    /// Sees to it that blocks may be overwritten where there are several copies of them.
    async fn open_regions(&self, at: Spot, count: u64) -> Result<(), Error> {
        if self.disks.is_plain(at.slab) {
            return Ok(());
        }
        let regions = regions_of(self.lu.shape, at.block.into(), count);
        if self.disks.shared().places.open(at.slab) & regions == regions {
            return Ok(());
        }
        self.ask(move |service| service.open_regions(at.slab, regions)).await
    }

    async fn exclusive_step(self: &Rc<Self>, buf: &RequestBuf, fua: bool) -> Outcome {
        let span = Span::new(buf.offset, buf.len);
        let whole = span.widened(BLOCK_BYTES);
        let _ticket = self.alone(buf, whole).await?;
        let buffer = Buffer::zeroed(whole.len() as usize);
        self.read_span(whole, &buffer.sgl()).await?;
        let at = (span.start - whole.start) as usize;
        step::apply(buf.op, &buf.data.sgl(), &buffer.sgl(), (at, buf.len as usize))?;
        self.write_span(whole, Source::Data(buffer.sgl())).await?;
        if fua {
            self.flush().await?;
        }
        Ok(0)
    }

    async fn status(&self, buf: &RequestBuf) -> Outcome {
        let data = buf.data.sgl();
        let room = (data.len() / EXTENT_BYTES).min(EXTENTS_MAX);
        let span = Span::new(buf.offset, buf.len);
        let mut found: Vec<Extent> = Vec::new();
        let mut at = span.start;
        while at < span.end && found.len() <= room {
            let block = at / BLOCK_BYTES;
            let (page, extent, within) = self.form().locate(block);
            let stack = self.stack(page).await?;
            let most = span.end.div_ceil(BLOCK_BYTES) - block;
            let run = find(&stack, (extent, within), most);
            let end = span.end.min((block + run.count()) * BLOCK_BYTES);
            let state = match run {
                Run::Written { .. } => ExtentState::Data,
                Run::Absent { .. } if self.under(at).is_some() => ExtentState::Data,
                Run::Zero { .. } | Run::Absent { .. } => ExtentState::Hole,
            };
            match found.last_mut() {
                Some(last) if last.state == state => last.len += end - at,
                _ => found.push(Extent { len: end - at, state }),
            }
            at = end;
        }
        found.truncate(room);
        Ok(extent::store(&found, &data) as u64)
    }
}

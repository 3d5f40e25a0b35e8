//! Requests that take more than one operation on the file.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use block::completion::Waiting;
use block::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use block::{Buffer, Error, ErrorKind, Op, Outcome, Request, RequestBuf, Sgl, step};
use rt::handles::{Span, Ticket};
use rt::{Allocate, File, FileKind};

use super::bounce::{Bounce, PIECE_BYTES};
use super::handle::Handle;
use super::result_of;

/// Longest exclusive step; with its edges it fits one buffer.
pub(super) const EXCLUSIVE_MAX: u32 = 1 << 20;
/// Records that one status request looks for.
const EXTENTS_MAX: usize = 1024;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 95;

thread_local! {
    /// Where zeroes come from; nobody writes to it.
    static ZEROES: Buffer = Buffer::zeroed(PIECE_BYTES);
}

async fn read(file: &File, offset: u64, data: &Sgl<'_>) -> Outcome {
    let (waiting, done) = Waiting::new();
    file.read(offset, data, done);
    waiting.outcome().await
}

async fn write(file: &File, offset: u64, data: &Sgl<'_>, durable: bool) -> Outcome {
    let (waiting, done) = Waiting::new();
    file.write(offset, data, durable, done);
    waiting.outcome().await
}

/// What is written.
#[derive(Clone, Copy)]
enum Source<'a> {
    Data(Sgl<'a>),
    Zeroes,
}

/// A step through a span: what of it, and the whole units that this takes.
struct Step {
    part: Span,
    cover: Span,
}

/// Steps whose cover fits a piece.
fn steps(span: Span, unit: u64) -> impl Iterator<Item = Step> {
    let mut at = span.start;
    std::iter::from_fn(move || {
        let cover_start = at / unit * unit;
        let end = span.end.min(cover_start + PIECE_BYTES as u64);
        let part = Span { start: at, end };
        at = end;
        (!part.is_empty()).then(|| Step { part, cover: part.widened(unit) })
    })
}

impl Handle {
    pub(super) async fn read_bounced(&self, request: &Request<'_>) -> Outcome {
        let span = Span::new(request.offset, request.len);
        for Step { part, cover } in steps(span, self.store.unit) {
            let bounce = Bounce::take(cover.len() as usize).await;
            let whole = bounce.sgl(cover.len() as usize);
            read(&self.file, cover.start, &whole).await?;
            let len = part.len() as usize;
            let dest = request.data.slice((part.start - span.start) as usize, len);
            dest.copy_from(&whole.slice((part.start - cover.start) as usize, len));
        }
        Ok(request.len)
    }

    /// A write of any kind. One that is not of whole units must first be alone with what it shares
    /// units with.
    pub(super) async fn change_range(self: &Rc<Self>, buf: &RequestBuf, span: Span) -> Outcome {
        let _ticket = match self.is_whole(span) {
            true => None,
            false => Some(self.alone(buf, span).await?),
        };
        let request = buf.as_request();
        match request.op {
            Op::Write { fua, .. } => {
                self.write_steps(span, Source::Data(request.data), fua).await?;
                Ok(request.len)
            }
            Op::Discard => self.zero(span, true, false).await,
            Op::WriteZeroes { unmap, fua } => self.zero(span, unmap, fua).await,
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Takes a ticket for the units that the span touches.
    async fn alone(self: &Rc<Self>, buf: &RequestBuf, span: Span) -> Result<Ticket<Self>, Error> {
        let cover = span.widened(self.store.unit);
        Ticket::for_request(&self.store.ledger, self, (buf, cover)).await
    }

    async fn write_steps(
        &self,
        span: Span,
        source: Source<'_>,
        durable: bool,
    ) -> Result<(), Error> {
        for Step { part, cover } in steps(span, self.store.unit) {
            let is_whole = part == cover;
            if let (Source::Zeroes, true) = (source, is_whole) {
                let zeroes = ZEROES.with(Buffer::clone);
                let zeroes = zeroes.sgl().slice(0, cover.len() as usize);
                write(&self.file, cover.start, &zeroes, durable).await?;
                continue;
            }
            let bounce = Bounce::take(cover.len() as usize).await;
            let whole = bounce.sgl(cover.len() as usize);
            if !is_whole {
                read(&self.file, cover.start, &whole).await?;
            }
            let len = part.len() as usize;
            let dest = whole.slice((part.start - cover.start) as usize, len);
            match source {
                Source::Zeroes => dest.fill_zero(),
                Source::Data(data) => {
                    dest.copy_from(&data.slice((part.start - span.start) as usize, len));
                }
            }
            write(&self.file, cover.start, &whole, durable).await?;
        }
        Ok(())
    }

    async fn zero(&self, span: Span, unmap: bool, fua: bool) -> Outcome {
        let ways: &[Allocate] = match unmap {
            true => &[Allocate::PunchHole, Allocate::ZeroRange],
            false => &[Allocate::ZeroRange],
        };
        // A file takes any range; a device only whole units, the rest is written.
        let inner = match self.store.kind {
            FileKind::Regular => span,
            _ => whole_units(span, self.store.zeroing_unit),
        };
        if self.allocate(ways, inner).await? {
            let edges = [
                Span { start: span.start, end: inner.start },
                Span { start: inner.end, end: span.end },
            ];
            for edge in edges {
                self.write_steps(edge, Source::Zeroes, fua).await?;
            }
        } else {
            self.write_steps(span, Source::Zeroes, fua).await?;
        }
        if fua {
            let (waiting, done) = Waiting::new();
            self.file.sync(done);
            waiting.outcome().await?;
        }
        Ok(0)
    }

    /// Zeroes a range in the first way that the file offers. False: in none of them.
    async fn allocate(&self, ways: &[Allocate], span: Span) -> Result<bool, Error> {
        if span.is_empty() {
            return Ok(false);
        }
        for how in ways {
            let lacks = self.store.lacks.of(*how);
            if lacks.load(Ordering::Relaxed) {
                continue;
            }
            let (waiting, done) = Waiting::new();
            self.file.allocate(*how, span.start, span.len(), done);
            match waiting.outcome().await {
                Ok(_) => return Ok(true),
                Err(error) if error.errno() == Some(EOPNOTSUPP) => {
                    lacks.store(true, Ordering::Relaxed);
                }
                // A device whose cached pages somebody holds: not now.
                Err(error) if error.errno() == Some(EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    pub(super) async fn exclusive_step(self: &Rc<Self>, buf: &RequestBuf, fua: bool) -> Outcome {
        let span = Span::new(buf.offset, buf.len);
        let cover = span.widened(self.store.unit);
        let _ticket = self.alone(buf, span).await?;
        let bounce = Bounce::take(cover.len() as usize).await;
        let whole = bounce.sgl(cover.len() as usize);
        read(&self.file, cover.start, &whole).await?;
        let at = (span.start - cover.start) as usize;
        step::apply(buf.op, &buf.data.sgl(), &whole, (at, buf.len as usize))?;
        write(&self.file, cover.start, &whole, fua).await?;
        Ok(0)
    }

    pub(super) async fn status(&self, buf: &RequestBuf) -> Outcome {
        let data = buf.data.sgl();
        let room = (data.len() / EXTENT_BYTES).min(EXTENTS_MAX);
        if room == 0 {
            return Ok(0);
        }
        let range = buf.offset..buf.offset + buf.len;
        let file = self.store.handle.clone();
        let found = self.core.blocking({
            let range = range.clone();
            move || file.extents(range, room)
        });
        let found = result_of(found.await, "status")?;
        let block = u64::from(self.store.geometry.block_size);
        let extents = in_whole_blocks(&found, range.start, range.end, block);
        Ok(extent::store(&extents, &data) as u64)
    }
}

/// The whole units within a span; empty, at its start, where there are none.
fn whole_units(span: Span, unit: u64) -> Span {
    let (start, end) = (span.start.next_multiple_of(unit), span.end / unit * unit);
    if start < end { Span { start, end } } else { Span { start: span.start, end: span.start } }
}

/// Extents cut where blocks begin. A block that holds data in part is data; `start` and `end` are
/// where blocks begin.
fn in_whole_blocks(found: &[Extent], start: u64, end: u64, block: u64) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let (mut at, mut done) = (start, start);
    for extent in found {
        at += extent.len;
        let until = match extent.state {
            ExtentState::Data => at.next_multiple_of(block).min(end),
            _ => at / block * block,
        };
        if until <= done {
            continue;
        }
        let len = until - done;
        match extents.last_mut() {
            Some(last) if last.state == extent.state => last.len += len,
            _ => extents.push(Extent { len, state: extent.state }),
        }
        done = until;
    }
    if extents.is_empty() && !found.is_empty() {
        // Holes smaller than a block, and no room to look further.
        extents.push(Extent { len: block, state: ExtentState::Data });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_a_span_in_pieces_that_fit() {
        const PIECE: u64 = PIECE_BYTES as u64;
        let spans = [
            Span::new(0, 4096),
            Span::new(512, 512),
            Span::new(3584, 1024),
            Span::new(512, PIECE),
            Span::new(4096, 3 * PIECE + 512),
            Span::new(PIECE - 512, 512),
        ];
        for span in spans {
            for unit in [1, 512, 4096] {
                let mut at = span.start;
                for Step { part, cover } in steps(span, unit) {
                    assert_eq!(part.start, at);
                    assert!(cover.start <= part.start && part.end <= cover.end);
                    assert!(cover.start.is_multiple_of(unit) && cover.end.is_multiple_of(unit));
                    assert!(cover.len() <= PIECE && cover.len() < part.len() + 2 * unit);
                    at = part.end;
                }
                assert_eq!(at, span.end);
            }
        }
        assert_eq!(steps(Span::new(512, 0), 4096).count(), 0);
    }

    #[test]
    fn units_within_a_span() {
        assert_eq!(whole_units(Span::new(512, 8192), 4096), Span { start: 4096, end: 8192 });
        assert_eq!(whole_units(Span::new(512, 4096), 4096), Span { start: 512, end: 512 });
        assert_eq!(whole_units(Span::new(4096, 4096), 4096), Span::new(4096, 4096));
    }

    #[test]
    fn extents_end_where_blocks_do() {
        let extent = |len, state| Extent { len, state };
        let (data, hole) = (ExtentState::Data, ExtentState::Hole);
        let cases: [(&[Extent], &[Extent]); 6] = [
            (&[extent(1024, hole)], &[extent(4096, data)]),
            (&[extent(8192, hole)], &[extent(8192, hole)]),
            (
                &[extent(1024, hole), extent(1024, data), extent(6144, hole)],
                &[extent(4096, data), extent(4096, hole)],
            ),
            // A hole within a block of data, and data that was cut off in a block.
            (&[extent(1024, data), extent(512, hole), extent(4096, data)], &[extent(8192, data)]),
            (&[extent(4096, data), extent(4096, hole)], &[extent(4096, data), extent(4096, hole)]),
            (&[extent(5120, data), extent(3072, hole)], &[extent(8192, data)]),
        ];
        for (found, wanted) in cases {
            assert_eq!(in_whole_blocks(found, 4096, 12_288, 4096), wanted);
        }
    }
}

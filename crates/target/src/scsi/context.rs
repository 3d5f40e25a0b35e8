//! What a command has at hand while it runs.

use block::{Buffer, Op, Request, Sgl};
use wire::scsi::AdditionalSense;
use zerocopy::FromBytes;

use super::answer::{Answer, Data};
use super::nexus::Nexus;
use super::parsed::Parsed;
use super::sense::Sense;
use super::unit::Unit;
use crate::lun::admit::Entered;
use crate::lun::{Change, Reply};

pub struct Context<'a> {
    pub nexus: &'a Nexus,
    pub unit: &'a Unit,
    pub parsed: &'a Parsed,
    pub entered: &'a Entered<'a>,
    pub data: Data<'a>,
}

impl Context<'_> {
    /// The CDB in the form of its command.
    pub fn cdb<T: FromBytes>(&self) -> T {
        self.parsed.cdb()
    }

    /// The parameter list, copied once because its owner may change it. One that is shorter than
    /// announced is an error: its end is missing.
    pub fn parameters(&self) -> Result<Vec<u8>, Sense> {
        let len = self.parsed.data_out_len() as usize;
        if len > self.data.out.len() {
            return Err(Sense::parameter_length());
        }
        let mut list = vec![0; len];
        self.data.out.copy_out(0, &mut list);
        Ok(list)
    }

    /// Data-out as the CDB asks for it; where it may be less, as much as there is.
    pub fn blocks_out(&self) -> Result<Sgl<'_>, Answer> {
        let out = self.data.out;
        self.parsed.accepts(out.len() as u64)?;
        let asked = usize::try_from(self.parsed.data_out_len()).unwrap_or(usize::MAX);
        Ok(out.slice(0, out.len().min(asked)))
    }

    pub async fn change(&self, change: Change) -> Result<Reply, Answer> {
        Ok(self.unit.handle.change(change).await?)
    }

    /// One request for the device.
    pub async fn io(&self, request: Request<'_>) -> Result<u64, Answer> {
        let is_write = request.op.is_write();
        let outcome = self.unit.device().io(&request).await;
        self.unit.count(&request, &outcome);
        outcome.map_err(|error| Answer::of_error(&error, is_write))
    }

    /// Looked at by what takes many requests: an aborted task has nothing more to do.
    pub fn still_wanted(&self) -> Result<(), Answer> {
        self.entered.aborted().map_or(Ok(()), |how| Err(Answer::aborted(how)))
    }

    /// The range of the command in bytes, once it is known to lie on the medium.
    pub fn range(&self) -> Result<(u64, u64), Sense> {
        byte_range(self.unit, self.parsed.lba, self.parsed.count)
    }

    pub fn block_size(&self) -> usize {
        self.unit.block_size as usize
    }

    /// Whether what this command writes must survive loss of power: it says so, or the client has
    /// turned the cache off.
    pub fn is_fua(&self) -> bool {
        self.parsed.is_fua() || self.unit.is_write_through()
    }

    /// Reads the range block by block through a buffer of bounded size, and hands each piece on
    /// with its place in the range.
    pub async fn scan(
        &self,
        offset: u64,
        len: u64,
        mut look: impl FnMut(u64, &Sgl<'_>) -> Result<(), Answer>,
    ) -> Result<(), Answer> {
        let buffer = Buffer::zeroed(usize::try_from(len).unwrap_or(SCAN_BYTES).min(SCAN_BYTES));
        let mut done = 0;
        while done < len {
            self.still_wanted()?;
            let step = (len - done).min(buffer.len() as u64);
            let piece = buffer.sgl().slice(0, step as usize);
            self.io(Request { op: Op::Read, offset: offset + done, len: step, data: piece })
                .await?;
            look(done, &piece)?;
            done += step;
        }
        Ok(())
    }
}

/// How much is read at a time to be looked at.
pub const SCAN_BYTES: usize = 256 * 1024;

/// A range of blocks in bytes. A range of no blocks may begin at the end (SBC-3 4.4).
#[inline]
pub fn byte_range(unit: &Unit, lba: u64, count: u64) -> Result<(u64, u64), Sense> {
    let size = u64::from(unit.block_size);
    let within = |bytes: u64| bytes <= unit.geometry().size;
    match (lba.checked_mul(size), count.checked_mul(size)) {
        (Some(offset), Some(len)) if offset.checked_add(len).is_some_and(within) => {
            Ok((offset, len))
        }
        _ => Err(out_of_range(lba)),
    }
}

#[cold]
fn out_of_range(lba: u64) -> Sense {
    Sense::illegal(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_information(lba)
}

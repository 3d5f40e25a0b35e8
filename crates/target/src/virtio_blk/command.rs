//! Reading a request: header and lengths in, a closed enum or a status byte out.
//!
//! This runs for every request of every guest, so it takes and gives small values, allocates
//! nothing and compares a handful of numbers. What the disk will check anyway (range, alignment to
//! its block size) is not checked twice; only what could not even be said to it is refused here.

use block::Op;
use wire::virtio::blk::{
    DiscardWriteZeroes, RequestHeader, RequestType, SECTOR_BYTES, SEGMENT_F_UNMAP, Status,
};

use super::disk::RANGE_BYTES_MAX;

/// What the driver asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A request for the disk, in bytes. Reads fill the device-writable data, writes take the
    /// device-readable data, everything else has none.
    Disk { op: Op, offset: u64, len: u64 },
    /// Fill in the identification, as far as there is room.
    GetId,
    /// The range is in the device-readable data: copy it out and give it to [`Rules::range`].
    Range(RangeKind),
}

/// A command whose range is part of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    Discard,
    WriteZeroes,
}

/// What a queue must know to read requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(super) read_only: bool,
    /// Write-through: every write is to survive power loss before it is answered.
    pub(super) fua: bool,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
}

impl Rules {
    /// Reads a request. `readable` and `writable` are the lengths of its data for each direction,
    /// without header and status byte. An error is the status to answer with.
    #[inline]
    pub fn command(
        &self,
        header: &RequestHeader,
        readable: u64,
        writable: u64,
    ) -> Result<Command, Status> {
        let sector = header.sector.get();
        match RequestType(header.request_type.get()) {
            RequestType::IN if readable == 0 => disk(Op::Read, sector, writable),
            RequestType::OUT if writable == 0 && !self.read_only => {
                disk(Op::Write { fua: self.fua, atomic: false }, sector, readable)
            }
            other => self.rare(other, readable, writable),
        }
    }

    /// Reads the range of a DISCARD or WRITE_ZEROES.
    #[inline]
    pub fn range(&self, kind: RangeKind, segment: &DiscardWriteZeroes) -> Result<Command, Status> {
        let flags = segment.flags.get();
        let len = u64::from(segment.num_sectors.get()) * SECTOR_BYTES;
        // 5.2.6.2: unknown flags, and UNMAP in a DISCARD, are answered with UNSUPP.
        let (op, known) = match kind {
            RangeKind::Discard => (Op::Discard, 0),
            RangeKind::WriteZeroes => {
                let unmap = flags & SEGMENT_F_UNMAP != 0;
                (Op::WriteZeroes { unmap, fua: self.fua }, SEGMENT_F_UNMAP)
            }
        };
        if flags & !known != 0 {
            return Err(Status::UNSUPP);
        }
        if len > RANGE_BYTES_MAX {
            return Err(Status::IOERR);
        }
        disk(op, segment.sector.get(), len)
    }

    #[cold]
    fn rare(&self, request: RequestType, readable: u64, writable: u64) -> Result<Command, Status> {
        let segment = readable == size_of::<DiscardWriteZeroes>() as u64 && writable == 0;
        match request {
            RequestType::FLUSH => Ok(Command::Disk { op: Op::Flush, offset: 0, len: 0 }),
            RequestType::GET_ID => Ok(Command::GetId),
            RequestType::DISCARD if !self.discard => Err(Status::UNSUPP),
            RequestType::WRITE_ZEROES if !self.write_zeroes => Err(Status::UNSUPP),
            RequestType::DISCARD if segment && !self.read_only => {
                Ok(Command::Range(RangeKind::Discard))
            }
            RequestType::WRITE_ZEROES if segment && !self.read_only => {
                Ok(Command::Range(RangeKind::WriteZeroes))
            }
            // Data in the wrong direction, another number of segments than one, a write to a
            // read-only device.
            RequestType::IN
            | RequestType::OUT
            | RequestType::DISCARD
            | RequestType::WRITE_ZEROES => Err(Status::IOERR),
            _ => Err(Status::UNSUPP),
        }
    }
}

/// Sectors into bytes; a range that no number of bytes can express is an error, and so is data
/// that is not whole sectors (5.2.6.1).
#[inline]
fn disk(op: Op, sector: u64, len: u64) -> Result<Command, Status> {
    match sector.checked_mul(SECTOR_BYTES) {
        Some(offset) if len.is_multiple_of(SECTOR_BYTES) => Ok(Command::Disk { op, offset, len }),
        _ => Err(Status::IOERR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules = Rules { read_only: false, fua: false, discard: true, write_zeroes: true };
    const READ_ONLY: Rules = Rules { read_only: true, ..RULES };
    const WRITE_THROUGH: Rules = Rules { fua: true, ..RULES };
    const WRITE: Op = Op::Write { fua: false, atomic: false };

    fn header(request: RequestType, sector: u64) -> RequestHeader {
        RequestHeader { request_type: request.0.into(), reserved: 0.into(), sector: sector.into() }
    }

    fn segment(sector: u64, num_sectors: u32, flags: u32) -> DiscardWriteZeroes {
        DiscardWriteZeroes {
            sector: sector.into(),
            num_sectors: num_sectors.into(),
            flags: flags.into(),
        }
    }

    fn on_disk(op: Op, offset: u64, len: u64) -> Result<Command, Status> {
        Ok(Command::Disk { op, offset, len })
    }

    #[test]
    fn requests_become_commands_in_bytes() {
        let fua = Op::Write { fua: true, atomic: false };
        for (rules, request, sector, readable, writable, expected) in [
            (RULES, RequestType::IN, 8, 0, 4096, on_disk(Op::Read, 4096, 4096)),
            (RULES, RequestType::IN, 0, 0, 0, on_disk(Op::Read, 0, 0)),
            (RULES, RequestType::OUT, 1, 512, 0, on_disk(WRITE, 512, 512)),
            (WRITE_THROUGH, RequestType::OUT, 1, 512, 0, on_disk(fua, 512, 512)),
            (READ_ONLY, RequestType::IN, 1, 0, 512, on_disk(Op::Read, 512, 512)),
            (READ_ONLY, RequestType::OUT, 1, 512, 0, Err(Status::IOERR)),
            (RULES, RequestType::FLUSH, 77, 0, 0, on_disk(Op::Flush, 0, 0)),
            (READ_ONLY, RequestType::FLUSH, 0, 0, 0, on_disk(Op::Flush, 0, 0)),
            (RULES, RequestType::GET_ID, 0, 0, 20, Ok(Command::GetId)),
            // Not whole sectors, data in the wrong direction, past the last byte there can be.
            (RULES, RequestType::IN, 0, 0, 511, Err(Status::IOERR)),
            (RULES, RequestType::OUT, 0, 513, 0, Err(Status::IOERR)),
            (RULES, RequestType::IN, 0, 512, 512, Err(Status::IOERR)),
            (RULES, RequestType::OUT, 0, 512, 512, Err(Status::IOERR)),
            (RULES, RequestType::IN, u64::MAX / 512 + 1, 0, 512, Err(Status::IOERR)),
            (RULES, RequestType::SECURE_ERASE, 0, 16, 0, Err(Status::UNSUPP)),
            (RULES, RequestType::GET_LIFETIME, 0, 0, 16, Err(Status::UNSUPP)),
            (RULES, RequestType(2), 0, 0, 0, Err(Status::UNSUPP)),
            (RULES, RequestType(u32::MAX), 0, 0, 0, Err(Status::UNSUPP)),
        ] {
            let command = rules.command(&header(request, sector), readable, writable);
            assert_eq!(command, expected, "{request} at {sector}, {readable} out, {writable} in");
        }
    }

    #[test]
    fn range_commands_have_exactly_one_segment() {
        for (request, kind) in [
            (RequestType::DISCARD, RangeKind::Discard),
            (RequestType::WRITE_ZEROES, RangeKind::WriteZeroes),
        ] {
            let none = Rules { discard: false, write_zeroes: false, ..RULES };
            let header = header(request, 0);
            assert_eq!(RULES.command(&header, 16, 0), Ok(Command::Range(kind)));
            for (rules, readable, writable, expected) in [
                (RULES, 0, 0, Status::IOERR),
                (RULES, 15, 0, Status::IOERR),
                (RULES, 32, 0, Status::IOERR),
                (RULES, 16, 512, Status::IOERR),
                (READ_ONLY, 16, 0, Status::IOERR),
                (none, 16, 0, Status::UNSUPP),
            ] {
                assert_eq!(rules.command(&header, readable, writable), Err(expected));
            }
        }
    }

    #[test]
    fn ranges_are_checked_as_5_2_6_2_says() {
        use RangeKind::{Discard, WriteZeroes};
        let zeroes = |unmap, fua| Op::WriteZeroes { unmap, fua };
        let max = (RANGE_BYTES_MAX / SECTOR_BYTES) as u32;
        for (rules, kind, segment, expected) in [
            (RULES, Discard, segment(2, 8, 0), on_disk(Op::Discard, 1024, 4096)),
            (RULES, Discard, segment(2, 8, SEGMENT_F_UNMAP), Err(Status::UNSUPP)),
            (RULES, Discard, segment(2, 8, 2), Err(Status::UNSUPP)),
            (RULES, WriteZeroes, segment(2, 8, 0), on_disk(zeroes(false, false), 1024, 4096)),
            (RULES, WriteZeroes, segment(0, 1, 1), on_disk(zeroes(true, false), 0, 512)),
            (WRITE_THROUGH, WriteZeroes, segment(0, 1, 1), on_disk(zeroes(true, true), 0, 512)),
            (RULES, WriteZeroes, segment(0, 1, 3), Err(Status::UNSUPP)),
            (RULES, Discard, segment(0, max, 0), on_disk(Op::Discard, 0, RANGE_BYTES_MAX)),
            (RULES, Discard, segment(0, max + 1, 0), Err(Status::IOERR)),
            (RULES, WriteZeroes, segment(u64::MAX, 1, 0), Err(Status::IOERR)),
        ] {
            assert_eq!(rules.range(kind, &segment), expected, "{kind:?} {segment:?}");
        }
    }

    fn lengths(special: u64) -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(special), (0_u64..64).prop_map(|n| n * 512), any::<u64>()]
    }

    proptest! {
        /// Whatever a driver writes, what comes out is whole sectors and a write only where
        /// allowed.
        #[test]
        fn no_header_slips_through(
            request in prop_oneof![0_u32..16, any::<u32>()],
            sector in prop_oneof![0_u64..1 << 20, any::<u64>()],
            readable in lengths(16),
            writable in lengths(20),
            raw in any::<(u64, u32, u32)>(),
            read_only: bool,
            fua: bool,
        ) {
            let rules = Rules { read_only, fua, ..RULES };
            let header = header(RequestType(request), sector);
            let mut command = rules.command(&header, readable, writable);
            if let Ok(Command::Range(kind)) = command {
                command = rules.range(kind, &segment(raw.0, raw.1, raw.2));
            }
            if let Ok(Command::Disk { op, offset, len }) = command {
                prop_assert!(offset % 512 == 0 && len % 512 == 0);
                prop_assert!(!(read_only && op.is_write()));
                match op {
                    Op::Read => prop_assert!(len == writable && offset == sector * 512),
                    Op::Write { fua: through, atomic } => {
                        prop_assert!(len == readable && through == fua && !atomic);
                    }
                    Op::Flush => prop_assert!(offset == 0 && len == 0),
                    Op::Discard => prop_assert!(len <= RANGE_BYTES_MAX && raw.2 == 0),
                    Op::WriteZeroes { unmap, fua: through } => {
                        prop_assert!(len <= RANGE_BYTES_MAX && through == fua);
                        prop_assert!(unmap == (raw.2 == 1) && raw.2 <= 1);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}

//! What travels on the serial line between the harness and the agent in a guest.
//!
//! A frame is a length, a kind, the id of the command it belongs to and a payload; integers are
//! little-endian. Nothing is repeated or acknowledged: QEMU's serial line loses nothing, also not
//! across a migration, where the byte stream goes on from the new QEMU in the middle of a frame.

use std::io::{self, Read, Write};

/// A payload beyond this is a broken line, not a message.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest piece of a file or of a command's input in one frame: less than the kernel's serial
/// buffer, so that a busy guest drops nothing.
pub const PIECE_BYTES_MAX: usize = 16 << 10;
const HEAD_BYTES: usize = 9;

/// What a frame says; harness to agent first, then agent to harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Run the payload with `sh -c`.
    Run = 1,
    /// More input for the command.
    Input = 2,
    /// The input of the command ends.
    InputEnd = 3,
    /// Send the signal named by the payload to the command's process group.
    Signal = 4,
    /// The agent listens.
    Ready = 16,
    /// Output of the command.
    Stdout = 17,
    Stderr = 18,
    /// The command has ended; the payload is its status as an `i32`.
    Exit = 19,
    /// The piece of input was taken.
    InputTaken = 20,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Run,
        Self::Input,
        Self::InputEnd,
        Self::Signal,
        Self::Ready,
        Self::Stdout,
        Self::Stderr,
        Self::Exit,
        Self::InputTaken,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: Kind, id: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, id, payload: payload.into() }
    }

    /// Writes the frame in one call, so that frames of several threads do not mix.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let len = u32::try_from(self.payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.payload.len());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        to.write_all(&bytes)?;
        to.flush()
    }

    /// Reads one frame; nothing at the end of the stream.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let [l0, l1, l2, l3, kind, i0, i1, i2, i3] = head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let kind = Kind::of(kind).filter(|_| len <= PAYLOAD_BYTES_MAX);
        let kind = kind.ok_or_else(|| io::Error::other(format!("not a frame: {head:02x?}")))?;
        let mut payload = vec![0; len];
        from.read_exact(&mut payload)?;
        Ok(Some(Self { kind, id, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let mut line = Vec::new();
        let frames = Kind::ALL.map(|kind| Frame::new(kind, 7, vec![kind as u8, 0, 255, b'\n']));
        for frame in &frames {
            frame.write(&mut line).unwrap();
        }
        let mut line = line.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut line).unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut line).unwrap(), None);
    }

    #[test]
    fn noise_is_an_error_and_not_a_huge_allocation() {
        assert!(Frame::read(&mut &[255_u8; 64][..]).is_err());
        assert!(Frame::read(&mut &b"login: root\r\n"[..]).is_err());
        let mut cut = Vec::new();
        Frame::new(Kind::Run, 1, *b"true").write(&mut cut).unwrap();
        cut.pop();
        assert!(Frame::read(&mut cut.as_slice()).is_err());
    }
}

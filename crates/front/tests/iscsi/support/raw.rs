//! An initiator that says what it likes: logged in properly, it sends PDUs that no machine of ours
//! would.

use std::collections::VecDeque;

use proto::iscsi::initiator::{Config, Event, Initiator, Segment};
use proto::iscsi::{DigestPolicy, Head};
use rt::Core;
use rt::net::{Address, Stream};
use wire::iscsi::{BHS_BYTES, Header, Pdu, ScsiCommand};
use zerocopy::FromBytes;

use super::client::{LUN, read_cdb, write_cdb};

pub struct Raw {
    pub stream: Stream,
    pub cmd_sn: u32,
    arrived: VecDeque<u8>,
}

impl Raw {
    /// Logs in, without digests.
    pub async fn open(core: &Core, address: &Address, mut config: Config) -> Self {
        let wishes = &mut config.wishes;
        (wishes.header_digest, wishes.data_digest) = (DigestPolicy::Never, DigestPolicy::Never);
        let stream = Stream::connect(core, address).await.unwrap();
        let mut machine = Initiator::new(config, [3; 33]);
        // Our machine begins with 1, and its login takes no number.
        let raw = Self { stream, cmd_sn: 1, arrived: VecDeque::new() };
        let (mut head, mut arrived) = (Head::new(), Vec::new());
        loop {
            while let Some(segment) = machine.next_pdu(&mut head) {
                raw.stream.send_bytes(head.as_bytes()).await.unwrap();
                if let Segment::Bytes(bytes) = segment {
                    raw.stream.send_bytes(bytes).await.unwrap();
                }
            }
            let mut bytes = [0; 4096];
            let count = raw.stream.recv_bytes(&mut bytes).await.unwrap();
            assert!(count > 0, "the server has refused");
            arrived.extend_from_slice(&bytes[..count]);
            let progress = machine.handle_input(&arrived);
            arrived.drain(..progress.consumed);
            match progress.event {
                Event::Idle { .. } => {}
                Event::LoggedIn => return raw,
                other => panic!("{other:?} instead of a login"),
            }
        }
    }

    /// Sends a PDU with this data; padding is added, lengths are not looked at.
    pub async fn send<P: Pdu>(&mut self, pdu: &P, data: &[u8]) {
        let mut bytes = pdu.as_bytes().to_vec();
        bytes[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        // A server that has closed the connection is found when its answer is looked for.
        let _ = self.stream.send_bytes(&bytes).await;
    }

    /// Sends PDUs without data as one piece.
    pub async fn send_together<P: Pdu>(&mut self, pdus: &[P]) {
        let bytes: Vec<u8> = pdus.iter().flat_map(|pdu| pdu.as_bytes()).copied().collect();
        let _ = self.stream.send_bytes(&bytes).await;
    }

    /// A read with the next CmdSN.
    pub fn read(&mut self, tag: u32, at: u64, bytes: usize) -> ScsiCommand {
        self.command(tag, 0xc1, bytes, read_cdb(at, bytes))
    }

    /// A write with the next CmdSN, without unsolicited data behind it.
    pub fn write(&mut self, tag: u32, at: u64, bytes: usize) -> ScsiCommand {
        self.command(tag, 0xa1, bytes, write_cdb(at, bytes))
    }

    fn command(&mut self, tag: u32, flags: u8, bytes: usize, cdb: [u8; 16]) -> ScsiCommand {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn += 1;
        ScsiCommand {
            flags,
            lun: LUN,
            initiator_task_tag: tag.into(),
            expected_data_transfer_length: (bytes as u32).into(),
            cmd_sn: cmd_sn.into(),
            cdb,
            ..ScsiCommand::default()
        }
    }

    /// The next PDU, or nothing at the end of the connection.
    pub async fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = self.bytes(BHS_BYTES).await?;
        let header = Header::read_from_bytes(&header).unwrap();
        let length = header.data_bytes() as usize;
        let mut data = self.bytes(length.next_multiple_of(4)).await?;
        data.truncate(length);
        Some((header, data))
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.arrived.len() < count {
            let mut bytes = [0; 8192];
            match self.stream.recv_bytes(&mut bytes).await {
                Ok(count @ 1..) => self.arrived.extend(&bytes[..count]),
                _ => return None,
            }
        }
        Some(self.arrived.drain(..count).collect())
    }
}

//! Names of those who use a logical unit: an initiator port, and the port of ours that it came
//! through. Together they are a nexus, which is what reservations, attentions and task sets belong
//! to.
//!
//! The initiator port is opaque here: the bytes with which its protocol identifies it, in one
//! normal form (for SCSI the TransportID without needless padding), so that equal means equal.

use std::fmt;
use std::sync::Arc;

/// The longest identification of an initiator port: an iSCSI name of 223 bytes with its session
/// identifier, as a TransportID.
pub const INITIATOR_BYTES_MAX: usize = 256;

/// An initiator port, by the bytes that its protocol identifies it with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Initiator(Arc<[u8]>);

impl Initiator {
    /// `None` when the identification is longer than any protocol's.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= INITIATOR_BYTES_MAX).then(|| Self(bytes.into()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A port of ours, by its relative port number: unique in the cluster, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// One initiator port and one port of ours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId {
    initiator: Initiator,
    port: PortId,
}

impl NexusId {
    pub fn new(initiator: Initiator, port: PortId) -> Self {
        Self { initiator, port }
    }

    pub fn initiator(&self) -> &Initiator {
        &self.initiator
    }

    pub fn port(&self) -> PortId {
        self.port
    }
}

impl fmt::Debug for NexusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}->{}", self.initiator, self.port.0)
    }
}

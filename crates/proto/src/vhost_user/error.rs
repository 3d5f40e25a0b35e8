//! What a peer can do wrong on a vhost-user socket. Any of it ends the session: the protocol has no
//! way to go on after a message that one side did not understand.

use wire::vhost_user::{BackEndRequest, FrontEndRequest};

/// A protocol violation: which message, and what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vhost-user {subject}: {violation}")]
pub struct Error {
    pub subject: Subject,
    pub violation: Violation,
}

/// The message an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A message of which not even the header arrived.
    Header,
    /// A request of the front end, or our answer to it.
    FrontEnd(FrontEndRequest),
    /// A request on the back-end channel, or the answer to it.
    BackEnd(BackEndRequest),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("message header"),
            Self::FrontEnd(request) => match request.name() {
                Some(name) => f.write_str(name),
                None => write!(f, "request {request}"),
            },
            Self::BackEnd(request) => match request.name() {
                Some(name) => write!(f, "back-end request {name}"),
                None => write!(f, "back-end request {request}"),
            },
        }
    }
}

/// What was wrong with the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("unknown flags {0:#x} in the header")]
    Flags(u32),
    #[error("protocol version {0}; only version 1 exists")]
    Version(u32),
    #[error("the reply flag is set on a request")]
    ReplyFlagSet,
    #[error("the reply flag is not set on a reply")]
    ReplyFlagMissing,
    #[error("a reply to another request than {expected}")]
    ReplyMismatch { expected: Subject },
    #[error("a message that nobody asked for")]
    Unsolicited,
    #[error("this request is not supported; the front end may use only what is offered")]
    Unsupported,
    #[error("the protocol feature {feature} that it needs was not offered")]
    NotOffered { feature: &'static str },
    #[error("the protocol feature {feature} that it needs was not negotiated")]
    NotNegotiated { feature: &'static str },
    #[error("{size} bytes of payload where {expected} belong")]
    PayloadSize { size: u32, expected: &'static str },
    #[error("{count} file descriptors where {min} to {max} belong")]
    FileDescriptors { count: usize, min: usize, max: usize },
    #[error("the feature bits {0:#x} were not offered")]
    Features(u64),
    #[error("the features changed by {0:#x} while a ring is running; stop the rings first")]
    FeaturesWhileRunning(u64),
    #[error("{regions} memory regions with {fds} file descriptors")]
    RegionCount { regions: u32, fds: usize },
    #[error("memory region {0} is empty or reaches past the end of an address space")]
    RegionExtent(crate::vhost_user::MemoryRegion),
    #[error("memory region {0} overlaps another one in guest memory")]
    RegionOverlap(crate::vhost_user::MemoryRegion),
    #[error("memory region {0} was never added")]
    RegionUnknown(crate::vhost_user::MemoryRegion),
    #[error("more than the {max} memory regions that were offered")]
    RegionsMax { max: usize },
    #[error("the log area of {size} bytes at offset {offset} does not fit in a file")]
    LogArea { size: u64, offset: u64 },
    #[error("ring {index} of a device with {count} rings")]
    RingIndex { index: u32, count: usize },
    #[error("ring {0} is running; stop it with GET_VRING_BASE first")]
    RingRunning(u16),
    #[error("a ring is running; stop all of them with GET_VRING_BASE first")]
    RingsRunning,
    #[error("{num} descriptors in a ring; a power of two up to {max} is allowed")]
    RingSize { num: u32, max: u16 },
    #[error("next available index {0} does not fit in 16 bits")]
    RingBase(u32),
    #[error("the {part} lies at {address:#x}, which is not a multiple of {alignment}")]
    RingAlignment { part: &'static str, address: u64, alignment: u64 },
    #[error("unknown ring flags {0:#x}")]
    RingFlags(u32),
    #[error("ring state {0} is neither 0 (disable) nor 1 (enable)")]
    RingEnable(u32),
    #[error("{count} file descriptors, but its flag says {flagged}")]
    RingFd { count: usize, flagged: usize },
    #[error("{size} bytes of configuration announced, {payload} sent")]
    ConfigSize { size: u32, payload: usize },
    #[error("an in-flight area of {queues} queues of {queue_size} descriptors in {size} bytes")]
    InflightArea { queues: u16, queue_size: u16, size: u64 },
    #[error("refused, and the front end left us no way to say so but to hang up")]
    Refused,
    #[error("the connection ended inside the message, after {received} of {expected} bytes")]
    Truncated { received: usize, expected: usize },
}

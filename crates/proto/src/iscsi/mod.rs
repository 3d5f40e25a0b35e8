//! iSCSI, both roles (RFC 7143, with the task management functions of RFC 7144): PDU framing,
//! login, text negotiation, the full feature phase.
//!
//! - [`Target`] is the server's side of one connection, which is one session.
//! - [`Initiator`] is the client's side of it.
//!
//! ```text
//!   socket ──▶ owner's buffer ──▶ handle_input ──▶ Event        (headers are read in place)
//!                            ╰──▶ the command's memory          (data never passes the machine)
//!   socket ◀── heads, data ◀──── next_pdu ◀── respond, ...      (headers are written in place)
//! ```
//!
//! One connection per session, error recovery level 0 and everything in order: MaxConnections,
//! ErrorRecoveryLevel, DataPDUInOrder and DataSequenceInOrder are negotiated to 1, 0, Yes and Yes.
//! With that a violation ends the session, and nothing is ever sent twice. Not here: error recovery
//! levels 1 and 2 (SNACK is refused), several connections, bidirectional commands, markers, IPsec;
//! sockets and timers, which are the front end's; what a command does.

mod accounts;
mod chap;
mod digest;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod head;
pub mod initiator;
mod keys;
mod name;
mod parameters;
mod receive;
mod serial;
mod target;
#[cfg(test)]
mod tests;
mod text;

pub use accounts::{
    Accounts, Admission, Admit, Authentication, Chap, Portal, Refusal, SessionKind, TargetRecord,
};
pub use chap::{ALGORITHMS, Account, Algorithm, CHALLENGE_BYTES, Nonce, SECRET_BYTES_MIN, Secret};
pub use digest::Digest;
pub use error::{Ended, Violation};
pub use head::{HEAD_BYTES_MAX, Head, TRAILER_BYTES_MAX, Trailer};
pub use initiator::Initiator;
pub use name::normalize;
pub use parameters::{DigestPolicy, LOGIN_SEGMENT_BYTES, Parameters, Wishes};
pub use receive::{AHS_BYTES_MAX, HEADER_BYTES_MAX};
pub use target::*;
pub use text::{BINARY_BYTES_MAX, KEY_BYTES_MAX, PAIRS_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX};

//! The waist of Viaduct: everything above turns a protocol into block requests, everything below
//! turns block requests into bytes on media.
//!
//! Read [`device`] first: the trait, its contract and who implements it. Then [`request`] (what can
//! be asked; [`step`] says what some of it makes of the bytes), [`completion`] (how an answer finds
//! its way back without being lost) and [`mem`] (how client memory is named without ever being
//! borrowed). No type here names a protocol, and nothing here does I/O, reads a clock or starts a
//! thread.

pub mod completion;
pub mod conformance;
pub mod device;
pub mod error;
pub mod extent;
pub mod mem;
pub mod request;
pub mod step;
pub mod watch;

pub use completion::{Answer, Asked, Completion, Outcome, Sink, Waiting, Way};
pub use device::{Device, Geometry, Health, Keeps, OpSet};
pub use error::{Error, ErrorKind};
pub use mem::{Buffer, Gather, MemPin, Part, PartVec, Sgl, SglBuf};
pub use request::{Op, Request, RequestBuf};
pub use watch::Watch;

//! NBD, the client's side: how an export is opened, read, and asked for its holes.
//!
//! The machine does no I/O: its owner sends what it gives, receives as many bytes as it asks for,
//! and hands them in. One request is under way at a time. Payload of reads does not pass through
//! it: a chunk says where it belongs.
//!
//! Not here: writing, TLS, several connections, and the server's side.

mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use client::{CHUNK_BYTES, Chunk, Error, HELLO_BYTES, Negotiation, OPTION_REPLY_BYTES, Piece};
pub use client::{PAYLOAD_MAX, Told, disconnect, extents, piece, read, status};

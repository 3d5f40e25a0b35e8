//! The pool: forms on disk, and the machines that keep them right.
//!
//! | module | holds |
//! |---|---|
//! | [`page`] | a page of metadata, and what it is checked for |
//! | [`journal`] | what is written, durable and sealed of an LU's map, and what an owner left |
//!
//! Nothing here does I/O.

pub mod journal;
pub mod page;

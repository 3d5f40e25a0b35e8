//! The pool: forms on disk, and the machines that keep them right.
//!
//! | module | holds |
//! |---|---|
//! | [`shape`] | how disks are cut up, and where things are on one |
//! | [`label`], [`slabs`] | what a disk is in its pool, and to whom its slabs belong |
//! | [`map`] | what a layer says of each block |
//! | [`space`] | which extents an LU has free |
//! | [`owner`] | who changes the map of an LU, with layers and checkpoints |
//! | [`root`] | where everything of an LU is found from |
//! | [`page`] | a page of metadata, and what it is checked for |
//! | [`journal`] | what is written, durable and sealed of an LU's map, and what an owner left |
//!
//! Nothing here does I/O.

#[cfg(test)]
mod crash;
pub mod journal;
pub mod label;
pub mod map;
pub mod owner;
pub mod page;
pub mod root;
pub mod shape;
pub mod slabs;
pub mod space;

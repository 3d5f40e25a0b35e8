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
//! | [`lineage`] | which ids stand in the pages of a pool that was split off from another one |
//! | [`page`] | a page of metadata, and what it is checked for |
//! | [`journal`] | what is written, durable and sealed of an LU's map, and what an owner left |
//! | [`sums`] | checksums of blocks, in pools that keep them |
//! | [`places`] | where slabs are, also on their way to somewhere else |
//! | [`locks`] | who writes a block |
//! | [`memory`] | how much of the maps is kept in memory, by all LUs together |
//! | [`numbers`] | maps by ticket, page or extent |
//! | [`passage`] | who is on the way by what was said before |
//! | [`disks`] | what a core reads and writes |
//! | [`home`] | the pool itself: labels, slab tables, grants |
//! | [`lu`] | an LU of it, as a device |
//! | [`scrub`] | what is found in a pool that is used |
//! | [`check`] | whether all of that is right, from the disks alone |
//! | [`survey`] | what a pool and its LUs are, from the disks alone |
//! | [`inspect`] | what lies where, in words |
//! | [`backup`] | all of that in one file |
//! | [`restore`] | what is damaged of it as a backup has it, where that is known to be right |
//!
//! Only the last eight do I/O.

pub mod backup;
pub mod check;
#[cfg(test)]
mod crash;
pub mod disks;
pub mod home;
pub mod inspect;
pub mod journal;
pub mod label;
pub mod lineage;
pub mod locks;
pub mod lu;
pub mod map;
pub mod memory;
mod numbers;
pub mod owner;
pub mod page;
mod passage;
pub mod places;
pub mod restore;
pub mod root;
pub mod scrub;
pub mod shape;
pub mod slabs;
pub mod space;
pub mod sums;
pub mod survey;

//! Backups of a pool's metadata: what its labels, slab tables, roots and maps say, in one file, for
//! [`restore`](super::restore) to go by where one of them is lost. They are taken while LUs are
//! used, or from the disks alone.
//!
//! Of each LU what is in a backup fits together: a root, and each page of a map as that root names
//! it. What differs from one LU to the next is the instant. Of a page that was read before the root
//! there may be older ones in the file: the last one counts.
//!
//! Not here: data of clients; checksums of blocks, which change with each block that is written and
//! lie beside it; and journals, which say what came after a root and are gone through by it.

mod form;
mod read;
mod take;
#[cfg(test)]
pub(super) mod tests;

pub use form::{Part, Reader, Unfit, Writer};
pub(super) use read::{BackedDisk, BackedLu};
pub use read::{Backup, Unread};
pub use take::{Lack, Taking};

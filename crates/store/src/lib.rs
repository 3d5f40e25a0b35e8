//! Leaves: devices that keep data somewhere, or say that they do not.
//!
//! A [`Store`] is one LU's place, shared by every core; a device made of it is its handle on one
//! core. Each device passes the suite in `block::conformance`, less what its geometry says it does
//! not keep.
//!
//! | store | keeps data | answers | where |
//! |---|---|---|---|
//! | [`FileStore`] | in a regular file or block device | later, by the ring | `file` |
//! | [`MemoryStore`] | in memory of the node: for tests and measurements | in place | `memory` |
//! | [`NullStore`] | nowhere: measures everything above it | in place | `null` |
//!
//! [`iscsi`] is a session with a target, on which a leaf can stand.

pub mod file;
pub mod iscsi;
mod memory;
mod null;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use block::{Device, Error};
use rt::Core;

pub use file::FileStore;
pub use memory::MemoryStore;
pub use null::NullStore;

/// A boxed future of one core.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// One LU's place, usable from every thread.
pub trait Store: Send + Sync {
    /// A handle for this core.
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device>;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Grows or shrinks, from whatever core. Answered once every handle has the new size; requests
    /// beyond a new end are refused from then on, and what lay there is gone.
    fn resize<'a>(self: Arc<Self>, core: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>>;

    /// Waits until every change has ended that was asked for, where that is not so at once.
    fn settled<'a>(self: Arc<Self>, _core: &'a Core) -> Boxed<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

//! Devices made of devices.
//!
//! Each passes the suite in `block::conformance` over any device that does, less what its geometry
//! says that it does not keep. A layer whose `begin` may have to wait writes it as an `async` body
//! and answers with `rt::Core::answer`.
//!
//! | device | what it is for | where |
//! |---|---|---|
//! | [`Delay`] | a slow store | `delay` |
//! | [`Drive`] | media that come and go under one handle | `drive` |
//! | [`Limit`] | requests and bytes a second that an LU may take | `limit` |
//! | [`Switches`] | a device that becomes another one under its clients | `switch` |
//! | [`pool`] | many disks as one, of which LUs are made | `pool` |
//! | [`Fault`] | a store that fails, hangs, tears or loses writes on demand | `fault` |

mod delay;
mod drive;
mod fault;
pub mod limit;
pub mod pool;
mod switch;

#[cfg(test)]
mod tests;

pub use delay::{Delay, Delays};
pub use drive::Drive;
pub use fault::{Action, Fault, Requests, Rule};
pub use limit::{Budget, Limit};
pub use switch::{Make, Switches};

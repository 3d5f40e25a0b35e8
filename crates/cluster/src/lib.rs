//! What lies between the desired state and the running parts of a node, as pure functions: nothing
//! here knows a clock, a file or a thread.
//!
//! | module | holds |
//! |---|---|
//! | [`desired`] | [`Desired`]: what this node shall run, read off the configuration |
//! | [`actual`] | [`Actual`]: what it runs now, what is under way and what failed |
//! | [`plan`] | [`plan()`]: the steps from one to the other, in order, each ready or waiting |
//!
//! The node asks for a plan, begins what is ready, applies what succeeded with [`Actual::apply`]
//! and asks again. A step may run twice without harm, so a plan needs no memory and survives any
//! crash.

pub mod actual;
pub mod desired;
pub mod plan;

pub use actual::{Actual, Part};
pub use desired::{
    Account, ChapSpec, Desired, DeviceSpec, DriveSpec, IscsiSpec, MappingSpec, MediumImage,
    MediumSpec, MigrationSpec, OriginSpec, Source,
};
pub use plan::{Moved, Plan, Planned, Step, Wait, plan};

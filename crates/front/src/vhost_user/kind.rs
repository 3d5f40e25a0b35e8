//! What a kind of device is to its session and its queues: the second kind calls what the first one
//! uses, and the hot path stays made for one of them.
//!
//! [`Kind`] is what an adapter is told to serve, on any core. Of it each session makes a [`Face`],
//! at home: features, configuration, what driver and operator change. Each queue has a [`Function`]
//! on its own core: what it does with a request.

use std::collections::BTreeMap;
use std::rc::Weak;
use std::sync::Arc;

use model::stats::OpStats;
use rt::Core;

use super::adapter::Spec;
use super::queue::{Queue, Report};
use super::ring::{Buffers, Chain};
use super::session::Session;

/// What an adapter serves.
pub trait Kind: Send + Sync + Sized + 'static {
    type Face: Face<Rules = Rules<Self>>;
    type Function: Function;

    /// Features by the names that listings show.
    const FEATURE_NAMES: &'static [(u64, &'static str)];

    /// Rings that a front end may use.
    fn ring_count(&self) -> u16;

    /// The device for a new session.
    fn face(&self, core: &Core) -> Self::Face;

    /// What a queue does, made on its core.
    fn function(setup: FunctionSetup<'_, Self>) -> Self::Function;

    /// How many cores further than the adapter's own a ring is served.
    fn turn_of(index: u16) -> usize {
        usize::from(index)
    }

    /// Runs at home beside a session, until it ends.
    fn attend(session: Weak<Session<Self>>) -> impl Future<Output = ()> + 'static;

    /// A driver goes on that was here before, or elsewhere, and has not heard of what has changed
    /// meanwhile. False: it cannot be told yet, and is when its next ring has started.
    fn resumed(session: &Session<Self>) -> bool;

    /// The driver is gone, or begins anew; the rings have drained. Its guest may be the one that
    /// comes next, or is not: it has not been here yet, or has moved away.
    fn leave(session: &Session<Self>, may_come_back: bool) -> impl Future<Output = ()>;
}

/// What goes into a [`Function`].
pub struct FunctionSetup<'a, K: Kind> {
    pub core: &'a Core,
    pub spec: &'a Arc<Spec<K>>,
    pub index: u16,
    pub rules: Rules<K>,
    pub queue: &'a Weak<Queue<K::Function>>,
    pub report: &'a Arc<dyn Report>,
}

/// What the queues of a kind of device must know of what the driver has chosen.
pub type Rules<K> = <<K as Kind>::Function as Function>::Rules;

/// Counts by the device that they are of.
pub type Units = BTreeMap<[u8; 16], UnitCounts>;

/// What was done with one device of several.
#[derive(Clone, Debug, Default)]
pub struct UnitCounts {
    pub in_flight: u32,
    pub ops: Vec<OpStats>,
}

/// The device as one session sees it.
pub trait Face: 'static {
    type Rules: Clone + Send + 'static;

    /// Features to offer, without those of the rings.
    fn features(&self) -> u64;

    fn set_features(&mut self, features: u64);

    fn config(&self) -> Vec<u8>;

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), String>;

    /// The driver is gone or has reset the device.
    fn reset(&mut self);

    /// What queues have to know as of now.
    fn rules(&self) -> Self::Rules;

    /// A bit of what the driver has chosen that no front end says again: it is kept with the
    /// in-flight regions.
    fn chosen(&self) -> bool {
        false
    }

    fn choose(&mut self, _chosen: bool) {}
}

/// What a queue does with its requests. It answers each with [`Queue::finish`].
pub trait Function: Sized + 'static {
    type Rules: Clone + Send + 'static;
    /// What is kept of a request until it is answered.
    type Slot: 'static;

    /// Begins a request: a new one, or one that a predecessor has begun and not answered.
    fn begin(&self, queue: &Queue<Self>, chain: Chain, buffers: &Buffers, again: bool);

    fn set_rules(&self, rules: Self::Rules);

    /// All that the queue has done.
    fn stats(&self) -> Vec<OpStats>;

    /// The same by devices, where there are several.
    fn units(&self) -> Units {
        Units::new()
    }

    /// Whether requests are wanted now: some are only buffers for what we have to say.
    #[inline]
    fn wants_more(&self) -> bool {
        true
    }

    /// The queue stops when everything in flight has ended: nothing is held back any more.
    fn hasten(&self);
}

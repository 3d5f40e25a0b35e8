//! What the command sets need of the world; the node implements it.

use std::pin::Pin;

pub trait Env {
    /// Runs this on the same core, for as long as it takes: what a client need not wait for.
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>);
}

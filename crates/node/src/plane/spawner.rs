//! What the command sets need of a core: somebody to do what no client waits for.

use std::pin::Pin;

use rt::Core;
use target::scsi::Env;

pub(super) struct Spawner(pub Core);

impl Env for Spawner {
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>) {
        self.0.spawn(work);
    }
}

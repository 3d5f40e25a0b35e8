//! Work that is done by one at a time, on one core.

use std::cell::Cell;

use rt::sync::Notify;

/// Lets one in after the other.
#[derive(Default)]
pub struct Turns {
    is_taken: Cell<bool>,
    ended: Notify,
}

/// Nobody else has his turn until this is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub async fn take(&self) -> Turn<'_> {
        self.ended.until(|| !self.is_taken.get()).await;
        self.is_taken.set(true);
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_taken.set(false);
        self.0.ended.notify();
    }
}

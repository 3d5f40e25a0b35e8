//! An LU that has failed, opened again for those who use it, as if its node was restarted.
//!
//! ```text
//!   failed ── nothing under way ──▶ another owner reads what is on the disks ──▶ it is asked
//!                                                                                  │
//!   written again ◀── nobody is on his way by what the owner before has said ◀─────┘
//! ```
//!
//! What was known in memory alone is forgotten with the owner that knew it: nothing of that was
//! answered. Until its heir knows better that owner answers who reads, and nobody but who writes is
//! refused anything.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::Health;
use rt::handles::each;

use super::handle::Handle;
use super::open::LuError;
use super::service::Service;
use super::{Lu, closed};

impl Lu {
    /// Whether nothing is written, because something of its own could not be.
    pub fn has_failed(&self) -> bool {
        self.health() == Health::Failed
    }

    /// Opens it again if it has failed. An error: it is as it was, and may be tried again.
    pub async fn reopen(self: &Arc<Self>) -> Result<(), LuError> {
        let me = self.clone();
        let reopened = self.owner.call(move |failed| me.open_again(failed));
        reopened.await.unwrap_or_else(|| Err(closed().into()))
    }

    async fn open_again(self: Arc<Self>, failed: Rc<Service>) -> Result<(), LuError> {
        let _alone = self.alone()?;
        if !self.has_failed() {
            return Ok(());
        }
        failed.stand_still().await;
        let heir = match failed.next().await {
            Ok(heir) if !self.is_closed.load(Ordering::Acquire) => heir,
            refused => {
                // With the right to own it.
                let refused = refused.and(Err(closed().into()));
                failed.go_on();
                return refused;
            }
        };
        // Whoever closes the LU from here on finds the heir, which has nothing under way.
        failed.give_way(&heir);
        self.owner.replace(heir.core(), heir.clone());
        let begin = |handle: Rc<Handle>| async move {
            handle.begin_anew();
            handle.passage().over().await;
        };
        each(self.readers.members(), begin).await;
        heir.take_over(self.size()).await?;
        let go_on = |handle: Rc<Handle>| async move { handle.go_on() };
        each(self.ledger.members(), go_on).await;
        Ok(())
    }
}

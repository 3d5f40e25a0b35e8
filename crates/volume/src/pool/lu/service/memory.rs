//! Pages of the LU's maps that are let go when memory is short: first by every handle, then by the
//! owner.
//!
//! A handle that finds that it still needs what it is to forget keeps it, and then so does the
//! owner: it lets go of nothing that anybody has.

use std::rc::Rc;
use std::sync::Arc;

use rt::handles::each;

use super::super::handle::Handle;
use super::{Owner, Service, Stage};

/// Pages that are looked at before others have a turn.
const LOOKS_PER_TURN: usize = 1024;
/// Numbers of pages that handles are told of at one time.
const NUMBERS_MAX: usize = 256;

impl Service {
    /// Begins a sweep over all LUs of the node, if it is time for one.
    pub(super) fn look_at_memory(&self) {
        if let Some(sweep) = self.memory.sweep() {
            self.core.spawn(sweep);
        }
    }

    /// Lets go of so many bytes, or what nobody has looked at since this was asked last.
    pub(in super::super) async fn let_go(self: Rc<Self>, bytes: usize) -> usize {
        let page_bytes = self.form().bytes();
        let (mut left, mut freed) = (self.owner().pages_here(), 0);
        while left > 0 && freed < bytes {
            let most = (bytes - freed).div_ceil(page_bytes).min(NUMBERS_MAX);
            let looks = left.min(LOOKS_PER_TURN);
            let (idle, looked) = self.owner.borrow_mut().idle_pages(looks, most);
            left = left.saturating_sub(looked.max(1));
            if idle.is_empty() {
                self.core.yield_now().await;
                continue;
            }
            let idle: Arc<[u64]> = idle.into();
            let told = idle.clone();
            let forget = move |handle: Rc<Handle>| {
                handle.let_go(&told);
                std::future::ready(())
            };
            each(self.readers.members(), forget).await;
            let (pages, gone) = self.owner.borrow_mut().let_go(&idle);
            freed += gone;
            self.count(|counts| counts.let_go += pages as u64);
        }
        if freed == 0 && self.stage.get() != Stage::Closed {
            self.tell(Owner::make_clean);
        }
        freed
    }
}

//! Pages of maps that are not in memory: they are read when somebody needs them, and whoever needs
//! one waits for that alone.
//!
//! ```text
//!   needs pages ─▶ all here? ─┬ yes: goes on
//!                             └ no: Load, each once ─▶ loaded ─▶ begins anew
//! ```
//!
//! A page that cannot be read is an error for those who need it, each time, and for nobody else:
//! what was there before is never taken for it, and it is never taken for one that says nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::journal::LayerNumber;
use super::super::map::MapPage;
use super::super::page::Page;
use super::{Order, Owner, PageId, Refusal, Ticket, Unread, What, Wish};

/// Pages that are on their way, with those who go on when they have come.
#[derive(Default)]
pub(super) struct Loads(BTreeMap<PageId, Vec<Sleeper>>);

impl Loads {
    /// Numbers of the pages that somebody waits for; all of a number are for the same.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.keys().map(|(_, number)| *number)
    }
}

enum Sleeper {
    /// It is inside its gate.
    Wish(Wish),
    Look {
        ticket: Ticket,
        view: Option<LayerNumber>,
        number: u64,
    },
    /// Wants this page only.
    Page {
        ticket: Ticket,
        id: PageId,
    },
    Folds(Ticket, LayerNumber, usize),
}

impl Owner {
    /// The pages of a number for those who look into them by themselves, from the top or from a
    /// frozen layer; `None` if some have to be read first.
    pub fn stack(&mut self, view: Option<LayerNumber>, number: u64) -> Option<Vec<Arc<MapPage>>> {
        let absent = self.absent_of(view, number);
        absent.is_empty().then(|| match view {
            Some(layer) => self.layers.stack_from(layer, number),
            None => self.layers.stack(number),
        })
    }

    /// The same with [`Order::Found`], when they are read.
    pub fn look(&mut self, ticket: Ticket, view: Option<LayerNumber>, number: u64) -> Vec<Order> {
        self.begin_look(ticket, view, number);
        self.given()
    }

    /// A page that was ordered was read. `None`: its disk has failed.
    pub fn loaded(&mut self, id: PageId, page: Option<&Page>) -> Vec<Order> {
        let sleepers = self.loads.0.remove(&id).unwrap_or_default();
        let (turn, space) = (self.rooted.root.turn, &self.space);
        let done = page.ok_or(Unread::Disk).and_then(|page| {
            let loaded = self.layers.load(id, page, turn, |place| space.is_used(place));
            loaded.map_err(Unread::Flaw)
        });
        for sleeper in sleepers {
            match done {
                Ok(()) => self.wake(sleeper),
                Err(why) => self.disappoint(sleeper, Refusal::Map { id, why }),
            }
        }
        self.given()
    }

    pub(super) fn is_loading(&self) -> bool {
        !self.loads.0.is_empty()
    }

    /// Pages that a wish needs and that are not here.
    pub(super) fn absent_for(&self, wish: &Wish) -> Vec<PageId> {
        let (layers, number) = (&self.layers, self.layers.form().locate(wish.block).0);
        match wish.what {
            What::Write(_) => layers.absent([layers.top_number()], number),
            What::Bring(_) => layers.absent([layers.lowest()], number),
            What::Zero => layers.absent(layers.chain_from(layers.top_number()), number),
            What::Fold { layer, .. } => {
                layers.absent(layers.above(layer).take(1).chain([layer]), number)
            }
        }
    }

    /// The wish begins anew when its pages have come.
    pub(super) fn load_for(&mut self, wish: Wish, absent: &[PageId]) {
        self.sleep(absent, Sleeper::Wish(wish));
    }

    pub(super) fn load_for_folds(
        &mut self,
        absent: PageId,
        (ticket, layer, most): (Ticket, LayerNumber, usize),
    ) {
        self.sleep(&[absent], Sleeper::Folds(ticket, layer, most));
    }

    fn begin_look(&mut self, ticket: Ticket, view: Option<LayerNumber>, number: u64) {
        match self.stack(view, number) {
            Some(found) => self.orders.push(Order::Found { ticket, found: Ok(found) }),
            None => {
                let absent = self.absent_of(view, number);
                self.sleep(&absent, Sleeper::Look { ticket, view, number });
            }
        }
    }

    pub(super) fn begin_fetch(&mut self, ticket: Ticket, id: PageId) {
        if self.layers.is_absent(id) {
            return self.sleep(&[id], Sleeper::Page { ticket, id });
        }
        let found = Ok(self.page_here(id).into_iter().collect());
        self.orders.push(Order::Found { ticket, found });
    }

    fn absent_of(&self, view: Option<LayerNumber>, number: u64) -> Vec<PageId> {
        let layer = view.unwrap_or(self.layers.top_number());
        self.layers.absent(self.layers.chain_from(layer), number)
    }

    /// Orders all of these pages; whoever waits looks again when the first one has come.
    fn sleep(&mut self, absent: &[PageId], sleeper: Sleeper) {
        for id in absent {
            if !self.loads.0.contains_key(id)
                && let Some(at) = self.layers.spot_of_page(*id)
            {
                self.loads.0.insert(*id, Vec::new());
                self.orders.push(Order::Load { id: *id, at });
            }
        }
        let first = self.loads.0.get_mut(&absent[0]);
        first.expect("what is absent has a place").push(sleeper);
    }

    fn wake(&mut self, sleeper: Sleeper) {
        match sleeper {
            // Something else may have begun that it has to wait for.
            Sleeper::Wish(wish) => {
                self.leave_gate(&wish);
                self.begin(wish);
            }
            Sleeper::Look { ticket, view, number } => self.begin_look(ticket, view, number),
            Sleeper::Page { ticket, id } => self.begin_fetch(ticket, id),
            Sleeper::Folds(ticket, layer, most) => self.begin_folds(ticket, layer, most),
        }
    }

    fn disappoint(&mut self, sleeper: Sleeper, why: Refusal) {
        match sleeper {
            Sleeper::Wish(wish) => self.give_up(&wish, why),
            Sleeper::Look { ticket, .. } | Sleeper::Page { ticket, .. } => {
                self.orders.push(Order::Found { ticket, found: Err(why) });
            }
            Sleeper::Folds(ticket, ..) => self.answer(ticket, Err(why)),
        }
    }
}

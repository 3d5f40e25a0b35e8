//! Handles of one thing on several cores.
//!
//! A handle belongs to its core; what the handles of one LU have in common is shared between them.
//!
//! | what | where |
//! |---|---|
//! | who they are, and how each is reached | [`roster`](Member) |
//! | writes to a range, held back on one handle | [`gate`](Gate) |
//! | ranges that are somebody's alone, on all of them | [`ledger`](Ledger) |

mod gate;
mod ledger;
mod roster;

pub use gate::{Busy, Gate, Span, TicketId};
pub use ledger::{Closes, Ledger, Ticket};
pub use roster::{HandleId, Member, each};

//! What who has made a change is told, when it is in effect or cannot be.

use model::status::Phase;
use model::{ApiError, Subject};

use super::{Control, Waiter};
use crate::reconcile::Settled;

impl Control {
    pub(super) fn answer_waiters(&mut self) {
        let mut waiting = Vec::new();
        for waiter in std::mem::take(&mut self.waiters) {
            match self.reconciler.settled(&waiter.parts) {
                Settled::Yes => (waiter.reply)(Ok(waiter.changed)),
                Settled::Failed(error) => {
                    let Waiter { subject, reply, .. } = waiter;
                    reply(Err(accepted_but(&subject, self.is_known(&subject), error)));
                }
                Settled::NotYet if self.phase == Phase::Stopping => {
                    (waiter.reply)(Err(ApiError::not_now(
                        "the change is kept and takes effect when the node is back",
                    )));
                }
                Settled::NotYet => waiting.push(waiter),
            }
        }
        self.waiters = waiting;
    }

    /// Whether it was not removed.
    fn is_known(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Lu(name) => self.config.lu(name).is_some(),
            Subject::Pool(name) => self.config.pool(name).is_some(),
            _ => true,
        }
    }
}

fn accepted_but(subject: &Subject, is_known: bool, error: ApiError) -> ApiError {
    let ApiError { kind, message, next } = error;
    let message = match subject {
        Subject::Node => format!("the configuration is kept, but not all is in effect: {message}"),
        _ if is_known => format!("{subject} is in the configuration but not in effect: {message}"),
        _ => format!("{subject} is removed, but not all of it is gone yet: {message}"),
    };
    let next = next.unwrap_or_else(|| "it is tried again by itself; viaduct event tail".to_owned());
    ApiError::new(kind, message).then(next)
}

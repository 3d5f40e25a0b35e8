//! One thing of a kind on every core, and asking all of them at once.

use std::rc::Rc;
use std::sync::Arc;

use rt::{Core, Placed, Remote};

pub(super) struct Everywhere<T>(Arc<[Placed<T>]>);

impl<T> Clone for Everywhere<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Everywhere<T> {
    /// Makes one on each core; called from a plain thread. A core that ended at once has said why
    /// already, and has none.
    pub fn new(cores: &[Remote], make: impl Fn(&Core) -> Rc<T> + Clone + Send + 'static) -> Self {
        let placed = cores.iter().filter_map(|remote| {
            let make = make.clone();
            remote.call(move |core| async move { Placed::new(&core, make(&core)) }).wait()
        });
        Self(placed.collect())
    }

    /// Makes one on each core out of what another kind has there.
    pub fn beside<U: 'static>(
        others: &Everywhere<U>,
        make: impl Fn(Rc<U>) -> (Core, Rc<T>) + Clone + Send + 'static,
    ) -> Self {
        let placed = others.0.iter().filter_map(|other| {
            let make = make.clone();
            let made = other.call(async move |other| {
                let (core, thing) = make(other);
                Placed::new(&core, thing)
            });
            made.wait()
        });
        Self(placed.collect())
    }

    pub fn each(&self) -> &[Placed<T>] {
        &self.0
    }

    /// Runs something on every core: all are asked before the first answer is waited for. A core
    /// that has ended answers nothing.
    pub async fn call<R, F>(
        &self,
        f: impl Fn(Rc<T>) -> F + Clone + Send + 'static,
    ) -> Vec<Option<R>>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        let asked: Vec<_> = self.0.iter().map(|one| one.call(f.clone())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await);
        }
        answers
    }
}

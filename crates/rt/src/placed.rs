//! Things that live on a core, named from anywhere.
//!
//! What runs on a core is not `Send`; a [`Placed`] is its address: it can be asked to do something
//! there, and it lets go of the thing when it is dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::core::{Core, Remote};
use crate::sync::{Reply, reply};

/// What was placed on a core, by key.
#[derive(Default)]
pub(crate) struct Places {
    next: Cell<u64>,
    things: RefCell<HashMap<u64, Rc<dyn Any>>>,
}

impl Places {
    /// At the end of the core: things may let go of others when they are dropped.
    pub(crate) fn clear(&self) {
        while !self.things.borrow().is_empty() {
            drop(self.things.take());
        }
    }
}

/// The address of an `Rc<T>` on some core.
pub struct Placed<T> {
    remote: Remote,
    key: u64,
    thing: PhantomData<fn() -> T>,
}

impl<T: 'static> Placed<T> {
    pub fn new(core: &Core, thing: Rc<T>) -> Self {
        let places = &core.0.places;
        let key = places.next.get();
        places.next.set(key + 1);
        places.things.borrow_mut().insert(key, thing);
        Self { remote: core.remote(), key, thing: PhantomData }
    }

    /// Puts another thing there, for who is on its core: who calls from now on finds that one.
    pub fn replace(&self, core: &Core, thing: Rc<T>) {
        assert_eq!(core.id(), self.remote.id(), "on its core");
        drop(core.0.places.things.borrow_mut().insert(self.key, thing));
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The thing itself, for who is on its core.
    pub fn here(&self, core: &Core) -> Option<Rc<T>> {
        if core.id() != self.remote.id() {
            return None;
        }
        let thing = core.0.places.things.borrow().get(&self.key).cloned();
        thing?.downcast().ok()
    }

    /// Runs an `async fn` with the thing on its core.
    pub fn call<R, F>(&self, f: impl FnOnce(Rc<T>) -> F + Send + 'static) -> Reply<R>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        let (answer, reply) = reply();
        let key = self.key;
        self.remote.send(move |core| {
            let thing = core.0.places.things.borrow().get(&key).cloned();
            // A letter for a thing overtakes the one that lets go of it only on a core that ends.
            let Some(thing) = thing.and_then(|thing| thing.downcast::<T>().ok()) else { return };
            let future = f(thing);
            core.spawn(async move { answer.give(future.await) });
        });
        reply
    }
}

impl<T> Drop for Placed<T> {
    fn drop(&mut self) {
        let key = self.key;
        self.remote.send(move |core| {
            let thing = core.0.places.things.borrow_mut().remove(&key);
            drop(thing);
        });
    }
}

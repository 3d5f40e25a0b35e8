//! The task sets of one nexus at one LU, on all cores that serve it, as one: how a word of one gets
//! to another.

use std::rc::Rc;
use std::sync::Arc;

use rt::Core;
use rt::handles::{HandleId, Member};
use target::lun::admit::{Across, Heard, Peer, Word};
use target::scsi::Unit;

/// Makes the task set of a unit one of those that share this. To be called on the unit's core,
/// before anything can be asked of it there.
pub fn join(core: &Core, unit: &Rc<Unit>, across: &Arc<Across>) {
    let way = OnCore(Member::new(core, HandleId::fresh(), unit));
    unit.member().tasks().join(across, Arc::new(way));
}

struct OnCore(Member<Unit>);

impl Peer for OnCore {
    fn tell(&self, word: Word) -> Heard {
        let heard = self.0.call(move |unit| {
            unit.member().tasks().hear(word);
            async move { unit.member().tasks().heard(word).await }
        });
        Box::pin(async move { heard.await.unwrap_or_default() })
    }
}

//! A store that fails on demand: errors, hangs, torn and lost writes, by rules.
//!
//! The first rule that applies to a request decides; without rules the device below answers, at the
//! cost of one look. While there is a rule or a request that hangs, the geometry says that the
//! device keeps nothing, and the watch tells when that changes. Chance comes from a seed, so a run
//! that failed can be run again.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use block::{
    Asked, Buffer, Completion, Device, Error, ErrorKind, Geometry, Health, Keeps, Op, Outcome,
    Request, RequestBuf, Watch,
};
use rt::Core;

/// Which requests a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    All,
    Reads,
    /// Whatever changes what a later read returns.
    Writes,
    Flushes,
}

impl Requests {
    fn include(self, op: Op) -> bool {
        match self {
            Self::All => true,
            Self::Reads => op == Op::Read,
            Self::Writes => op.is_write(),
            Self::Flushes => op == Op::Flush,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Fail(ErrorKind),
    /// Not answered until [`Fault::release`], which lets it go on.
    Hang,
    /// Of a write, so many bytes are written and then it fails, in the middle of a block too.
    /// Anything else just fails.
    Tear {
        bytes: u64,
    },
    /// A write that is answered but not done.
    Lose,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub requests: Requests,
    /// Requests that touch this range; those without one, like flush, whatever it is.
    pub range: Range<u64>,
    /// So many are let through first.
    pub skip: u64,
    /// To so many it applies.
    pub count: u64,
    /// To so many of a thousand, by chance.
    pub per_mille: u32,
    pub action: Action,
}

impl Rule {
    /// For every request of this kind, always.
    pub const fn always(requests: Requests, action: Action) -> Self {
        let range = 0..u64::MAX;
        Self { requests, range, skip: 0, count: u64::MAX, per_mille: 1000, action }
    }

    fn includes(&self, request: &Request<'_>) -> bool {
        let Range { start, end } = self.range;
        let touches = request.overlaps(start, end.saturating_sub(start));
        self.requests.include(request.op) && (touches || request.op == Op::Flush)
    }
}

pub struct Fault {
    core: Core,
    lower: Rc<dyn Device>,
    rules: RefCell<Vec<Rule>>,
    hung: RefCell<Vec<(RequestBuf, Completion)>>,
    is_active: Cell<bool>,
    random: Cell<u64>,
}

impl Fault {
    pub fn new(core: &Core, lower: Rc<dyn Device>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            core: core.clone(),
            lower,
            rules: RefCell::default(),
            hung: RefCell::default(),
            is_active: Cell::new(false),
            random: Cell::new(seed),
        })
    }

    /// Adds a rule, after those that are there.
    pub fn add(&self, rule: Rule) {
        self.rules.borrow_mut().push(rule);
        self.look();
    }

    /// Takes all rules away. What hangs goes on hanging.
    pub fn clear(&self) {
        self.rules.borrow_mut().clear();
        self.look();
    }

    /// Lets every request that hangs go on to the device below.
    pub fn release(&self) {
        for (request, done) in self.hung.take() {
            let lower = self.lower.clone();
            self.core.spawn(async move {
                done.finish(lower.io(&request.as_request()).await);
            });
        }
        self.look();
    }

    /// Requests that hang now.
    pub fn hanging(&self) -> usize {
        self.hung.borrow().len()
    }

    fn look(&self) {
        let is_active = !self.rules.borrow().is_empty() || !self.hung.borrow().is_empty();
        if self.is_active.replace(is_active) != is_active {
            self.lower.watch().notify();
        }
    }

    /// What the rules say of this request; what they count is counted.
    fn decide(&self, request: &Request<'_>) -> Option<Action> {
        let mut rules = self.rules.borrow_mut();
        for rule in rules.iter_mut().filter(|rule| rule.includes(request)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.count > 0 && self.draw(1000) < u64::from(rule.per_mille) {
                rule.count -= 1;
                return Some(rule.action);
            }
        }
        None
    }

    /// The next number below `end` by the seed.
    fn draw(&self, end: u64) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn act(&self, action: Action, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        match action {
            Action::Fail(kind) => asked.now(Err(injected(kind))),
            Action::Hang => {
                self.hung.borrow_mut().push((request.to_buf(), asked.later()));
                None
            }
            Action::Tear { bytes } if matches!(request.op, Op::Write { .. }) => {
                let (lower, request) = (self.lower.clone(), request.to_buf());
                self.core.answer(asked, async move {
                    write_part(&*lower, &request, bytes.min(request.len)).await?;
                    Err(injected(ErrorKind::Medium))
                })
            }
            Action::Tear { .. } => asked.now(Err(injected(ErrorKind::Medium))),
            Action::Lose if request.op.is_write() => {
                let counted = matches!(request.op, Op::Write { .. });
                asked.now(Ok(if counted { request.len } else { 0 }))
            }
            Action::Lose => self.lower.begin(request, asked),
        }
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind).note("injected by a fault rule")
}

/// Writes the first `bytes` of a write, and leaves the rest of their last block as it was.
async fn write_part(lower: &dyn Device, request: &RequestBuf, bytes: u64) -> Result<(), Error> {
    let data = request.data.sgl();
    let block = u64::from(lower.geometry().block_size);
    let whole = bytes / block * block;
    if whole > 0 {
        lower.io(&Request::write(request.offset, data.slice(0, whole as usize))).await?;
    }
    let part = (bytes - whole) as usize;
    if part > 0 {
        let torn = Buffer::zeroed(block as usize);
        lower.io(&Request::read(request.offset + whole, torn.sgl())).await?;
        torn.sgl().slice(0, part).copy_from(&data.slice(whole as usize, part));
        lower.io(&Request::write(request.offset + whole, torn.sgl())).await?;
    }
    Ok(())
}

impl Device for Fault {
    fn geometry(&self) -> Geometry {
        let mut geometry = self.lower.geometry();
        if self.is_active.get() {
            geometry.keeps = Keeps::Nothing;
        }
        geometry
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if !self.is_active.get() {
            return self.lower.begin(request, asked);
        }
        // What the device would refuse is no matter for rules.
        if let Err(error) = self.lower.geometry().check(request) {
            return asked.now(Err(error));
        }
        match self.decide(request) {
            None => self.lower.begin(request, asked),
            Some(action) => self.act(action, request, asked),
        }
    }

    fn watch(&self) -> &Watch {
        self.lower.watch()
    }

    fn health(&self) -> Health {
        self.lower.health()
    }

    fn hasten(&self) {
        self.lower.hasten();
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        for (_, done) in self.hung.take() {
            done.finish(Err(injected(ErrorKind::Aborted)));
        }
    }
}

//! Disks in memory of which images are taken at any moment: each image shares what nobody has
//! changed since.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use block::{Asked, Device, Geometry, Op, Outcome, Request, Watch};
use rt::Core;

use super::super::super::disks::Backing;
use super::super::super::page::PAGE_BYTES;

type Block = [u8; PAGE_BYTES];

/// What a disk holds.
#[derive(Clone, Default)]
pub struct Image {
    base: Arc<HashMap<u64, Block>>,
    changed: HashMap<u64, Block>,
}

impl Image {
    /// The same with nothing that its copies would have to copy.
    fn settled(&self) -> Self {
        let mut base = (*self.base).clone();
        base.extend(self.changed.iter());
        Self { base: Arc::new(base), changed: HashMap::new() }
    }

    pub fn block(&self, number: u64) -> Block {
        let block = self.changed.get(&number).or_else(|| self.base.get(&number));
        block.copied().unwrap_or([0; PAGE_BYTES])
    }

    /// Every block that was ever written, of an image that was taken.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.base.iter().map(|(number, block)| (*number, block))
    }

    pub fn put(&mut self, number: u64, block: Block) {
        self.changed.insert(number, block);
    }

    pub fn flip(&mut self, block: u64, bit: usize) {
        let mut bytes = self.block(block);
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.changed.insert(block, bytes);
    }
}

pub struct InMemory {
    pub name: String,
    pub size: u64,
    pub image: Mutex<Image>,
}

impl InMemory {
    pub fn new(name: &str, size: u64, image: Image) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), size, image: Mutex::new(image) })
    }

    /// Whether nobody has written since it had this image.
    pub fn is_as(&self, image: &Image) -> bool {
        let held = self.image.lock().unwrap();
        Arc::ptr_eq(&held.base, &image.base) && held.changed == image.changed
    }

    /// As it is at this moment: what a process that is killed now leaves.
    pub fn take(&self) -> Image {
        let mut image = self.image.lock().unwrap();
        *image = image.settled();
        image.clone()
    }
}

/// A disk as pools take it.
pub struct Attached(pub Arc<InMemory>);

impl Backing for Attached {
    fn device(&self, _: &Core) -> Rc<dyn Device> {
        Rc::new(OnCore { disk: self.0.clone(), watch: Watch::new() })
    }

    fn name(&self) -> &str {
        &self.0.name
    }
}

struct OnCore {
    disk: Arc<InMemory>,
    watch: Watch,
}

impl Device for OnCore {
    fn geometry(&self) -> Geometry {
        Geometry::plain(self.disk.size, 512)
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        let mut image = self.disk.image.lock().unwrap();
        let (mut at, len) = (0, request.data.len());
        while at < len {
            let offset = request.offset + at as u64;
            let (number, within) = (offset / PAGE_BYTES as u64, offset as usize % PAGE_BYTES);
            let count = (PAGE_BYTES - within).min(len - at);
            let mut block = image.block(number);
            let piece = &mut block[within..within + count];
            match request.op {
                Op::Read => request.data.copy_in(at, piece),
                _ => {
                    request.data.copy_out(at, piece);
                    image.changed.insert(number, block);
                }
            }
            at += count;
        }
        asked.now(Ok(len as u64))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

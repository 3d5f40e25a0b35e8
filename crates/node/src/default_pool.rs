//! Pool `default`: what a fresh data directory begins with, so that an LU can be made at once.
//!
//! It is decided once, at the first start of a node: a directory that was used before gets none by
//! itself, also where an older program made it. A node that cannot have one starts without, and
//! says why.

use std::io;

use model::pool::DEFAULT_POOL;
use model::{ApiError, PoolCreate, Severity, Size, Subject};

use crate::datadir::DataDir;
use crate::engine::Report;
use crate::state::{Mark, State, pools};
use crate::world::{self, World};

/// How much of what the file system has free it may grow to. The rest is for the node's own store,
/// which must be writable when the pool is full.
const FREE_PERCENT: u64 = 90;

/// With less than this it would be full before it was of use.
const SIZE_MIN: Size = Size::gib(1);

/// Files of ext4 end at 16 TiB; who has more makes a pool of disks, or says how large.
const SIZE_MAX: Size = Size::gib(8 << 10);

/// The pool that a fresh data directory gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPool {
    /// As large as the file system has room for.
    Fitting,
    Of(Size),
    Off,
}

/// Decides what a fresh data directory begins with; what to tell of that.
pub fn begin(
    state: &mut State,
    wanted: DefaultPool,
    directory: &DataDir,
    world: &dyn World,
) -> Option<Report> {
    if !state.is_fresh() {
        return None;
    }
    let size = match wanted {
        DefaultPool::Off => Ok(None),
        DefaultPool::Of(size) => Ok(Some(size)),
        DefaultPool::Fitting => world::free_bytes(directory.root())
            .map_err(|error| cannot(directory, &error))
            .and_then(|free| fitting(Size(free)))
            .map(Some),
    };
    let made = size.and_then(|size| {
        let size = size.filter(|_| !is_used(directory));
        size.map(|size| make(state, size, world)).transpose()
    });
    let (severity, kind, message, next) = match made {
        Ok(Some(size)) => {
            let message = format!("pool '{DEFAULT_POOL}' was made, a sparse file of {size}");
            (Severity::Info, "pool-created", message, None)
        }
        made => {
            let marked = state.mark(Mark::Begun);
            let error = made.and(marked).err()?;
            let message = format!("there is no pool '{DEFAULT_POOL}': {}", error.message);
            let next = format!(
                "viaduct pool create {DEFAULT_POOL} --pv DISK, or --size SIZE; without it LUs are \
                 files in the data directory"
            );
            (Severity::Warning, "no-default-pool", message, Some(next))
        }
    };
    let subject = Subject::Pool(DEFAULT_POOL.parse().ok()?);
    Some(Report { severity, subject, kind, message, next })
}

/// How large it is where so much is free.
fn fitting(free: Size) -> Result<Size, ApiError> {
    let slab = model::limits::SLAB_SIZE_DEFAULT;
    let share = free.bytes() / 100 * FREE_PERCENT / slab * slab;
    if share < SIZE_MIN.bytes() {
        let least = Size(SIZE_MIN.bytes() / FREE_PERCENT * 100);
        let least = Size(least.bytes().next_multiple_of(slab));
        return Err(ApiError::failed(format!(
            "the file system of the data directory has {free} free, less than {least}"
        )));
    }
    Ok(Size(share.min(SIZE_MAX.bytes())))
}

/// Its store is new, and yet it has files of LUs or pools: it waits for its configuration.
fn is_used(directory: &DataDir) -> bool {
    [directory.lus(), directory.pools()]
        .iter()
        .any(|path| world::names_in(path).map_or(true, |names| !names.is_empty()))
}

fn make(state: &mut State, size: Size, world: &dyn World) -> Result<Size, ApiError> {
    let name = DEFAULT_POOL.parse().map_err(|_| ApiError::failed("its name is none"))?;
    let request = PoolCreate {
        name,
        pvs: Vec::new(),
        size: Some(size),
        slab_size: None,
        extent_size: None,
        checksums: false,
        force: false,
    };
    let (next, mut marks) = pools::pool_create(state.config(), &request, &[], || world.uuid())?;
    marks.push(Mark::Begun);
    state.commit(next, &marks)?;
    Ok(size)
}

fn cannot(directory: &DataDir, error: &io::Error) -> ApiError {
    let root = directory.root().display();
    ApiError::failed(format!("what is free on {root} cannot be told: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kv::backing::MemoryBacking;
    use kv::{Embedded, Kv};
    use model::Config;

    use super::*;
    use crate::world::Machine;

    #[test]
    fn it_is_a_share_of_what_is_free() {
        assert_eq!(fitting(Size::gib(100)), Ok(Size::mib(90 * 1024)));
        assert_eq!(fitting(Size::gib(1 << 20)), Ok(SIZE_MAX));
        let said = fitting(Size::gib(1)).unwrap_err().message;
        assert!(said.ends_with("has 1GiB free, less than 1152MiB"), "{said}");
        let enough = Size(SIZE_MIN.bytes() / 9 * 10).bytes().next_multiple_of(16 << 20);
        assert_eq!(fitting(Size(enough)), Ok(SIZE_MIN));
    }

    struct Bed {
        _root: tempfile::TempDir,
        directory: DataDir,
        kv: Arc<dyn Kv>,
    }

    impl Bed {
        fn new() -> Bed {
            let root = tempfile::tempdir().unwrap();
            let directory = DataDir::open(root.path(), &Machine).unwrap();
            let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
            let kv = Arc::new(Embedded::create(MemoryBacking::new(), clock).unwrap());
            Bed { _root: root, directory, kv }
        }

        /// A start of the node, with what it tells.
        fn start(&self, wanted: DefaultPool) -> (Config, Option<Report>) {
            let mut state = State::load(Arc::clone(&self.kv), self.directory.id()).unwrap();
            let told = begin(&mut state, wanted, &self.directory, &Machine);
            assert!(!state.is_fresh());
            let is_made = state.config().default_pool().is_some();
            assert_eq!(state.making().len(), usize::from(is_made));
            (state.config().clone(), told)
        }
    }

    #[test]
    fn a_fresh_directory_gets_one_and_no_second_one() {
        let bed = Bed::new();
        let (config, told) = bed.start(DefaultPool::Of(Size::gib(4)));
        let told = told.unwrap();
        assert_eq!(told.message, "pool 'default' was made, a sparse file of 4GiB");
        let pool = config.default_pool().unwrap();
        assert_eq!(pool.pvs[0].place, model::PvPlace::File { size: Size::gib(4) });
        assert_eq!(bed.start(DefaultPool::Of(Size::gib(8))), (config, None));
    }

    #[test]
    fn who_does_not_want_one_gets_none_later() {
        let bed = Bed::new();
        for wanted in [DefaultPool::Off, DefaultPool::Fitting] {
            let (config, told) = bed.start(wanted);
            assert_eq!((config.pools.len(), told), (0, None));
        }
    }

    #[test]
    fn what_cannot_be_made_is_told_and_not_tried_again() {
        let bed = Bed::new();
        let (config, told) = bed.start(DefaultPool::Of(Size::mib(1)));
        let told = told.unwrap();
        assert_eq!((config.pools.len(), told.kind), (0, "no-default-pool"));
        assert!(told.message.contains("a file of 1MiB cannot be in pool 'default'"), "{told:?}");
        assert!(told.next.unwrap().starts_with("viaduct pool create default --pv DISK"));
        assert_eq!(bed.start(DefaultPool::Of(Size::gib(8))).1, None);
    }

    #[test]
    fn a_directory_with_files_gets_none() {
        let bed = Bed::new();
        std::fs::write(bed.directory.lus().join("x.img"), "").unwrap();
        let (config, told) = bed.start(DefaultPool::Fitting);
        assert_eq!((config.pools.len(), told), (0, None));
    }

    #[test]
    fn a_directory_of_an_older_program_gets_none() {
        let bed = Bed::new();
        // What that program has made of it: a configuration, and no word on how it began.
        State::load(Arc::clone(&bed.kv), bed.directory.id()).unwrap();
        let key = format!("/node/{}/fresh", bed.directory.id());
        bed.kv.transact(&kv::Transaction::new().delete(key)).unwrap();
        let (config, told) = bed.start(DefaultPool::Of(Size::gib(4)));
        assert_eq!((config.pools.len(), told), (0, None));
    }
}

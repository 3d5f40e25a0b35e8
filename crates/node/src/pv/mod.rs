//! `pv ls`: every disk of the machine and what is known of it, and files that LUs and pools are
//! made of.
//!
//! | module | holds |
//! |---|---|
//! | [`signature`] | what the bytes of a disk say that it is |
//! | [`system`] | what the kernel says: names, identities, who mounts and holds what |
//! | here | the list, and how long a look may take |
//!
//! Each disk is looked at by a thread of its own, opened for reading only, for a disk that is dead
//! may hold whoever asks it for ever. Who does not answer in time is told so, and not asked again
//! before it has.

pub mod signature;
pub mod system;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::pv::{PvKind, PvState, PvView};
use model::{Config, Size};
use rt::{FileHandle, OpenOptions};

use crate::state::pools::user_of;
use crate::world::{self, World};
use signature::{Ends, HEAD_BYTES, TAIL_BYTES};
use system::System;

/// How long all looks together may take.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// Looks under way at one time; a machine with more disks has them looked at one after the other.
const LOOKS_MAX: usize = 64;

/// What direct or odd devices want of lengths.
const SECTOR: u64 = 4096;

/// Looks at disks, and remembers which do not answer.
#[derive(Clone, Default)]
pub struct Looker(Arc<Mutex<BTreeSet<PathBuf>>>);

/// What was found on a disk, or why nothing was.
type Found = Result<Vec<String>, String>;

impl Looker {
    /// All disks and files. It blocks for [`LOOK_LIMIT`] at most, unless the kernel itself hangs.
    pub fn list(&self, world: &dyn World, config: &Config, files: &[PathBuf]) -> Vec<PvView> {
        let system = System::read(Path::new("/"));
        let mut views = system.disks();
        let known: BTreeSet<String> = views.iter().map(|view| view.path.clone()).collect();
        let adopted = config.lus.iter().filter_map(|lu| lu.adopted_path().map(PathBuf::from));
        let pooled = config.pools.iter().flat_map(|pool| pool.paths().map(PathBuf::from));
        let files: BTreeSet<PathBuf> = files.iter().cloned().chain(adopted).chain(pooled).collect();
        let is_new = |path: &&PathBuf| !known.contains(path.to_string_lossy().as_ref());
        views.extend(files.iter().filter(is_new).map(|path| file(path)));
        self.look_at(world, &mut views);
        for view in &mut views {
            view.used_by.extend(user_of(config, &view.path));
        }
        share_use(&mut views, &system);
        views.iter_mut().for_each(judge);
        views
    }

    fn look_at(&self, world: &dyn World, views: &mut [PvView]) {
        let deadline = world.now() + LOOK_LIMIT;
        let (tell, told) = mpsc::channel();
        let mut waiting = 0;
        let mut next = 0;
        while next < views.len() || waiting > 0 {
            if next < views.len() && waiting < LOOKS_MAX {
                let view = &mut views[next];
                match self.start(view, next, tell.clone()) {
                    Ok(()) => waiting += 1,
                    Err(why) => view.problem = Some(why),
                }
                next += 1;
                continue;
            }
            let left = deadline.saturating_sub(world.now());
            match told.recv_timeout(left) {
                Ok((index, found)) => {
                    waiting -= 1;
                    take(&mut views[index], found);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        for view in views.iter_mut().filter(|view| view.state == PvState::Unknown) {
            let late = format!("it does not answer within {} s", LOOK_LIMIT.as_secs());
            view.problem.get_or_insert(late);
        }
    }

    /// Begins to look at one.
    fn start(
        &self,
        view: &PvView,
        index: usize,
        tell: mpsc::Sender<(usize, (Size, Found))>,
    ) -> Result<(), String> {
        let path = PathBuf::from(&view.path);
        let under_way = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way().insert(path.clone()) {
            return Err("it has not answered since it was last asked".to_owned());
        }
        let looker = self.clone();
        let looked_at = path.clone();
        let started = world::spawn("viaduct-pv", move || {
            let found = look(&path);
            let mut under_way = looker.0.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.remove(&path);
            drop(under_way);
            // Who asked may have given up.
            let _ = tell.send((index, found));
        });
        started.map(drop).map_err(|error| {
            under_way().remove(&looked_at);
            format!("it cannot be looked at: {error}")
        })
    }
}

fn file(path: &Path) -> PvView {
    let path = path.to_string_lossy().into_owned();
    PvView { path, kind: PvKind::File, ..PvView::default() }
}

fn take(view: &mut PvView, (size, found): (Size, Found)) {
    if size > Size::ZERO {
        view.size = size;
    }
    match found {
        Ok(holds) => {
            view.holds = holds;
            view.state = PvState::Free;
        }
        Err(why) => view.problem = Some(why),
    }
}

/// Reads both ends. Nothing is opened for writing.
fn look(path: &Path) -> (Size, Found) {
    let failed = |error: std::io::Error| (Size::ZERO, Err(format!("it cannot be read: {error}")));
    let opened = FileHandle::open(path, OpenOptions::read());
    let (handle, info) = match opened.and_then(|handle| Ok((handle.info()?, handle))) {
        Ok((info, handle)) => (handle, info),
        Err(error) => return failed(error),
    };
    let size = info.size;
    let read = |begin: u64, length: usize| {
        let mut bytes = vec![0; length];
        handle.read_at(&mut bytes, begin).map(|()| bytes)
    };
    let head = read(0, HEAD_BYTES.min(size as usize));
    let tail_begin = size.saturating_sub(TAIL_BYTES as u64) / SECTOR * SECTOR;
    let tail = read(tail_begin, (size - tail_begin) as usize);
    match head.and_then(|head| Ok((head, tail?))) {
        Ok((head, tail)) => {
            let ends = Ends { size, head: &head, tail: &tail };
            (Size(size), Ok(signature::holds(&ends)))
        }
        Err(error) => (Size(size), failed(error).1),
    }
}

/// What is used of a part is used of the whole.
fn share_use(views: &mut [PvView], system: &System) {
    let used: Vec<(String, bool)> =
        views.iter().map(|view| (view.path.clone(), !view.used_by.is_empty())).collect();
    for view in views.iter_mut().filter(|view| view.kind == PvKind::Disk) {
        let parts = system.partitions_of(&view.path);
        let used = used.iter().filter(|(path, is_used)| *is_used && parts.contains(path));
        view.used_by.extend(used.map(|(path, _)| format!("in use: {path}")));
    }
}

fn judge(view: &mut PvView) {
    view.state = match () {
        () if !view.used_by.is_empty() => PvState::Used,
        () if view.state == PvState::Unknown => PvState::Unknown,
        () if view.holds.is_empty() => PvState::Free,
        () => PvState::Data,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Machine;

    #[test]
    fn files_are_told_with_what_they_hold_and_who_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("empty"), vec![0; 1 << 20]).unwrap();
        let mut swap = vec![0; 1 << 20];
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        std::fs::write(path("swap"), swap).unwrap();
        let lu = serde_json::json!({
            "name": "web", "uuid": uuid::Uuid::max(), "size": "1MiB", "serial": "s",
            "backing": {"kind": "adopted", "path": path("empty")},
        });
        let config = Config { lus: vec![serde_json::from_value(lu).unwrap()], ..Config::default() };
        let files = ["empty", "swap", "none"].map(path);
        let views = Looker::default().list(&Machine, &config, &files);
        let of = |name: &str| {
            let path = path(name).to_string_lossy().into_owned();
            views.iter().find(|view| view.path == path).unwrap()
        };
        assert_eq!(
            (of("empty").state, &of("empty").used_by[..]),
            (PvState::Used, &["LU web".to_owned()][..])
        );
        assert_eq!(
            (of("swap").state, &of("swap").holds[..]),
            (PvState::Data, &["swap".to_owned()][..])
        );
        assert_eq!((of("none").state, of("none").size), (PvState::Unknown, Size::ZERO));
        assert!(of("none").problem.as_ref().unwrap().contains("cannot be read"));
    }

    #[test]
    fn who_has_not_answered_is_not_asked_again() {
        let looker = Looker::default();
        let stuck = PathBuf::from("/nowhere");
        looker.0.lock().unwrap().insert(stuck.clone());
        let views = looker.list(&Machine, &Config::default(), &[stuck]);
        let view = views.iter().find(|view| view.path == "/nowhere").unwrap();
        assert_eq!(view.state, PvState::Unknown);
        assert!(view.problem.as_ref().unwrap().contains("not answered"), "{view:?}");
    }
}

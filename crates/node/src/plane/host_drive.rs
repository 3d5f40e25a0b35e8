//! Drives of clients that are drives of the node: what is in the one is in the other.
//!
//! One task for each drive looks at the node's drive every second, and as soon as a client moves
//! the tray or locks it. What is to be done then is said by [`Was::next`], which knows only what
//! was seen:
//!
//! ```text
//!   a disc was put in, there ─────▶ it is loaded, and clients are told
//!   the tray was opened there ────▶ none is loaded, and the tray is out for clients
//!   a client opened the tray ─────▶ nothing has the disc any more, and it is ejected
//!   a client drew the tray in ────▶ so is the one there
//! ```
//!
//! A block device that is no drive has no tray: its content is a disc that nobody takes out.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::medium::MEDIUM_BLOCK_BYTES;
use model::{ApiError, Severity, Subject};
use rt::Core;
use rt::os::optical::{Disc, HostDrive, Inside};
use store::FileStore;
use store::file::Options;
use target::lun::{Change, Medium, MediumChange, View};
use uuid::Uuid;

use super::drives::Everywhere;
use super::{Inner, Plane, lus};
use crate::engine::{Report, Trouble};
use crate::world;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const EJECT_RETRY: Duration = Duration::from_millis(50);
const EJECT_TRIES: u32 = 20;

/// Whether clients can be given this device.
pub fn check(path: &Path) -> Result<(), ApiError> {
    let shown = path.display();
    let looked = world::canonical(path).and_then(|path| HostDrive::open(&path)?.look());
    looked.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ApiError::not_found(format!("there is no drive {shown}"))
            .then("give the path of a drive of the node, like /dev/sr0"),
        io::ErrorKind::InvalidInput => {
            ApiError::usage(format!("{shown} is no drive, and no other block device"))
                .then("viaduct media add FILE takes an image into the library")
        }
        _ => ApiError::failed(format!("the drive {shown} cannot be used: {error}")),
    })
}

/// What was seen and done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Was {
    is_known: bool,
    is_open: bool,
    disc: Option<Disc>,
    /// Clients read of it.
    is_loaded: bool,
    is_locked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Load(Disc),
    /// None is loaded any more; the tray may be out.
    Unload {
        open: bool,
    },
    /// Opens the tray of the node's drive, which nothing may have open then.
    Eject,
    /// Draws it in.
    Close,
}

/// What is seen of the node's drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inside: Inside,
    has_tray: bool,
}

impl Was {
    /// What is to be done now that this is in the drive, and that is what clients see of it.
    fn next(&self, Seen { inside, has_tray }: Seen, clients: Medium) -> Step {
        match inside {
            Inside::Disc(disc) => {
                // A disc that lay in a drive without a tray was there before the node was.
                let was_there = self.disc == Some(disc) || !self.is_known && !has_tray;
                let is_new = self.is_open || !was_there;
                match (is_new, clients.open) {
                    (true, _) => Step::Load(disc),
                    (false, true) if has_tray => Step::Eject,
                    (false, false) if !self.is_loaded => Step::Load(disc),
                    (false, _) => Step::Nothing,
                }
            }
            Inside::Open if !self.is_open => Step::Unload { open: true },
            Inside::Open if !clients.open => Step::Close,
            Inside::Nothing if self.disc.is_some() || !self.is_known => {
                Step::Unload { open: false }
            }
            Inside::Nothing if clients.open && has_tray => Step::Eject,
            Inside::Open | Inside::Nothing | Inside::Busy => Step::Nothing,
        }
    }

    fn see(&mut self, inside: Inside) {
        self.is_known = true;
        match inside {
            Inside::Disc(disc) => (self.disc, self.is_open) = (Some(disc), false),
            Inside::Nothing => (self.disc, self.is_open) = (None, false),
            Inside::Open => (self.disc, self.is_open) = (None, true),
            Inside::Busy => {}
        }
    }
}

/// A drive that is followed.
pub(super) struct Follower {
    pub plane: Weak<Inner>,
    pub core: Core,
    pub uuid: Uuid,
    pub name: model::LuName,
    pub device: PathBuf,
    /// Follows for as long as this is open.
    pub drive: Weak<Everywhere>,
}

impl Follower {
    pub async fn follow(self) {
        let mut was = Was::default();
        loop {
            let Some(seen) = self.step(&mut was).await else { return };
            let Some(units) = self.plane.upgrade().map(|plane| plane.units.clone()) else { return };
            let mut changed = pin!(units.changed(self.uuid, seen));
            // Looked at again every second; one wish to be told of changes is enough for all.
            while self.core.timeout(LOOK_EVERY, &mut changed).await.is_none() {
                match self.step(&mut was).await {
                    Some(version) if version == seen => {}
                    Some(_) => break,
                    None => return,
                }
            }
        }
    }

    /// Looks, and does what is to be done; the version of what clients see. None: the drive is
    /// closed.
    async fn step(&self, was: &mut Was) -> Option<u64> {
        let (plane, drive) = (Plane(self.plane.upgrade()?), self.drive.upgrade()?);
        let view = plane.0.units.view(self.uuid).await?;
        let looked =
            self.on_drive(|drive| Ok(Seen { inside: drive.look()?, has_tray: drive.has_tray() }));
        let looked = looked.await;
        let seen =
            looked.as_ref().copied().unwrap_or(Seen { inside: Inside::Nothing, has_tray: false });
        let step = was.next(seen, view.medium);
        was.see(seen.inside);
        let done = match looked {
            Ok(_) => self.carry_out(&plane, &drive, was, step).await,
            Err(error) => {
                let device = self.device.display();
                let unloaded = self.carry_out(&plane, &drive, was, step).await;
                unloaded.and(Err(Trouble {
                    message: format!("the drive {device} of the node cannot be used: {error}"),
                    next: Some(format!("look whether {device} is there; it is tried again")),
                }))
            }
        };
        self.lock(was, &view, matches!(step, Step::Load(_))).await;
        self.tell(&plane, &drive, done.err());
        Some(view.version)
    }

    async fn carry_out(
        &self,
        plane: &Plane,
        drive: &Everywhere,
        was: &mut Was,
        step: Step,
    ) -> Result<(), Trouble> {
        let change = |change| plane.0.units.change(self.uuid, Change::Medium(change));
        match step {
            Step::Nothing => {}
            Step::Load(disc) => {
                self.unload(plane, drive, was).await?;
                change(MediumChange::Exchanged { present: false }).await?;
                drive.exchange(Some(self.open(plane, disc).await?)).await?;
                was.is_loaded = true;
                change(MediumChange::Exchanged { present: true }).await?;
            }
            Step::Unload { open } => {
                self.unload(plane, drive, was).await?;
                if !open {
                    change(MediumChange::Exchanged { present: false }).await?;
                }
            }
            Step::Eject => {
                self.unload(plane, drive, was).await?;
                was.is_locked = false;
                self.eject().await?;
                // Known from now on, for a client may draw it in before it is looked at again.
                was.see(Inside::Open);
            }
            Step::Close => {
                self.on_drive(|drive| drive.close()).await.map_err(|error| Trouble {
                    message: format!(
                        "the tray of {} cannot be drawn in: {error}",
                        self.device.display()
                    ),
                    next: None,
                })?;
            }
        }
        Ok(())
    }

    /// Clients see an empty drive whose tray is out.
    async fn unload(
        &self,
        plane: &Plane,
        drive: &Everywhere,
        was: &mut Was,
    ) -> Result<(), ApiError> {
        let change = |change| plane.0.units.change(self.uuid, Change::Medium(change));
        was.is_loaded = false;
        change(MediumChange::Eject { by: None, force: true }).await?;
        drive.exchange(None).await?;
        change(MediumChange::TakenOut).await
    }

    /// What was just let go of may be closed a moment later.
    async fn eject(&self) -> Result<(), Trouble> {
        let mut tries = 0;
        loop {
            let ejected = self.on_drive(|drive| drive.lock(false).and_then(|()| drive.eject()));
            let Err(error) = ejected.await else { return Ok(()) };
            tries += 1;
            if error.kind() != io::ErrorKind::ResourceBusy || tries == EJECT_TRIES {
                let device = self.device.display();
                return Err(Trouble {
                    message: format!("the disc in {device} is to be ejected, and cannot: {error}"),
                    next: Some(format!(
                        "end what else uses {device} on the node (fuser -v {device} tells); it is \
                         tried again"
                    )),
                });
            }
            self.core.sleep(EJECT_RETRY).await;
        }
    }

    /// Opens what is in the drive, which nobody writes.
    async fn open(&self, plane: &Plane, disc: Disc) -> Result<Arc<FileStore>, Trouble> {
        let options = Options {
            size: Some(disc.size - disc.size % u64::from(MEDIUM_BLOCK_BYTES)),
            block_size: MEDIUM_BLOCK_BYTES,
            read_only: true,
            shareable: true,
            node: lus::number(plane.0.context.node),
            page_cache: true,
        };
        let opened = FileStore::open(&self.core, &self.device, options, || ()).await;
        opened.map_err(|error| Trouble { message: error.to_string(), next: None })
    }

    /// A client's lock holds the button on the node's drive. Having the disc open does too, which
    /// only root can take back; so who may not leaves the drive locked while a disc is loaded.
    async fn lock(&self, was: &mut Was, view: &View, is_opened: bool) {
        let is_locked = !view.preventing.is_empty();
        if is_locked == was.is_locked && !is_opened {
            return;
        }
        was.is_locked = is_locked;
        // A device without a tray has nothing to lock.
        let _ = self.on_drive(move |drive| drive.lock(is_locked)).await;
    }

    async fn on_drive<T: Send + 'static>(
        &self,
        f: impl FnOnce(HostDrive) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let device = self.device.clone();
        let done = self.core.blocking(move || f(HostDrive::open(&device)?)).await;
        done.unwrap_or_else(|| Err(io::Error::other("the node stops")))
    }

    /// What is wrong is shown, and told once.
    fn tell(&self, plane: &Plane, drive: &Everywhere, trouble: Option<Trouble>) {
        if !drive.set_problem(trouble.clone()) {
            return;
        }
        let (severity, message, next) = match trouble {
            Some(Trouble { message, next }) => (Severity::Warning, message, next),
            None => {
                let device = self.device.display();
                (Severity::Info, format!("the drive {device} of the node can be used again"), None)
            }
        };
        let (subject, kind) = (Subject::Drive(self.name.clone()), "host-drive");
        (plane.0.context.report)(Report { severity, subject, kind, message, next });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISC: Inside = Inside::Disc(Disc { size: 4096, sequence: 1 });
    const OTHER: Inside = Inside::Disc(Disc { size: 4096, sequence: 2 });
    const NONE: Medium = Medium { present: false, open: false };
    const OUT: Medium = Medium { present: false, open: true };

    /// A drive that was seen like that, and what follows.
    fn next(seen: &[Inside], is_loaded: bool, now: Inside, has_tray: bool, is: Medium) -> Step {
        let mut was = Was { is_loaded, ..Was::default() };
        seen.iter().for_each(|inside| was.see(*inside));
        was.next(Seen { inside: now, has_tray }, is)
    }

    fn load(inside: Inside) -> Step {
        let Inside::Disc(disc) = inside else { unreachable!("a disc") };
        Step::Load(disc)
    }

    #[test]
    fn what_happens_at_the_drive_is_followed() {
        assert_eq!(next(&[], false, DISC, true, NONE), load(DISC));
        assert_eq!(next(&[DISC], true, DISC, true, Medium::LOADED), Step::Nothing);
        assert_eq!(next(&[DISC], true, OTHER, true, Medium::LOADED), load(OTHER));
        assert_eq!(next(&[DISC], true, Inside::Busy, true, Medium::LOADED), Step::Nothing);
        let unload = |open| Step::Unload { open };
        assert_eq!(next(&[DISC], true, Inside::Open, true, Medium::LOADED), unload(true));
        assert_eq!(next(&[DISC], true, Inside::Nothing, true, Medium::LOADED), unload(false));
        assert_eq!(next(&[Inside::Open], false, Inside::Open, true, OUT), Step::Nothing);
        assert_eq!(next(&[Inside::Open], false, Inside::Nothing, true, OUT), Step::Eject);
        assert_eq!(next(&[Inside::Nothing], false, Inside::Nothing, true, NONE), Step::Nothing);
        // The same disc again, without a count of media.
        assert_eq!(next(&[DISC, Inside::Open], false, DISC, true, OUT), load(DISC));
        // It could not be read the first time.
        assert_eq!(next(&[DISC], false, DISC, true, NONE), load(DISC));
    }

    #[test]
    fn what_clients_do_is_done_at_the_drive() {
        let out = Medium { present: true, open: true };
        assert_eq!(next(&[DISC], true, DISC, true, out), Step::Eject);
        assert_eq!(next(&[Inside::Open], false, Inside::Open, true, NONE), Step::Close);
        assert_eq!(next(&[Inside::Nothing], false, Inside::Nothing, true, OUT), Step::Eject);
    }

    #[test]
    fn a_device_without_a_tray_stays_out_until_it_is_drawn_in() {
        let out = Medium { present: true, open: true };
        assert_eq!(next(&[DISC], true, DISC, false, out), Step::Nothing);
        // After a restart too.
        assert_eq!(next(&[], false, DISC, false, out), Step::Nothing);
        assert_eq!(next(&[DISC], false, DISC, false, Medium::LOADED), load(DISC));
        assert_eq!(next(&[DISC], true, OTHER, false, out), load(OTHER));
    }
}

//! Drives on the data plane: one `volume::Drive` for each handle, all with the same medium, and the
//! tray that is part of the state which all clients share.
//!
//! ```text
//!   medium in ──▶ tray opens ──▶ other medium in on every core ──▶ tray closes: clients are told
//! ```
//!
//! In that order nobody reads of a medium before being told that it is another one. A drive has its
//! shared state from the time it is open, mapped or not: where its tray is must not be forgotten.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use block::{Device, Error, ErrorKind};
use cluster::{DeviceSpec, DriveSpec, MediumImage, MediumSpec};
use model::medium::MEDIUM_BLOCK_BYTES;
use model::{ApiError, Backing, BlockSize, Cache, Limits, Size};
use rt::{Core, Placed};
use store::file::Options;
use store::{Boxed, FileStore, Store};
use target::lun::{self, Change, MediumChange};
use target::scsi::Kind;
use uuid::Uuid;
use volume::Drive;

use super::health::Watch;
use super::host_drive::Follower;
use super::units::Units;
use super::{Lu, Plane, lus, not_open};
use crate::engine::{DriveStatus, Motion, Trouble};
use crate::library;

/// How long clients may take to let go of a medium that they lock, once they were asked to: hosts
/// look for such wishes every two seconds.
const LETTING_GO: Duration = Duration::from_secs(5);

/// The media that are open, each once for all drives that have it.
#[derive(Default)]
pub(super) struct Media(Mutex<BTreeMap<Uuid, std::sync::Weak<FileStore>>>);

impl Media {
    async fn open(
        &self,
        plane: &Plane,
        core: &Core,
        image: MediumImage,
    ) -> Result<Arc<FileStore>, ApiError> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = known().get(&image.uuid).and_then(std::sync::Weak::upgrade) {
            return Ok(open);
        }
        let context = &plane.0.context;
        let path = library::path(&context.media, image.uuid);
        let options = Options {
            size: Some(image.size.0),
            block_size: MEDIUM_BLOCK_BYTES,
            read_only: true,
            shareable: true,
            node: lus::number(context.node),
            // Clients of one medium read the same of it.
            page_cache: true,
        };
        let opened = FileStore::open(core, &path, options, || ()).await;
        let opened = opened.map_err(|error| ApiError::failed(error.to_string()))?;
        let mut known = known();
        known.retain(|_, store| store.strong_count() > 0);
        known.insert(image.uuid, Arc::downgrade(&opened));
        Ok(opened)
    }
}

/// A drive on all cores.
#[derive(Default)]
pub(super) struct Everywhere(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    medium: Option<Arc<FileStore>>,
    /// Why the drive of the node that it is cannot be used.
    problem: Option<Trouble>,
    handles: Vec<Arc<Placed<Here>>>,
}

/// A handle of it on one core, which whoever uses it keeps.
struct Here {
    core: Core,
    drive: Weak<Drive>,
}

impl Everywhere {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is news.
    pub(super) fn set_problem(&self, problem: Option<Trouble>) -> bool {
        let mut inside = self.inside();
        let is_news = inside.problem != problem;
        inside.problem = problem;
        is_news
    }

    /// The same medium for every handle, those included that are just being made.
    pub(super) async fn exchange(&self, medium: Option<Arc<FileStore>>) -> Result<(), ApiError> {
        let handles = {
            let mut inside = self.inside();
            inside.medium.clone_from(&medium);
            inside.handles.clone()
        };
        let exchange = |here: &Arc<Placed<Here>>| {
            let medium = medium.clone();
            here.call(async move |here| {
                let Some(drive) = here.drive.upgrade() else { return (true, Ok(())) };
                let device = medium.map(|medium| medium.device(&here.core));
                (false, drive.exchange(device).map(drop).map_err(|error| error.to_string()))
            })
        };
        let asked: Vec<_> = handles.iter().map(|here| (here, exchange(here))).collect();
        let mut result = Ok(());
        for (here, done) in asked {
            // A core that has ended shows nothing to anybody.
            let (is_gone, done) = done.await.unwrap_or((true, Ok(())));
            if is_gone {
                self.inside().handles.retain(|other| !Arc::ptr_eq(other, here));
            }
            result = result.and(done);
        }
        result.map_err(ApiError::failed)
    }
}

impl Store for Everywhere {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        let drive = Drive::new(core, MEDIUM_BLOCK_BYTES);
        let mut inside = self.inside();
        let medium = inside.medium.clone().map(|medium| medium.device(core));
        // A medium of another block size was refused when it was put in.
        let _ = drive.exchange(medium);
        let here = Here { core: core.clone(), drive: Rc::downgrade(&drive) };
        inside.handles.push(Arc::new(Placed::new(core, Rc::new(here))));
        drive
    }

    fn size(&self) -> u64 {
        self.inside().medium.as_ref().map_or(0, |medium| medium.size())
    }

    fn resize<'a>(self: Arc<Self>, _: &'a Core, _: u64) -> Boxed<'a, Result<(), Error>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }
}

/// Opens a drive, with the medium that it shall have, and with the tray where it was.
pub(super) async fn open(plane: &Plane, core: &Core, spec: DriveSpec) -> Result<(), ApiError> {
    let uuid = spec.uuid;
    if plane.lu(uuid).is_some() {
        return exchange(plane, core, spec).await;
    }
    let medium = medium(plane, core, &spec).await?;
    let is_present = medium.is_some();
    let drive = Arc::new(Everywhere::default());
    drive.exchange(medium).await?;
    let lu = Lu {
        spec: as_device(&spec),
        kind: Kind::Optical,
        store: drive.clone(),
        drive: Some(drive.clone()),
        pooled: None,
        swap: None,
        writeback: Arc::new(AtomicBool::new(false)),
        health: Arc::new(Watch::of(Arc::downgrade(&plane.0), uuid)),
        budget: None,
        past: Arc::default(),
    };
    let units = &plane.0.units;
    units.own((&lu).into()).await?;
    // A node that was killed in the middle of an exchange knows another one.
    let kept = units.view(uuid).await.map(|view| view.medium.present);
    if spec.device.is_none() && kept.is_some_and(|kept| kept != is_present) {
        let change = MediumChange::Exchanged { present: is_present };
        units.change(uuid, Change::Medium(change)).await?;
    }
    plane.open().devices.insert(uuid, Arc::new(lu));
    if let Some(device) = spec.device {
        let follower = Follower {
            plane: Arc::downgrade(&plane.0),
            core: core.clone(),
            uuid,
            name: spec.name,
            device: device.into(),
            drive: Arc::downgrade(&drive),
        };
        core.spawn(follower.follow());
    }
    Ok(())
}

/// Puts another medium in, or none. Who may forbid that was asked before.
pub(super) async fn exchange(plane: &Plane, core: &Core, spec: DriveSpec) -> Result<(), ApiError> {
    let uuid = spec.uuid;
    let lu = plane.lu(uuid).ok_or_else(|| not_open(uuid))?;
    let drive = lu.drive.clone().ok_or_else(|| not_open(uuid))?;
    let medium = medium(plane, core, &spec).await?;
    let present = medium.is_some();
    let change = |change| plane.0.units.change(uuid, Change::Medium(change));
    change(MediumChange::Eject { by: None, force: true }).await?;
    drive.exchange(medium).await?;
    change(MediumChange::Exchanged { present }).await
}

/// What is missing in the library is not in the drive; whoever looks at the drive is told.
async fn medium(
    plane: &Plane,
    core: &Core,
    spec: &DriveSpec,
) -> Result<Option<Arc<FileStore>>, ApiError> {
    let Some(MediumSpec { name, image: Some(image) }) = &spec.medium else { return Ok(None) };
    let opened = plane.0.media.open(plane, core, *image).await;
    opened.map(Some).map_err(|error| {
        let message = format!("medium '{name}' cannot be read: {}", error.message);
        ApiError::failed(message)
            .then(format!("viaduct drive eject {}, then add the medium again", spec.name))
    })
}

/// Moves the tray as far as clients let it; who locks it where they do not.
pub(super) async fn tray(
    plane: &Plane,
    core: &Core,
    uuid: Uuid,
    motion: Motion,
) -> Result<Vec<String>, ApiError> {
    let units = &plane.0.units;
    let change = |change| units.change(uuid, Change::Medium(change));
    let view = async || units.view(uuid).await.ok_or_else(|| not_open(uuid));
    match motion {
        Motion::Close => change(MediumChange::Load { by: None }).await?,
        Motion::Force => change(MediumChange::Eject { by: None, force: true }).await?,
        Motion::Open => match core.timeout(LETTING_GO, press(units, uuid)).await {
            Some(pressed) => pressed?,
            None => return view().await.map(|view| lockers(&view)),
        },
    }
    Ok(Vec::new())
}

/// Presses the button, and again when nobody locks the tray any more, until it is open.
async fn press(units: &Units, uuid: Uuid) -> Result<(), ApiError> {
    let mut view = units.view(uuid).await.ok_or_else(|| not_open(uuid))?;
    let mut is_asked = false;
    while view.medium.is_loaded() {
        let seen = view.version;
        if !is_asked || lockers(&view).is_empty() {
            units.change(uuid, Change::Medium(MediumChange::Button)).await?;
            is_asked = true;
            view = units.view(uuid).await.ok_or_else(|| not_open(uuid))?;
        } else {
            view = units.changed(uuid, seen).await.ok_or_else(|| not_open(uuid))?;
        }
    }
    Ok(())
}

/// A drive as an operator sees it.
pub(super) fn status(drive: &Everywhere, view: &lun::View) -> DriveStatus {
    DriveStatus {
        is_open: view.medium.open,
        is_loaded: view.medium.is_loaded(),
        problem: drive.inside().problem.clone(),
        locked_by: lockers(view),
    }
}

fn lockers(view: &lun::View) -> Vec<String> {
    let nexuses = view.preventing.union(&view.preventing_persistently);
    let mut names: Vec<String> = nexuses.map(|it| super::units::name_of(it.initiator())).collect();
    names.dedup();
    names
}

/// A drive as adapters see it: a device that is only read, and has no size of its own.
fn as_device(drive: &DriveSpec) -> DeviceSpec {
    DeviceSpec {
        uuid: drive.uuid,
        name: drive.name.clone(),
        serial: drive.serial.clone(),
        size: Size(0),
        block_size: BlockSize::B512,
        cache: Cache::Writethrough,
        limits: Limits::default(),
        read_only: true,
        removable: true,
        shareable: true,
        backing: Backing::Null,
        pool: None,
        snapshots: BTreeMap::new(),
        thick: false,
        outdated: false,
        origin: None,
        migration: None,
    }
}

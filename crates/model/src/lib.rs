//! The nouns of Viaduct as plain serde types: what `kv` stores, what the REST API speaks and what
//! the command line prints are the same structs, so that a word means one thing everywhere.
//!
//! | module | nouns |
//! |---|---|
//! | [`limits`] | every limit of the control plane, by name |
//! | [`name`] | [`LuName`], [`PoolName`], [`MediumName`], [`ClientName`], [`Iqn`], [`Nqn`]: parsed once, valid ever after |
//! | [`size`] | [`Size`]: `10G`, `10GiB`, `512` |
//! | [`lu`] | [`Lu`] and what creates, adopts and resizes one |
//! | [`pool`] | [`Pool`]: disks that LUs are cut from |
//! | [`pool_import`] | pools that are found on disks, and taken over |
//! | [`scrub`] | [`Scrub`]: reading all of it, and what that has come to |
//! | [`pool_settings`] | [`PoolSettings`]: what of it can be changed at any time |
//! | [`medium`] | [`Medium`]: a disc image in the library |
//! | [`drive`] | [`Drive`]: a virtual drive for them |
//! | [`client`] | [`Client`] |
//! | [`chap`] | how a client proves itself over iSCSI: [`Chap`], and [`Secrets`] kept apart from it |
//! | [`redirect`] | where its logins are sent instead: [`Redirect`] |
//! | [`mapping`] | [`Mapping`], [`Via`], [`Slot`] and the slot rules |
//! | [`target`] | the iSCSI target name of a client |
//! | [`config`] | [`Config`]: the whole desired state in one versioned document |
//! | [`event`] | [`Event`], [`Severity`], [`Subject`] |
//! | [`snapshot`] | [`Snapshot`]: a frozen state of an LU |
//! | [`status`] | what is, as opposed to what is wanted: node, devices, sessions |
//! | [`reservation`] | who holds an LU, and who registered to |
//! | [`qos`] | [`Limits`]: what an LU may take at most |
//! | [`pv`] | a disk or file that a node could use |
//! | [`stats`] | counters and latency histograms of a device |
//! | [`import`] | an LU that begins as a copy of an image |
//! | [`image`] | image formats that are not raw, and QEMU's lock bytes |
//! | [`error`] | [`ApiError`]: kind → exit code and HTTP status |
//!
//! There is no behaviour here beyond parsing, validation of one value by itself, and printing.
//! Rules that span objects (is this slot free?) are in `node::state`.

pub mod backup;
pub mod chap;
pub mod check;
pub mod client;
pub mod config;
pub mod drive;
pub mod error;
pub mod event;
pub mod image;
pub mod import;
pub mod limits;
pub mod lu;
pub mod mapping;
pub mod medium;
pub mod name;
pub mod pool;
pub mod pool_import;
pub mod pool_settings;
pub mod pv;
pub mod qos;
pub mod redirect;
pub mod reservation;
mod schema;
pub mod scrub;
pub mod size;
pub mod snapshot;
pub mod stats;
pub mod status;
pub mod target;

pub use chap::{Chap, ChapSecrets, Secret, Secrets};
pub use client::{Client, ClientChange, ClientCreate, SocketOwner};
pub use config::Config;
pub use drive::{Drive, DriveCreate, DriveLoad, DriveView, Tray};
pub use error::{ApiError, ErrorKind};
pub use event::{Event, Severity, Subject};
pub use import::{ImportTold, LuImport};
pub use lu::{Backing, BlockSize, Cache, Lu, LuAdopt, LuCreate, LuMigrate, LuResize, Migration};
pub use mapping::{AdapterId, MapRequest, Mapping, MappingId, Slot, Via};
pub use medium::{Medium, MediumAdd, MediumView};
pub use name::{ClientName, GroupName, Iqn, LuName, MediumName, Nqn, PoolName, SnapshotName};
pub use pool::{
    Leftover, Pool, PoolBecomes, PoolCreate, PoolForce, PoolPv, PoolRemains, PoolSplit, PoolView,
    PvAdd, PvAt, PvGroup, PvPlace, PvStanding,
};
pub use pool_import::{PoolImport, PoolImported, PoolSearch, PoolsFound};
pub use pool_settings::{PoolSettings, PoolSettingsChange};
pub use pv::PvView;
pub use qos::{Limits, LimitsChange};
pub use redirect::{PortalAddress, Redirect};
pub use scrub::Scrub;
pub use size::Size;
pub use snapshot::{CloneCreate, Snapshot, SnapshotCreate, SnapshotRef, SnapshotView};

//! One logical unit as one nexus sees it, and the port that it is seen through.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use block::{Device, Error, Geometry, Request};
use wire::scsi::inquiry::DeviceType;
use wire::scsi::reservation::Protocol;

use super::copy::Records;
use crate::lun::admit::Leaving;
use crate::lun::attention::Attentions;
use crate::lun::{Handle, Member, NexusId, PortId, View};

/// What kind of device a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Disk = 0,
    /// A CD and DVD drive.
    Optical = 1,
}

/// What a mapping says about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub kind: Kind,
    /// Its medium can be taken out.
    pub removable: bool,
    /// The mapping allows no writes, whatever the device allows.
    pub read_only: bool,
    /// Most commands of this nexus at a time.
    pub tasks_max: u32,
}

/// What INQUIRY says of the maker; cut to its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    pub vendor: &'static str,
    pub product: &'static str,
    pub optical_product: &'static str,
    pub revision: &'static str,
}

pub const MAKER: Maker = Maker {
    vendor: "VIADUCT",
    product: "Virtual Disk",
    optical_product: "Virtual DVD-ROM",
    revision: concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")),
};

/// The target device and its port of a nexus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    pub protocol: Protocol,
    /// The SCSI name string of the target device, as an iSCSI name is one; empty where the
    /// protocol gives it none.
    pub device_name: String,
}

impl TargetPort {
    /// The SCSI name string of a port: with iSCSI the portal group tag is the relative port number
    /// (RFC 7143, 4.4.1), so that both are unique in the cluster at once.
    pub fn port_name(&self, port: PortId) -> Option<String> {
        let named = self.protocol == Protocol::ISCSI && !self.device_name.is_empty();
        named.then(|| format!("{},t,0x{:04x}", self.device_name, port.0))
    }
}

/// A logical unit behind a nexus.
pub struct Unit {
    pub(super) handle: Rc<Handle>,
    pub(super) member: Rc<Member>,
    pub(super) settings: Settings,
    pub(super) block_size: u32,
    /// What was last written to the echo buffer.
    pub(super) echo: RefCell<Option<Box<[u8]>>>,
    /// What came of the last copies.
    pub(super) copies: RefCell<Records>,
}

impl Unit {
    /// Joins the LU. The attentions are shared by all cores that serve this nexus.
    pub fn new(
        nexus: NexusId,
        handle: Rc<Handle>,
        attentions: Arc<Attentions>,
        settings: Settings,
    ) -> Rc<Self> {
        let member = handle.join(nexus, attentions, settings.tasks_max);
        let block_size = handle.device().geometry().block_size;
        Rc::new(Self {
            handle,
            member,
            settings,
            block_size,
            echo: RefCell::default(),
            copies: RefCell::default(),
        })
    }

    pub fn handle(&self) -> &Rc<Handle> {
        &self.handle
    }

    /// Waits until these tasks have left; nothing that the device was asked is held back
    /// meanwhile.
    pub async fn left(&self, leaving: Leaving) {
        if !leaving.is_empty() {
            self.device().hasten();
        }
        self.member.tasks().left(leaving).await;
    }

    pub fn member(&self) -> &Rc<Member> {
        &self.member
    }

    pub fn kind(&self) -> Kind {
        self.settings.kind
    }

    pub(super) fn device(&self) -> &dyn Device {
        &**self.handle.device()
    }

    #[inline]
    pub(super) fn count(&self, request: &Request<'_>, outcome: &Result<u64, Error>) {
        self.handle.meter().count(request.op, request.len, outcome.as_ref().map(drop));
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.handle.device().geometry()
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.handle.view()
    }

    pub(super) fn blocks(&self) -> u64 {
        self.geometry().size / u64::from(self.block_size)
    }

    /// By the mapping, the device or a client's wish.
    pub(super) fn is_write_protected(&self) -> bool {
        self.is_protected(&self.view())
    }

    #[inline]
    pub(super) fn is_protected(&self, view: &View) -> bool {
        self.settings.read_only || view.modes.control.write_protect || self.geometry().read_only
    }

    /// Whether a write must survive loss of power before it is answered.
    pub(super) fn is_write_through(&self) -> bool {
        !self.view().modes.caching.write_back
    }

    pub(super) fn device_type(&self) -> DeviceType {
        match self.settings.kind {
            Kind::Disk => DeviceType::DISK,
            Kind::Optical => DeviceType::OPTICAL,
        }
    }
}

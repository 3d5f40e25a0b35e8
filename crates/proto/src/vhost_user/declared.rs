//! What has been offered, negotiated and declared in one session, and how each request changes it.
//!
//! A request is checked against this state and applied before the owner sees it, so that the owner
//! finds the state the request wants; the state before is kept by the session until the answer, and
//! comes back when the owner refuses.

use super::PROTOCOL_FEATURES;
use super::back_end::Offer;
use super::error::Violation;
use super::memory::MemoryTable;
use super::request::{InflightArea, LogArea, Request};
use super::ring::{Kick, Ring};
use super::table::{Needs, Rings, Row, feature_name};
use wire::vhost_user::{queue_region_split_bytes, virtio_feature};

/// Negotiated and declared so far.
#[derive(Clone)]
pub(super) struct Declared {
    pub(super) features: u64,
    pub(super) protocol_features: u64,
    pub(super) rings: Vec<Ring>,
    pub(super) memory: MemoryTable,
}

impl Declared {
    pub(super) fn new(offer: &Offer) -> Self {
        Self {
            features: 0,
            protocol_features: 0,
            rings: vec![Ring::default(); usize::from(offer.ring_count)],
            memory: MemoryTable::new(offer.mem_slots_max),
        }
    }

    /// Whether the request is legal now.
    pub(super) fn check<F>(
        &self,
        offer: &Offer,
        row: &Row,
        request: &Request<F>,
    ) -> Result<(), Violation> {
        match row.needs {
            Needs::Offered(bit) if offer.protocol_features & bit == 0 => {
                return Err(Violation::NotOffered { feature: feature_name(bit) });
            }
            Needs::Negotiated(bit) if self.protocol_features & bit == 0 => {
                return Err(Violation::NotNegotiated { feature: feature_name(bit) });
            }
            _ => {}
        }
        let named = match request.ring() {
            Some(index) => Some((index, self.ring(index)?)),
            None => None,
        };
        match (row.rings, named) {
            (Rings::ThisIdle, Some((index, ring))) if ring.runs() => {
                Err(Violation::RingRunning(index))
            }
            (Rings::AllIdle, _) if self.any_ring_runs() => Err(Violation::RingsRunning),
            _ => Ok(()),
        }
    }

    /// Does to the state what the request says; checks what needs the offer to be checked.
    pub(super) fn apply<F>(
        &mut self,
        offer: &Offer,
        request: &Request<F>,
    ) -> Result<(), Violation> {
        match request {
            Request::SetFeatures(features) => return self.set_features(offer, *features),
            Request::SetProtocolFeatures(features) => {
                offered(*features, offer.protocol_features)?;
                self.protocol_features = *features;
            }
            Request::ResetOwner => self.rings.iter_mut().for_each(|ring| ring.enabled = false),
            Request::ResetDevice => {
                // Memory and protocol features belong to the session, not to the device: front ends
                // that send only differences of the memory table rely on it after a reset.
                self.features = 0;
                self.rings.fill(Ring::default());
            }
            Request::SetMemTable(table) => {
                return self.memory.replace(table.iter().map(|(region, _)| *region));
            }
            Request::AddMemReg(region, _) => return self.memory.add(*region),
            Request::RemMemReg(region) => return self.memory.remove(*region),
            Request::SetLogBase(log, _) => return check_log(log),
            Request::SetVringNum { ring, num } => {
                if !num.is_power_of_two() || *num > offer.ring_size_max {
                    let (num, max) = (u32::from(*num), offer.ring_size_max);
                    return Err(Violation::RingSize { num, max });
                }
                self.ring_mut(*ring).num = *num;
            }
            Request::SetVringAddr { ring, addresses } => {
                addresses.check()?;
                self.ring_mut(*ring).addresses = Some(*addresses);
            }
            Request::SetVringBase { ring, base } => self.ring_mut(*ring).base = *base,
            Request::GetVringBase { ring } => self.ring_mut(*ring).kick = None,
            Request::SetVringKick { ring, fd } => {
                let kick = if fd.is_some() { Kick::Fd } else { Kick::Poll };
                self.ring_mut(*ring).kick = Some(kick);
            }
            Request::SetVringEnable { ring, enable } => self.ring_mut(*ring).enabled = *enable,
            Request::GetInflightFd(area) => return check_inflight(offer, area),
            Request::SetInflightFd(area, _) => {
                check_inflight(offer, area)?;
                return check_inflight_size(area);
            }
            Request::GetFeatures
            | Request::SetOwner
            | Request::GetProtocolFeatures
            | Request::GetQueueNum
            | Request::GetMaxMemSlots
            | Request::SetLogFd(_)
            | Request::SetVringCall { .. }
            | Request::SetVringErr { .. }
            | Request::GetConfig { .. }
            | Request::SetConfig { .. }
            | Request::SetBackendReqFd(_) => {}
        }
        Ok(())
    }

    fn set_features(&mut self, offer: &Offer, features: u64) -> Result<(), Violation> {
        offered(features, offer.all_features())?;
        // Logging is switched on and off under running rings ("Migration"); nothing else is.
        let changed = (self.features ^ features) & !virtio_feature::LOG_ALL;
        if changed != 0 && self.any_ring_runs() {
            return Err(Violation::FeaturesWhileRunning(changed));
        }
        self.features = features;
        if features & virtio_feature::PROTOCOL_FEATURES == 0 {
            self.rings.iter_mut().for_each(|ring| ring.enabled = true);
        }
        Ok(())
    }

    fn ring_mut(&mut self, index: u16) -> &mut Ring {
        &mut self.rings[usize::from(index)]
    }

    fn ring(&self, index: u16) -> Result<&Ring, Violation> {
        let count = self.rings.len();
        let unknown = Violation::RingIndex { index: index.into(), count };
        self.rings.get(usize::from(index)).ok_or(unknown)
    }

    fn any_ring_runs(&self) -> bool {
        self.rings.iter().any(Ring::runs)
    }
}

impl Offer {
    /// The device's features and those that vhost-user adds.
    pub(super) fn all_features(&self) -> u64 {
        self.features | virtio_feature::PROTOCOL_FEATURES | virtio_feature::LOG_ALL
    }

    pub(super) fn assert_valid(&self) {
        assert!(self.protocol_features & !PROTOCOL_FEATURES == 0, "offer only what is implemented");
        assert!((1..=super::RING_COUNT_MAX).contains(&usize::from(self.ring_count)));
        assert!(self.ring_size_max.is_power_of_two());
        assert!(self.mem_slots_max > 0);
    }
}

fn offered(features: u64, offer: u64) -> Result<(), Violation> {
    match features & !offer {
        0 => Ok(()),
        unknown => Err(Violation::Features(unknown)),
    }
}

fn check_log(log: &LogArea) -> Result<(), Violation> {
    if log.mmap_size == 0 || log.mmap_offset.checked_add(log.mmap_size).is_none() {
        return Err(Violation::LogArea { size: log.mmap_size, offset: log.mmap_offset });
    }
    Ok(())
}

fn check_inflight(offer: &Offer, area: &InflightArea) -> Result<(), Violation> {
    let queues = (1..=offer.ring_count).contains(&area.num_queues);
    if queues && (1..=offer.ring_size_max).contains(&area.queue_size) {
        Ok(())
    } else {
        Err(inflight_violation(area))
    }
}

fn check_inflight_size(area: &InflightArea) -> Result<(), Violation> {
    let needed = u64::from(area.num_queues) * queue_region_split_bytes(area.queue_size);
    if area.mmap_size < needed || area.mmap_offset.checked_add(area.mmap_size).is_none() {
        return Err(inflight_violation(area));
    }
    Ok(())
}

fn inflight_violation(area: &InflightArea) -> Violation {
    Violation::InflightArea {
        queues: area.num_queues,
        queue_size: area.queue_size,
        size: area.mmap_size,
    }
}

//! What a front end has declared about each ring, and when a ring runs ("Ring states").
//!
//! ```text
//!            size, addresses and kick known
//!   stopped ────────────────────────────────▶ started        enabled: SET_VRING_ENABLE 1, or
//!      ▲                                         │           SET_FEATURES without the bit
//!      └──── GET_VRING_BASE, RESET_DEVICE ───────┘           PROTOCOL_FEATURES
//!
//!   a ring runs while it is started and enabled
//! ```
//!
//! The protocol lets a ring start at its first kick. We start it as soon as a kick is possible,
//! because the kick of a front end that reconnects may have gone to our predecessor.

use super::error::Violation;
use wire::virtio::ring::{AVAIL_RING_ALIGNMENT, DESC_TABLE_ALIGNMENT, USED_RING_ALIGNMENT};

/// Most rings of a device: messages that carry a file descriptor have eight bits for the index.
pub const RING_COUNT_MAX: usize = 256;

/// Addresses of the parts of a ring, in the front end's own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    pub descriptor: u64,
    pub used: u64,
    pub available: u64,
    /// Guest address of the used ring when writes to it are to be logged.
    pub log: Option<u64>,
}

impl RingAddresses {
    pub(super) fn check(&self) -> Result<(), Violation> {
        for (part, address, alignment) in [
            ("descriptor table", self.descriptor, DESC_TABLE_ALIGNMENT),
            ("available ring", self.available, AVAIL_RING_ALIGNMENT),
            ("used ring", self.used, USED_RING_ALIGNMENT),
        ] {
            if !address.is_multiple_of(alignment) {
                return Err(Violation::RingAlignment { part, address, alignment });
            }
        }
        Ok(())
    }
}

/// How the back end learns that there is something in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// A file descriptor becomes readable.
    Fd,
    /// Nothing tells it: it has to look.
    Poll,
}

/// The declared state of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Number of descriptors; zero until it is declared.
    pub num: u16,
    /// Next available index, as the front end set it or as it was last returned.
    pub base: u16,
    pub addresses: Option<RingAddresses>,
    pub kick: Option<Kick>,
    pub enabled: bool,
}

impl Ring {
    /// Everything needed to look at the ring is known.
    pub fn is_started(&self) -> bool {
        self.num > 0 && self.addresses.is_some() && self.kick.is_some()
    }

    /// Requests are to be taken from the ring.
    pub fn runs(&self) -> bool {
        self.enabled && self.is_started()
    }
}

/// A set of ring indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSet([u64; RING_COUNT_MAX / 64]);

impl RingSet {
    pub(super) fn running(rings: &[Ring]) -> Self {
        let mut set = Self::default();
        for (index, ring) in rings.iter().enumerate() {
            set.0[index / 64] |= u64::from(ring.runs()) << (index % 64);
        }
        set
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    pub fn contains(&self, index: u16) -> bool {
        let index = usize::from(index);
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        let set = *self;
        (0..RING_COUNT_MAX as u16).filter(move |index| set.contains(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: RingAddresses =
        RingAddresses { descriptor: 0x1000, used: 0x3000, available: 0x2000, log: None };

    #[test]
    fn a_ring_runs_when_it_is_complete_and_enabled() {
        let whole = Ring {
            num: 128,
            base: 0,
            addresses: Some(ADDRESSES),
            kick: Some(Kick::Fd),
            enabled: true,
        };
        assert!(whole.runs());
        for part in [
            Ring { num: 0, ..whole },
            Ring { addresses: None, ..whole },
            Ring { kick: None, ..whole },
        ] {
            assert!(!part.is_started() && !part.runs());
        }
        let disabled = Ring { enabled: false, ..whole };
        assert!(disabled.is_started() && !disabled.runs());
        assert!(Ring { kick: Some(Kick::Poll), ..whole }.runs());
    }

    #[test]
    fn misaligned_parts_are_named() {
        assert_eq!(ADDRESSES.check(), Ok(()));
        let bad = RingAddresses { used: 0x3002, ..ADDRESSES };
        let why = Violation::RingAlignment { part: "used ring", address: 0x3002, alignment: 4 };
        assert_eq!(bad.check(), Err(why));
    }

    #[test]
    fn sets_know_their_members_up_to_the_last_ring() {
        let on = Ring {
            num: 1,
            base: 0,
            addresses: Some(ADDRESSES),
            kick: Some(Kick::Poll),
            enabled: true,
        };
        let mut rings = [Ring::default(); RING_COUNT_MAX];
        for index in [0, 63, 64, 255] {
            rings[index] = on;
        }
        let set = RingSet::running(&rings);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert!(!set.contains(1) && !set.contains(256) && !set.is_empty());
        rings[63] = Ring::default();
        let fewer = RingSet::running(&rings);
        assert_eq!(set.minus(&fewer).iter().collect::<Vec<_>>(), [63]);
        assert!(fewer.minus(&set).is_empty());
    }
}

//! How well an LU is reached through which ports: what SCSI calls asymmetric logical unit access
//! and NVMe asymmetric namespace access.
//!
//! The states come from the node, which measures paths and knows the owner; a client can only wish.
//! A client sees the ports of its own target and no others.
//!
//! Not here: which command is allowed in which state; that is a column of each command's row.

use super::nexus::PortId;

/// How well an LU is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessState {
    #[default]
    Optimized,
    NonOptimized,
    Standby,
    Unavailable,
    Offline,
    Transitioning,
}

/// Some of the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessSet(u8);

impl AccessSet {
    /// The states in which reads and writes run.
    pub const ACTIVE: Self = Self::of(&[AccessState::Optimized, AccessState::NonOptimized]);

    pub const fn of(states: &[AccessState]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < states.len() {
            bits |= 1 << states[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    #[inline]
    pub const fn contains(self, state: AccessState) -> bool {
        self.0 & 1 << state as u8 != 0
    }
}

/// What brought a group into its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Altered {
    #[default]
    Never,
    /// A client asked for it.
    Explicit,
    /// The node found it better so.
    Implicit,
}

/// A port of ours, and the target that it belongs to: clients see the ports of their target only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub id: PortId,
    pub target: u32,
}

/// Ports through which the LU is reached equally well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: u16,
    pub state: AccessState,
    pub preferred: bool,
    pub altered: Altered,
    pub ports: Vec<Port>,
}

/// Every way to an LU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub groups: Vec<Group>,
}

impl Access {
    /// The group that a port is in.
    pub fn group_of(&self, port: PortId) -> Option<&Group> {
        self.groups.iter().find(|group| group.ports.iter().any(|it| it.id == port))
    }

    /// The state at a port. One that no group has is optimized: an LU without groups has one way.
    pub fn state_at(&self, port: PortId) -> AccessState {
        self.group_of(port).map_or(AccessState::Optimized, |group| group.state)
    }

    /// Whether there is such a port. An LU without groups has one way, whose port nobody has told.
    pub fn has_port(&self, port: PortId) -> bool {
        self.groups.is_empty() || self.group_of(port).is_some()
    }

    /// The ports of the target that this port belongs to, this one among them.
    pub fn siblings(&self, port: PortId) -> Vec<PortId> {
        let mut ports: Vec<PortId> = match self.target_of(port) {
            Some(target) => self.ports().filter(|it| it.target == target).map(|it| it.id).collect(),
            None => vec![port],
        };
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The groups as the client behind this port sees them: with the ports of its target, and
    /// without groups that have none of those.
    pub fn seen_from(&self, port: PortId) -> Vec<Group> {
        let Some(target) = self.target_of(port) else { return Vec::new() };
        let mine = |group: &Group| Group {
            ports: group.ports.iter().copied().filter(|it| it.target == target).collect(),
            ..group.clone()
        };
        self.groups.iter().map(mine).filter(|group| !group.ports.is_empty()).collect()
    }

    fn target_of(&self, port: PortId) -> Option<u32> {
        self.ports().find(|it| it.id == port).map(|it| it.target)
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.groups.iter().flat_map(|group| &group.ports)
    }
}

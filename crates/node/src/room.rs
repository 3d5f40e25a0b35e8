//! How much room a pool has left, in steps that an operator is told of.

use model::{PoolName, Severity, Size};

use crate::engine::Trouble;

/// Free space below which a pool is said to have little left, and very little.
pub const LITTLE_PERCENT: u64 = 20;
pub const VERY_LITTLE_PERCENT: u64 = 5;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    #[default]
    Enough,
    Little,
    VeryLittle,
    /// LUs have what they have, and get nothing more.
    None,
}

impl Room {
    pub fn of(size: Size, free: Size) -> Room {
        let is_below = |percent: u64| {
            u128::from(free.bytes()) * 100 < u128::from(size.bytes()) * u128::from(percent)
        };
        match free {
            Size::ZERO => Room::None,
            _ if is_below(VERY_LITTLE_PERCENT) => Room::VeryLittle,
            _ if is_below(LITTLE_PERCENT) => Room::Little,
            _ => Room::Enough,
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Room::Enough => Severity::Info,
            Room::Little | Room::VeryLittle => Severity::Warning,
            Room::None => Severity::Error,
        }
    }

    /// A word for programs.
    pub fn kind(self) -> &'static str {
        match self {
            Room::Enough => "pool-has-room",
            Room::Little | Room::VeryLittle => "pool-low",
            Room::None => "pool-full",
        }
    }

    /// What is said of a pool with so much.
    pub fn trouble(self, name: &PoolName, free: Size) -> Option<Trouble> {
        let message = match self {
            Room::Enough => return None,
            Room::Little => format!("pool '{name}' has less than {LITTLE_PERCENT} % free, {free}"),
            Room::VeryLittle => {
                format!("pool '{name}' has less than {VERY_LITTLE_PERCENT} % free, {free}")
            }
            Room::None => format!(
                "pool '{name}' is full: its LUs write what they have room for already, and every \
                 other write fails"
            ),
        };
        let next = "remove LUs that are not needed (viaduct lu rm), or move some to another pool";
        Some(Trouble { message, next: Some(next.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_in_steps() {
        let of = |free| Room::of(Size::gib(100), free);
        assert_eq!(of(Size::gib(20)), Room::Enough);
        assert_eq!(of(Size(Size::gib(20).bytes() - 1)), Room::Little);
        assert_eq!(of(Size::gib(5)), Room::Little);
        assert_eq!(of(Size::mib(16)), Room::VeryLittle);
        assert_eq!(of(Size::ZERO), Room::None);
        assert_eq!(Room::of(Size(u64::MAX), Size(u64::MAX)), Room::Enough);
        let name = "fast".parse().unwrap();
        assert_eq!(Room::Enough.trouble(&name, Size::gib(50)), None);
        let said = Room::Little.trouble(&name, Size::gib(12)).unwrap();
        assert_eq!(said.message, "pool 'fast' has less than 20 % free, 12GiB");
    }
}

//! How much room a pool has left, in steps that an operator is told of, and how much of it is
//! promised.

use model::pool::PoolAlert;
use model::{PoolName, PoolSettings, Severity, Size};

use crate::engine::Trouble;

/// What must be free beyond a step, in parts of a thousand of the pool, before it counts as left:
/// who writes and discards at the edge of one is not told again and again.
const HYSTERESIS_PERMILLE: u64 = 20;

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
    pub fn of(size: Size, free: Size, settings: PoolSettings) -> Room {
        Room::with(size, free, settings, 0)
    }

    /// The same of a pool that was said to have so much: it has more only when it is well above.
    pub fn after(self, size: Size, free: Size, settings: PoolSettings) -> Room {
        let now = Room::of(size, free, settings);
        if now >= self {
            return now;
        }
        // A full one has room as soon as there is any.
        Room::with(size, free, settings, HYSTERESIS_PERMILLE).min(self)
    }

    fn with(size: Size, free: Size, settings: PoolSettings, margin_permille: u64) -> Room {
        let used = u128::from(size.bytes().saturating_sub(free.bytes()));
        let is_above = |percent: u8| {
            let permille = (u64::from(percent) * 10).saturating_sub(margin_permille);
            percent > 0 && used * 1000 >= u128::from(size.bytes()) * u128::from(permille)
        };
        match free {
            Size::ZERO => Room::None,
            _ if is_above(settings.critical_percent) => Room::VeryLittle,
            _ if is_above(settings.warn_percent) => Room::Little,
            _ => Room::Enough,
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Room::Enough => Severity::Info,
            Room::Little => Severity::Warning,
            Room::VeryLittle | Room::None => Severity::Error,
        }
    }

    /// A word for programs.
    pub fn kind(self) -> &'static str {
        match self {
            Room::Enough => "pool-has-room",
            Room::Little => "pool-low",
            Room::VeryLittle => "pool-critical",
            Room::None => "pool-full",
        }
    }

    pub fn alert(self) -> Option<PoolAlert> {
        match self {
            Room::Enough => None,
            Room::Little => Some(PoolAlert::Low),
            Room::VeryLittle => Some(PoolAlert::Critical),
            Room::None => Some(PoolAlert::Full),
        }
    }

    /// What is said of a pool with so much.
    pub fn trouble(self, name: &PoolName, free: Size, settings: PoolSettings) -> Option<Trouble> {
        let used =
            |percent| format!("pool '{name}' is used to {percent} % or more, {free} are free");
        let message = match self {
            Room::Enough => return None,
            Room::Little => used(settings.warn_percent),
            Room::VeryLittle => used(settings.critical_percent),
            Room::None => format!(
                "pool '{name}' is full: its LUs write what they have room for already, and every \
                 other write fails"
            ),
        };
        let next = "remove LUs or snapshots that are not needed (viaduct lu rm), or move some to \
                    another pool";
        Some(Trouble { message, next: Some(next.to_owned()) })
    }
}

/// What is said of a pool of which too much is promised.
pub fn overcommitted(
    name: &PoolName,
    (promised, size): (Size, Size),
    settings: PoolSettings,
) -> Option<Trouble> {
    let most = u128::from(settings.overcommit_percent);
    if most == 0 || u128::from(promised.bytes()) * 100 <= u128::from(size.bytes()) * most {
        return None;
    }
    let (times, hundredths) = (most / 100, most % 100);
    let message = format!(
        "LUs of pool '{name}' are promised {promised}, more than {times}.{hundredths:02} times its \
         size, {size}"
    );
    let next =
        format!("remove or shrink LUs, or allow more: viaduct pool set {name} --overcommit RATIO");
    Some(Trouble { message, next: Some(next) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PoolSettings {
        PoolSettings::default()
    }

    fn of(free: Size) -> Room {
        Room::of(Size::gib(100), free, settings())
    }

    #[test]
    fn room_is_told_in_steps() {
        assert_eq!(of(Size(Size::gib(15).bytes() + 1)), Room::Enough);
        assert_eq!(of(Size::gib(15)), Room::Little);
        assert_eq!(of(Size::gib(5)), Room::VeryLittle);
        assert_eq!(of(Size::mib(16)), Room::VeryLittle);
        assert_eq!(of(Size::ZERO), Room::None);
        assert_eq!(Room::of(Size(u64::MAX), Size(u64::MAX), settings()), Room::Enough);
        let name = "fast".parse().unwrap();
        assert_eq!(Room::Enough.trouble(&name, Size::gib(50), settings()), None);
        let said = Room::Little.trouble(&name, Size::gib(12), settings()).unwrap();
        assert_eq!(said.message, "pool 'fast' is used to 85 % or more, 12GiB are free");
        let quiet = PoolSettings { warn_percent: 0, critical_percent: 0, ..settings() };
        assert_eq!(Room::of(Size::gib(100), Size::gib(1), quiet), Room::Enough);
        assert_eq!(Room::of(Size::gib(100), Size::ZERO, quiet), Room::None);
    }

    #[test]
    fn a_step_is_left_only_well_above_it() {
        let after = |before: Room, gib| before.after(Size::gib(100), Size::gib(gib), settings());
        assert_eq!(after(Room::Enough, 15), Room::Little);
        assert_eq!(after(Room::Little, 16), Room::Little);
        assert_eq!(after(Room::Little, 18), Room::Enough);
        assert_eq!(after(Room::VeryLittle, 6), Room::VeryLittle);
        assert_eq!(after(Room::VeryLittle, 8), Room::Little);
        assert_eq!(after(Room::VeryLittle, 40), Room::Enough);
        assert_eq!(after(Room::None, 1), Room::VeryLittle);
        assert_eq!(after(Room::Little, 2), Room::VeryLittle);
    }

    #[test]
    fn what_is_promised_is_told_above_its_threshold_only() {
        let name = "fast".parse().unwrap();
        let says = |promised, overcommit_percent| {
            let settings = PoolSettings { overcommit_percent, ..settings() };
            overcommitted(&name, (Size::gib(promised), Size::gib(100)), settings)
        };
        assert_eq!((says(1000, 0), says(250, 250)), (None, None));
        assert_eq!(
            says(251, 250).unwrap().message,
            "LUs of pool 'fast' are promised 251GiB, more than 2.50 times its size, 100GiB"
        );
    }
}

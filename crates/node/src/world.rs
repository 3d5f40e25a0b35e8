//! What the control plane needs of the machine: clock, identities, threads and small files. One
//! door, so that it can be replaced by a simulated one and so that nothing else here touches the
//! machine.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

pub use rt::os::machine::{
    JoinHandle, TcpListener, UnixListener, access_of, bind_tcp, bind_unix, canonical, free_bytes,
    give_owner, link_target, make_directory, names_in, new_name, own_uid, process_id, read_text,
    remove_directory, remove_file, rename, replace_file, set_mode, sleep,
};
pub use rt::os::thread::spawn;

/// Clock and randomness of the control plane.
pub trait World: Send + Sync {
    /// Time since some fixed point; it never goes back.
    fn now(&self) -> Duration;
    fn wall(&self) -> Timestamp;
    fn uuid(&self) -> Uuid;
}

/// The real machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl World for Machine {
    fn now(&self) -> Duration {
        Duration::from_nanos(rt::os::clock().as_nanos())
    }

    fn wall(&self) -> Timestamp {
        wall_clock()
    }

    fn uuid(&self) -> Uuid {
        let bits = u128::from(rt::os::random()) << 64 | u128::from(rt::os::random());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

/// The wall clock, for what people read.
pub fn wall_clock() -> Timestamp {
    Timestamp::from_nanosecond(rt::os::machine::wall_clock_nanos()).unwrap_or_default()
}

/// Another one each time that the machine starts; empty where the kernel does not say, so that
/// nothing looks like a loss of power there.
pub fn boot_id() -> String {
    let text = read_text(Path::new("/proc/sys/kernel/random/boot_id"));
    text.ok().flatten().map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_random_and_well_formed() {
        let (one, two) = (Machine.uuid(), Machine.uuid());
        assert_ne!(one, two);
        assert_eq!(one.get_version_num(), 4);
    }
}

//! What systemd is told: ready, stopping, still alive. The protocol is one datagram of lines to the
//! socket that `NOTIFY_SOCKET` names; without one there is nobody to tell.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Whoever started us, if it wants to know.
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    pub fn from_environment() -> Notifier {
        let address = std::env::var_os("NOTIFY_SOCKET");
        let address = address.and_then(|name| address_of(name.as_bytes()));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let text = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id());
        Notifier { socket, watchdog }
    }

    /// How often a sign of life is expected at the latest.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, lines: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(lines.as_bytes(), address) {
            tracing::warn!(%error, "systemd could not be told");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn address_of(name: &[u8]) -> Option<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        _ => None,
    }
}

fn watchdog(microseconds: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    // Meant for another process when there is a pid that is not ours.
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let microseconds: u64 = microseconds?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let address = address_of(path.as_os_str().as_bytes()).unwrap();
        let socket = Some((UnixDatagram::unbound().unwrap(), address));
        let notifier = Notifier { socket, watchdog: None };
        notifier.ready("3 LUs");
        let mut bytes = [0; 100];
        let count = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"READY=1\nSTATUS=3 LUs");
    }

    #[test]
    fn names_and_numbers_of_the_environment() {
        assert!(address_of(b"@viaduct").unwrap().as_abstract_name().is_some());
        assert!(address_of(b"relative").is_none());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(some("2000000"), None, 7), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(some("2000000"), some("7"), 7), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(some("2000000"), some("8"), 7), None);
        assert_eq!(watchdog(some("0"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }
}

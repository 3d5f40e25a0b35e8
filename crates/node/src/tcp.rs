//! TCP addresses to listen on: bound, or an error that says who has them and which option to
//! change.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::ApiError;

use crate::world::{self, TcpListener};

/// How long a port may take to become free that no process has any more: the kernel lets go of
/// what a killed process had in its ring only after the process is gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Binds an address that the option `switch` of `up` gave.
pub fn bind(address: SocketAddr, switch: &str) -> Result<TcpListener, ApiError> {
    let mut waited = Duration::ZERO;
    loop {
        let error = match world::bind_tcp(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let is_left_over =
            error.kind() == io::ErrorKind::AddrInUse && holder_of(address.port()).is_none();
        if !is_left_over || waited >= RELEASE_LIMIT {
            return Err(refused(address, &error, switch));
        }
        world::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}

/// Whether all addresses of an option can be bound, for one who binds them a moment later: a
/// refusal at the start is better than one from the data plane.
pub fn check(addresses: &[SocketAddr], switch: &str) -> Result<(), ApiError> {
    let bound: Result<Vec<TcpListener>, ApiError> =
        addresses.iter().map(|address| bind(*address, switch)).collect();
    bound.map(drop)
}

/// Why an address that the option `switch` gave could not be bound, and what to do.
pub fn refused(address: SocketAddr, error: &io::Error, switch: &str) -> ApiError {
    let port = address.port();
    if error.kind() != io::ErrorKind::AddrInUse {
        return ApiError::failed(format!("cannot listen on {address}: {error}")).then(format!(
            "viaduct up {switch} ADDR:PORT takes another address, {switch} off none"
        ));
    }
    let next = format!("viaduct up {switch} ADDR:PORT takes another one, {switch} off none");
    match holder_of(port) {
        Some(holder) => ApiError::conflict(format!("port {port} is in use by {holder}")).then(next),
        // Another user's process, or the kernel's own target.
        None => ApiError::conflict(format!("port {port} is in use, by whom cannot be seen"))
            .then(format!("{next}; as root, ss -ltnp 'sport = :{port}' shows who has it")),
    }
}

/// A process that has a port.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// Who listens on a TCP port, as far as /proc lets us see.
fn holder_of(port: u16) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| world::read_text(Path::new(table)).ok().flatten())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let pids = world::names_in(Path::new("/proc")).ok()?;
    let pids = pids.iter().filter_map(|name| name.parse::<u32>().ok());
    pids.into_iter().find(|pid| holds(*pid, &inodes)).map(|pid| {
        let name = world::read_text(Path::new(&format!("/proc/{pid}/comm"))).ok().flatten();
        Holder { pid, name: name.unwrap_or_default().trim().to_owned() }
    })
}

/// Inodes of sockets that listen on a port, from a table in the form of /proc/net/tcp.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!("{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
        let (_, port) = local.rsplit_once(':')?;
        (port == wanted && state == LISTEN).then(|| inode.to_owned())
    };
    table.lines().filter_map(inode).collect()
}

fn holds(pid: u32, inodes: &[String]) -> bool {
    let directory = PathBuf::from(format!("/proc/{pid}/fd"));
    let Ok(names) = world::names_in(&directory) else { return false };
    names.iter().any(|name| {
        let target = world::link_target(&directory.join(name)).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|other| other == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "--http").unwrap_err();
        let holder = format!("port {} is in use by process {}", address.port(), std::process::id());
        assert!(error.message.starts_with(&holder), "{error}");
        drop(taken);
        assert!(bind(address, "--http").is_ok());
    }

    #[test]
    fn addresses_are_free_or_the_switch_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = check(&[address], "--iscsi").unwrap_err();
        assert_eq!(error.kind, model::ErrorKind::Conflict);
        let next = error.next.unwrap();
        assert!(next.starts_with("viaduct up --iscsi ADDR:PORT"), "{next}");
        drop(taken);
        check(&[address], "--iscsi").unwrap();
        // They exclude each other too.
        assert!(check(&[address, address], "--iscsi").is_err());
        let elsewhere = "192.0.2.1:3260".parse().unwrap();
        let error = check(&[elsewhere], "--iscsi").unwrap_err();
        assert!(error.message.starts_with("cannot listen on 192.0.2.1:3260"), "{error}");
    }

    #[test]
    fn who_is_not_found_can_be_looked_for() {
        let error = std::io::ErrorKind::AddrInUse.into();
        // Nobody has port 0: it asks for any.
        let error = refused("127.0.0.1:0".parse().unwrap(), &error, "--iscsi");
        assert!(error.message.ends_with("is in use, by whom cannot be seen"), "{error}");
        assert!(error.next.unwrap().contains("ss -ltnp 'sport = :0'"));
    }

    #[test]
    fn the_table_of_the_kernel_is_read_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1EC6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             1: 0100007F:1EC6 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
             2: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening_inodes(table, 7878), ["4711"]);
    }
}

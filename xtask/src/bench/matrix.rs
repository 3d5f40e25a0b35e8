//! Every store, an LU of a pool, and memory over iSCSI, in both directions at two depths: what
//! counted figures are taken of.

use crate::report::results_dir;
use crate::serve::{Front, Kind};
use crate::servers::{LoadSpec, ServerSpec};
use crate::{Result, file};

const DEVICE_BYTES: u64 = 64 << 20;
/// The file that is a pool with a device in it.
const POOL_BYTES: u64 = 256 << 20;
const CASES: [(bool, usize); 4] = [(false, 1), (false, 32), (true, 1), (true, 32)];

/// One device with one queue, and pages of it.
pub struct Case {
    pub store: &'static str,
    pub direction: &'static str,
    pub depth: usize,
    pub server: ServerSpec,
    pub load: LoadSpec,
}

/// Measures each case, with server and client on these CPUs.
pub fn each<T>(
    server_cpu: usize,
    client_cpu: usize,
    mut measure: impl FnMut(Case) -> Result<T>,
) -> Result<Vec<T>> {
    let image = file::Filled::make(&results_dir()?, DEVICE_BYTES)?;
    let file = Kind::File(image.path().into());
    let dir = tempfile::Builder::new().prefix("pool").tempdir_in(results_dir()?)?;
    let disk = file::Filled::make(dir.path(), POOL_BYTES)?;
    let pool = Kind::Pool(disk.path().into());
    let stores = [
        ("null", Front::VhostBlk, Kind::Null),
        ("memory", Front::VhostBlk, Kind::Memory),
        ("file", Front::VhostBlk, file),
        ("pool", Front::VhostBlk, pool),
        ("memory, iSCSI", Front::Iscsi, Kind::Memory),
    ];
    let mut figures = Vec::new();
    for (name, front, store) in stores {
        for (write, depth) in CASES {
            let load = LoadSpec {
                write,
                block: 4096,
                depth,
                queues: 1,
                fill: store == Kind::Memory,
                cpus: vec![client_cpu],
                ..LoadSpec::default()
            };
            let server = ServerSpec {
                front,
                store: store.clone(),
                size: DEVICE_BYTES,
                devices: 1,
                queues: 1,
                cpus: vec![server_cpu],
                spin: None,
            };
            let direction = if write { "write" } else { "read" };
            figures.push(measure(Case { store: name, direction, depth, server, load })?);
        }
    }
    Ok(figures)
}

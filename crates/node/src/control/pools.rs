//! Changes of pools, on their way into the configuration.

use model::{ApiError, Config};

use super::{Control, PoolChange, Prepared};
use crate::state::{pool_import, pool_pvs, pools};

impl Control {
    pub(super) fn prepare_pool(
        &self,
        config: &Config,
        change: PoolChange,
    ) -> Result<Prepared, ApiError> {
        match change {
            PoolChange::Create(request, found) => {
                let uuid = || self.parts.world.uuid();
                let (next, marks) = pools::pool_create(config, &request, &found, uuid)?;
                let message = format!("pool '{}' was made", request.name);
                let name = request.name;
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-created", message) })
            }
            PoolChange::Set(name, change) => {
                let next = pools::pool_set(config, &name, change)?;
                let message = format!("pool '{name}' has other settings");
                Ok(Prepared::pool(next, name, "pool-changed", message))
            }
            PoolChange::Remove(name) => {
                let (next, marks) = pools::pool_remove(config, &name)?;
                let message = format!("pool '{name}' was removed");
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-removed", message) })
            }
            PoolChange::AddPvs(name, request, found, load) => {
                let uuid = || self.parts.world.uuid();
                let found = (&found[..], load);
                let (next, marks) = pool_pvs::add(config, &name, &request, found, uuid)?;
                let message = match request.replaces {
                    Some(old) => format!("disk {old} of pool '{name}' is being replaced"),
                    None => format!("disks are being added to pool '{name}'"),
                };
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-disk-added", message) })
            }
            PoolChange::RemovePv(name, which, wish) => {
                let next = pool_pvs::remove(config, &name, &which, wish)?;
                let (kind, message) = match wish {
                    pool_pvs::Wish::Leave(_) => {
                        ("pool-disk-leaves", format!("disk {which} is leaving pool '{name}'"))
                    }
                    pool_pvs::Wish::Stay => {
                        ("pool-disk-stays", format!("disk {which} stays in pool '{name}'"))
                    }
                };
                Ok(Prepared::pool(next, name, kind, message))
            }
            PoolChange::Import(takeover) => self.prepare_takeover(config, &takeover),
        }
    }

    fn prepare_takeover(
        &self,
        config: &Config,
        takeover: &pool_import::Takeover,
    ) -> Result<Prepared, ApiError> {
        let uuid = || self.parts.world.uuid();
        let (next, marks) = pool_import::import(config, takeover, uuid)?;
        let pool = next.pools.iter().find(|pool| pool.uuid == takeover.seen.uuid);
        let name = pool.map(|pool| pool.name.clone());
        let name = name.ok_or_else(|| ApiError::failed("nothing was imported"))?;
        let lus = next.lus_in(&name).count();
        let message = format!("pool '{name}' was imported with {lus} LUs");
        Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-imported", message) })
    }
}

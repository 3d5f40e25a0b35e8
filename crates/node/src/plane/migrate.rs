//! LUs that enter a pool while clients use them, over what they were in. The order of the steps,
//! and what a crash between them leaves: `cluster::plan`.

use std::sync::Arc;

use cluster::DeviceSpec;
use model::{ApiError, Backing};
use rt::Core;
use store::Store;
use uuid::Uuid;

use super::pools::{PoolStore, Source, Wanted};
use super::{Lu, Plane, lus, not_open, wanted};
use crate::pool_disk::PoolDisk;

impl Plane {
    /// What a device of a pool is brought from, by its name.
    pub(super) fn source(&self, spec: &DeviceSpec) -> Option<Source> {
        let migration = spec.migration.as_ref()?;
        let from = migration.from.as_ref().unwrap_or(&spec.backing);
        let name = match from {
            Backing::Adopted { path } => path.clone(),
            _ => lus::path(&self.0.context.lus, spec.uuid).to_string_lossy().into_owned(),
        };
        let (size, rate) = (migration.size, migration.rate);
        Some(Source { name, size, rate, is_new: migration.from.is_none(), disk: None })
    }

    /// Opens an LU of a pool; over what it was in, if not all of it is brought.
    pub(super) async fn open_pooled(
        &self,
        core: &Core,
        pool: Uuid,
        spec: &DeviceSpec,
    ) -> Result<Arc<PoolStore>, ApiError> {
        let (pools, cores) = (&self.0.pools, &self.0.cores);
        let wanted = wanted(pool, spec);
        let (Some(before), Some(source)) = (spec.before(), self.source(spec)) else {
            return pools.open_lu(cores, wanted).await;
        };
        match lus::open(&self.0.context, core, &before).await {
            Ok(store) => {
                let source = Some(source.at(store));
                pools.open_lu(cores, Wanted { source, ..wanted }).await
            }
            // Perhaps nothing was needed of it any more when the node ended.
            Err(error) => {
                let opened = pools.open_lu(cores, Wanted { source: Some(source), ..wanted }).await;
                opened.map_err(|_| error)
            }
        }
    }

    /// An open device is served from its pool from now on.
    pub(super) async fn enter_pool(&self, core: &Core, spec: DeviceSpec) -> Result<(), ApiError> {
        let uuid = spec.uuid;
        let lu = self.lu(uuid).ok_or_else(|| not_open(uuid))?;
        let (Some(pool), None) = (spec.pool, lu.spec.pool) else { return Ok(()) };
        let cannot = |why: String| {
            ApiError::failed(format!("LU {} cannot be served from its pool: {why}", spec.name))
        };
        let (Some(swap), Some(source)) = (lu.swap.clone(), self.source(&spec)) else {
            return Err(cannot("it is on its way from nowhere".to_owned()));
        };
        let (mut wanted, below) = (wanted(pool, &spec), swap.now());
        // It is as large as it was; another size comes later.
        wanted.size = model::Size(below.size());
        wanted.source = Some(source.at(below));
        let pooled = self.0.pools.open_lu(&self.0.cores, wanted).await?;
        // Most of it now, so that nobody waits for it when it counts.
        let exchanged = match self.flush(core, &lu).await {
            Ok(()) => {
                let exchanged = swap.exchange(core, pooled.clone()).await;
                exchanged.map_err(|error| cannot(error.to_string()))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = exchanged {
            self.0.pools.close_lu(pool, uuid).await;
            return Err(error);
        }
        let size = lu.spec.size;
        let next = Lu { spec: DeviceSpec { size, ..spec }, pooled: Some(pooled), ..(*lu).clone() };
        self.open().devices.insert(uuid, Arc::new(next));
        Ok(())
    }

    /// Brings an LU into its pool.
    pub(super) async fn bring(&self, core: &Core, uuid: Uuid) -> Result<(), ApiError> {
        let lu = self.lu(uuid).ok_or_else(|| not_open(uuid))?;
        match &lu.pooled {
            Some(pooled) => pooled.bring(&self.0.context.report, core).await,
            None => Err(not_open(uuid)),
        }
    }
}

impl Source {
    fn at(self, store: Arc<dyn Store>) -> Source {
        let disk = PoolDisk { store, name: self.name.clone() };
        Source { disk: Some(Arc::new(disk)), ..self }
    }
}

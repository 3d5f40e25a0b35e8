//! Pools that are not open because only failure groups are here that lack something: what is left
//! of them, and how they are opened with that.
//!
//! That a pool is to be forced is wished in `kv` first, in the change of the configuration that
//! imports it or by itself; whoever opens it writes the labels. The other way round a node that was
//! killed in between would leave disks that anybody imports as if they lacked nothing, or a pool
//! that was forced without a word. The wish is forgotten when it was told what has become of it.

use std::rc::Rc;

use model::{ApiError, Pool};
use rt::Core;
use volume::pool::home::{self, Found, Registry, Unforced};

use super::copies::Copies;
use super::{Pools, disks, epochs, failed, find};
use crate::engine::{Context, ForceDone, Remains};
use crate::records::{ForceWish, Record};
use crate::state::pool_force::pool_is_open;

impl Pools {
    pub(in crate::plane) async fn remains(
        &self,
        context: &Context,
        core: &Core,
        spec: &Pool,
    ) -> Result<Remains, ApiError> {
        let found = self.behind(context, core, spec).await?;
        let is_here = |uuid: &[u8; 16]| found.labels().any(|label| label.pv == *uuid);
        let missing = disks::certain(spec).filter(|pv| !is_here(pv.uuid.as_bytes()));
        let missing = missing.map(|pv| disks::path_of(context, pv).display().to_string());
        let missing = missing.collect();
        let registry: Rc<dyn Registry> = Copies::read(context, core, spec).await?;
        let groups = found.groups(Some(registry)).await;
        Ok(Remains { missing, groups: groups.map_err(|it| failed(spec, "is unreadable", it))? })
    }

    /// What has become of the wish that an open pool be forced, if there was one.
    pub(in crate::plane) async fn force_done(
        &self,
        context: &Context,
        core: &Core,
        spec: &Pool,
    ) -> Result<Option<ForceDone>, ApiError> {
        let Some(ForceWish { group, .. }) = wish(context, core, spec).await? else {
            return Ok(None);
        };
        let open = self.pool(spec.uuid)?;
        let is_forced = open.at_home(async |home: Rc<home::Pool>| Ok(home.waits_for_others()));
        Ok(Some(ForceDone { group, is_forced: is_forced.await? }))
    }

    /// Its disks, of which others may have more. Refused where there is nothing to be forced.
    async fn behind(&self, context: &Context, core: &Core, spec: &Pool) -> Result<Found, ApiError> {
        let name = &spec.name;
        if self.open_pools().contains_key(&spec.uuid) {
            return Err(pool_is_open(name));
        }
        let (found, _) = find(context, core, spec).await?;
        match found.is_behind() {
            true => Ok(found),
            false => Err(ApiError::conflict(format!(
                "pool '{name}' lacks nothing that other disks have"
            ))
            .then(format!("viaduct pool show {name} says why it is not open"))),
        }
    }
}

/// Whether it is wished that the pool be forced.
pub(super) async fn wish(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<Option<ForceWish>, ApiError> {
    let (records, of) = (context.records.clone(), Record::Force(spec.uuid));
    let read = core.blocking(move || records.read(of)).await;
    let value = read.unwrap_or_else(|| Err(ApiError::failed("the work was given up")))?;
    let unknown = || {
        let message = format!("what pool '{}' is to be forced with cannot be read", spec.name);
        ApiError::failed(message).then("use the release of viaduct that wrote it, or a later one")
    };
    value.map(|value| ForceWish::decode(&value).ok_or_else(unknown)).transpose()
}

/// From now on the pool can be opened, durably. Nothing else is written.
pub(super) async fn force(
    context: &Context,
    core: &Core,
    spec: &Pool,
    (found, ForceWish { group, .. }): (Found, ForceWish),
) -> Result<(), ApiError> {
    let (name, called) = (&spec.name, spec.group_numbered(group));
    if !found.whole_groups().contains(&group) {
        let message = format!(
            "pool '{name}' is to go on with {called}, of which not all disks are here any more"
        );
        return Err(ApiError::failed(message)
            .then(format!("bring them back; or viaduct pool force {name} with another group")));
    }
    // Known before it is written.
    let epoch = epochs::force(context, core, spec, &found).await?;
    found.force(group, epoch).await.map_err(|error| match error {
        Unforced::Pool(error) => failed(spec, "cannot be forced", error),
        error => ApiError::failed(format!("pool '{name}' cannot be forced: {error}")),
    })
}

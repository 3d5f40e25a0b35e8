//! Pools that are not open because only failure groups are here that lack something: what is left
//! of them, and how they are opened with that.

use std::rc::Rc;

use model::{ApiError, Pool, PvGroup};
use rt::Core;
use volume::pool::home::{Found, Registry, Unforced};

use super::copies::Copies;
use super::{Pools, disks, epochs, failed, find};
use crate::engine::{Context, Remains};

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

    pub(in crate::plane) async fn force_pool(
        &self,
        context: &Context,
        core: &Core,
        spec: &Pool,
        group: PvGroup,
    ) -> Result<(), ApiError> {
        let found = self.behind(context, core, spec).await?;
        let name = &spec.name;
        if !found.whole_groups().contains(&group.number) {
            let message = format!("not all disks of {group} of pool '{name}' are here");
            return Err(ApiError::conflict(message)
                .then(format!("viaduct pool force {name} lists the groups that are")));
        }
        // Known before it is written.
        let epoch = epochs::force(context, core, spec, &found).await?;
        found.force(group.number, epoch).await.map_err(|error| match error {
            Unforced::Pool(error) => failed(spec, "cannot be forced", error),
            error => ApiError::conflict(format!("pool '{name}': {error}")),
        })
    }

    /// Its disks, of which others may have more. Refused where there is nothing to be forced.
    async fn behind(&self, context: &Context, core: &Core, spec: &Pool) -> Result<Found, ApiError> {
        let name = &spec.name;
        if self.open_pools().contains_key(&spec.uuid) {
            return Err(ApiError::conflict(format!("pool '{name}' is open")).then(
                "viaduct lu force NAME is for an LU of it of which no copy with everything is here",
            ));
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

//! LUs of which no copy with everything is to be had any more.

use std::rc::Rc;

use model::{ApiError, PvGroup};
use uuid::Uuid;
use volume::pool::home::{self, CopyAbout, Unforced};

use super::{Pools, next};

impl Pools {
    pub(in crate::plane) async fn copies(
        &self,
        pool: Uuid,
        lu: Uuid,
    ) -> Result<Vec<CopyAbout>, ApiError> {
        let open = self.pool(pool)?;
        let copies = open.at_home(async move |home: Rc<home::Pool>| {
            let copies = home.copies(lu.into_bytes());
            copies.map_err(|error| ApiError::failed(format!("LU {lu}: {error}")))
        });
        copies.await
    }

    pub(in crate::plane) async fn force(
        &self,
        pool: Uuid,
        lu: Uuid,
        group: PvGroup,
    ) -> Result<(), ApiError> {
        let open = self.pool(pool)?;
        let spec = open.spec.clone();
        let forced = open.at_home(async move |home: Rc<home::Pool>| {
            let forced = home.force(lu.into_bytes(), group.number).await;
            forced.map_err(|error| refused(&spec, &group, &error))
        });
        forced.await
    }
}

fn refused(spec: &model::Pool, group: &PvGroup, error: &Unforced) -> ApiError {
    let name = &spec.name;
    match error {
        Unforced::Current => ApiError::conflict("a copy of it that has everything is here")
            .then("it is opened with that one by itself; viaduct lu ls shows its state"),
        Unforced::NoCopy(_) => {
            ApiError::conflict(format!("{group} of pool '{name}' has no copy of it"))
        }
        Unforced::NotHere(_) => ApiError::conflict(format!(
            "disks of {group} of pool '{name}' are missing, which may have parts of it"
        ))
        .then(format!("bring them back; viaduct pool show {name} lists them")),
        Unforced::Unfit { why, .. } => ApiError::conflict(format!(
            "what {group} of pool '{name}' has of it does not fit together: {why}"
        ))
        .then("bring the disks with another copy back; this one is left as it is"),
        Unforced::Pool(error) => {
            ApiError::failed(format!("pool '{name}': {error}")).then(next(spec, error))
        }
    }
}

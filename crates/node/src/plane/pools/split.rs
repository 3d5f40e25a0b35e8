//! Failure groups that leave a pool as a whole, while its LUs are used.
//!
//! | step | what is durable behind it | a crash behind it |
//! |---|---|---|
//! | the configuration says *splitting* of its disks | that it is to leave | it leaves |
//! | `split` | its labels say that it has left, then those of the others | it is out already |
//! | nobody is on the way to its disks | | the process with its requests has ended |
//! | the configuration names the disks no more | what is left: their labels | they are taken off |
//! | `forget_pv` of each | | |

use std::rc::Rc;

use model::{ApiError, PoolPv};
use uuid::Uuid;
use volume::pool::home;

use super::{Pools, failed};

impl Pools {
    pub(in crate::plane) async fn split_group(
        &self,
        pool: Uuid,
        pvs: Vec<PoolPv>,
    ) -> Result<(), ApiError> {
        let open = self.pool(pool)?;
        let Some(group) = pvs.first().map(|pv| pv.group.number) else { return Ok(()) };
        let spec = open.spec.clone();
        open.at_home(async move |home: Rc<home::Pool>| {
            let split = home.split(group, pvs.len()).await;
            split.map_err(|error| failed(&spec, "cannot let a failure group go", error))
        })
        .await?;
        let lus: Vec<_> = open.lus().values().cloned().collect();
        for lu in lus {
            // One that was closed meanwhile has waited for that too.
            let _ = lu.lu().quiet().await;
        }
        Ok(())
    }
}

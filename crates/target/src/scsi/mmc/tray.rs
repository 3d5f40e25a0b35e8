//! START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL. A locked tray does not open; it closes, because
//! a lock may come while it is out. A persistent lock only takes the button away: the drive says
//! that somebody pressed it, and the host ejects.

use wire::scsi::cdb::{Plain6, start_stop};
use wire::scsi::mmc::{PERSISTENT_LOCK, PREVENT};

use super::super::context::Context;
use super::super::row::Boxed;
use crate::lun::{Change, MediumChange};

pub fn start_stop<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let flags = context.cdb::<Plain6>().length;
        // There is neither power to save nor a motor to stop.
        let moves = flags & start_stop::LOEJ != 0 && flags & start_stop::POWER_CONDITION == 0;
        let load = flags & start_stop::START != 0;
        if !moves || load != context.unit.view().medium.open {
            return Ok(Vec::new());
        }
        let by = Some(context.nexus.id().clone());
        let change = match load {
            true => MediumChange::Load { by },
            false => MediumChange::Eject { by, force: false },
        };
        context.change(Change::Medium(change)).await?;
        Ok(Vec::new())
    })
}

pub fn prevent<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let flags = context.cdb::<Plain6>().length;
        let (nexus, prevent) = (context.nexus.id().clone(), flags & PREVENT != 0);
        let change = match flags & PERSISTENT_LOCK {
            0 => Change::Prevent { nexus, prevent },
            _ => Change::PreventPersistently { nexus, prevent },
        };
        context.change(change).await?;
        Ok(Vec::new())
    })
}

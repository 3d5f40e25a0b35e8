//! START STOP UNIT (SBC-3 5.25): the tray of a removable medium. A unit that several clients share
//! is not stopped because one of them asks: its cache is written and it stays ready. Power
//! conditions are taken and mean nothing, because there is no power to save.

use block::Request;
use wire::scsi::AdditionalSense;
use wire::scsi::cdb::{Plain6, start_stop};

use super::super::answer::Answer;
use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use crate::lun::{Change, MediumChange};

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let flags = context.cdb::<Plain6>().length;
        if flags & start_stop::POWER_CONDITION != 0 {
            return Ok(Vec::new());
        }
        let start = flags & start_stop::START != 0;
        if !start && flags & start_stop::NO_FLUSH == 0 {
            flush(context).await?;
        }
        if flags & start_stop::LOEJ != 0 {
            move_tray(context, start).await?;
        }
        Ok(Vec::new())
    })
}

async fn flush(context: &Context<'_>) -> Result<(), Answer> {
    if context.unit.view().medium.is_loaded() && !context.unit.geometry().read_only {
        context.io(Request::flush()).await?;
    }
    Ok(())
}

async fn move_tray(context: &Context<'_>, load: bool) -> Result<(), Answer> {
    if !context.unit.settings.removable {
        return Err(Sense::field_bit(4, 1).into());
    }
    // SBC-3 5.14: whoever locks the medium locks the tray in either position.
    if !context.unit.view().preventing.is_empty() {
        return Err(Sense::illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED).into());
    }
    let by = Some(context.nexus.id().clone());
    let change = match load {
        true => MediumChange::Load { by },
        false => MediumChange::Eject { by, force: false },
    };
    context.change(Change::Medium(change)).await?;
    Ok(())
}

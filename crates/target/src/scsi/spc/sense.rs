//! REQUEST SENSE (SPC-4 6.39): what an attention, an operation that runs or a missing medium has to
//! say, as data; always GOOD.

use wire::scsi::AdditionalSense;
use wire::scsi::cdb::{Plain6, flag};

use super::super::context::Context;
use super::super::obstacle;
use super::super::parsed::Parsed;
use super::super::sense::Sense;

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Plain6 = context.cdb();
    let unit = context.unit;
    let view = unit.view();
    let sense = if let Some(what) = unit.member.attentions().take() {
        obstacle::sense_of(what)
    } else if let Some(operation) = &view.operation {
        obstacle::sense_of_operation(operation)
    } else {
        obstacle::medium(&view).err().unwrap_or(Sense::NONE)
    };
    Ok(sense.in_format(cdb.flags & flag::DESC != 0).to_vec())
}

pub fn nowhere(parsed: &Parsed, well_known: bool) -> Vec<u8> {
    let cdb: Plain6 = parsed.cdb();
    let sense = match well_known {
        true => Sense::NONE,
        false => Sense::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED),
    };
    sense.in_format(cdb.flags & flag::DESC != 0).to_vec()
}

//! PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.14).

use wire::scsi::cdb::Plain6;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use crate::lun::Change;

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let cdb: Plain6 = context.cdb();
        let prevent = match cdb.length {
            0 => false,
            1 => true,
            // Once for medium changers, obsolete since.
            _ => return Err(Sense::field(4).into()),
        };
        context.change(Change::Prevent { nexus: context.nexus.id().clone(), prevent }).await?;
        Ok(Vec::new())
    })
}

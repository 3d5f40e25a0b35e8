//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 6.42, 6.27): the default self-test, which
//! asks how the device is, and the one page there is, the list of pages.

use block::Health;
use wire::scsi::cdb::{Inquiry, flag};
use wire::scsi::{AdditionalSense, SenseKey};

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;

const SUPPORTED_PAGES: u8 = 0x00;

pub fn receive(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Inquiry = context.cdb();
    // Without PCV it is the page that was last sent: there is only one.
    if cdb.flags & flag::PCV != 0 && cdb.page != SUPPORTED_PAGES {
        return Err(Sense::field(2));
    }
    Ok(vec![SUPPORTED_PAGES, 0, 0, 1, SUPPORTED_PAGES])
}

pub fn send<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let cdb: Inquiry = context.cdb();
        if cdb.flags & flag::SELF_TEST_CODE != 0 {
            return Err(Sense::field_bit(1, 7).into());
        }
        let list = context.parameters()?;
        if cdb.flags & flag::SELFTEST != 0 {
            if !list.is_empty() {
                return Err(Sense::field(3).into());
            }
            return self_test(context).map_err(Into::into);
        }
        match list.as_slice() {
            [] | [SUPPORTED_PAGES, _, 0, 0] => Ok(Vec::new()),
            [SUPPORTED_PAGES, ..] => Err(Sense::parameter_length().into()),
            _ => Err(Sense::parameter(0).into()),
        }
    })
}

fn self_test(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    match context.unit.device().health() {
        Health::Good | Health::Degraded => Ok(Vec::new()),
        Health::Failed => {
            let code = AdditionalSense::LOGICAL_UNIT_FAILED_SELF_TEST;
            Err(Sense::new(SenseKey::HARDWARE_ERROR, code))
        }
    }
}

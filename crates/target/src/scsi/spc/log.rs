//! LOG SENSE (SPC-4 6.10): supported pages, use of the store, informational exceptions.

use block::{Health, Op};
use wire::scsi::AdditionalSense;
use wire::scsi::cdb::Page10;
use wire::scsi::log::{
    ALL_SUBPAGES, BINARY_LIST, InformationalException, Page, PageHeader, ParameterHeader,
    ProvisioningParameter, ResourceCount, SPF,
};

use super::super::answer::Answer;
use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sbc::{lba_status, limits};
use super::super::sense::Sense;
use super::push;

/// Pages in ascending order.
const PAGES: [Page; 3] =
    [Page::SUPPORTED_LOG_PAGES, Page::LOGICAL_BLOCK_PROVISIONING, Page::INFORMATIONAL_EXCEPTIONS];

pub fn sense<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let cdb: Page10 = context.cdb();
        // Cumulative values are all there are; thresholds and defaults have none to be.
        if cdb.page >> 6 != CUMULATIVE {
            return Err(Sense::field_bit(2, 7).into());
        }
        let page = Page(cdb.page & 0x3f);
        if !PAGES.contains(&page) {
            return Err(Sense::field_bit(2, 5).into());
        }
        let listing = page == Page::SUPPORTED_LOG_PAGES;
        if cdb.subpage != 0 && !(listing && cdb.subpage == ALL_SUBPAGES) {
            return Err(Sense::field(3).into());
        }
        let body = match page {
            Page::LOGICAL_BLOCK_PROVISIONING => provisioning(context).await?,
            Page::INFORMATIONAL_EXCEPTIONS => exceptions(context),
            _ if cdb.subpage == 0 => PAGES.iter().map(|page| page.0).collect(),
            _ => {
                let mut pairs = vec![page.0, 0, page.0, ALL_SUBPAGES];
                pairs.extend(PAGES[1..].iter().flat_map(|page| [page.0, 0]));
                pairs
            }
        };
        let header = PageHeader {
            page: page.0 | if cdb.subpage == 0 { 0 } else { SPF },
            subpage: cdb.subpage,
            page_length: (body.len() as u16).into(),
        };
        let mut bytes = Vec::new();
        push(&mut bytes, &header);
        bytes.extend(body);
        Ok(from_parameter(bytes, cdb.pointer.get(), page))
    })
}

/// PAGE CONTROL: cumulative values.
const CUMULATIVE: u8 = 1;

/// Leaves out the parameters before the one that is asked for (SPC-4 6.10).
fn from_parameter(bytes: Vec<u8>, pointer: u16, page: Page) -> Vec<u8> {
    const HEADER: usize = size_of::<PageHeader>();
    if pointer == 0 || page == Page::SUPPORTED_LOG_PAGES {
        return bytes;
    }
    let mut at = HEADER;
    while let Some(&[high, low, _, len]) = bytes.get(at..at + 4).and_then(|it| it.first_chunk()) {
        if u16::from_be_bytes([high, low]) >= pointer {
            break;
        }
        at += 4 + usize::from(len);
    }
    let body = &bytes[at.min(bytes.len())..];
    let mut cut = bytes[..2].to_vec();
    cut.extend((body.len() as u16).to_be_bytes());
    cut.extend(body);
    cut
}

/// How much of the store the unit uses. What takes too many looks is left out, as unknown.
async fn provisioning(context: &Context<'_>) -> Result<Vec<u8>, Answer> {
    let mut bytes = Vec::new();
    let geometry = context.unit.geometry();
    if !geometry.ops.contains(block::OpSet::needed_by(Op::Status)) {
        return Ok(bytes);
    }
    let Some(used) = lba_status::used_bytes(context).await? else { return Ok(bytes) };
    let unit = u64::from(context.unit.block_size) << limits::threshold_exponent(context.unit);
    let count = u32::try_from(used.div_ceil(unit)).unwrap_or(u32::MAX);
    let code = ProvisioningParameter::USED_LBA_MAPPING_RESOURCE_COUNT;
    let parameter = ResourceCount {
        header: header(code.0, size_of::<ResourceCount>()),
        count: count.into(),
        scope: DEDICATED,
        ..ResourceCount::default()
    };
    push(&mut bytes, &parameter);
    Ok(bytes)
}

/// SCOPE of a resource count: of this unit alone.
const DEDICATED: u8 = 1;

fn exceptions(context: &Context<'_>) -> Vec<u8> {
    let code = match context.unit.device().health() {
        Health::Good => AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION,
        Health::Degraded => AdditionalSense::WARNING,
        Health::Failed => AdditionalSense::FAILURE_PREDICTION_THRESHOLD_EXCEEDED,
    };
    let parameter = InformationalException {
        header: header(0, size_of::<InformationalException>()),
        additional_sense: code.0.into(),
        // No temperature is known (SPC-4 7.3.9).
        temperature: u8::MAX,
        ..InformationalException::default()
    };
    let mut bytes = Vec::new();
    push(&mut bytes, &parameter);
    bytes
}

fn header(code: u16, len: usize) -> ParameterHeader {
    ParameterHeader {
        code: code.into(),
        control: BINARY_LIST,
        length: (len - size_of::<ParameterHeader>()) as u8,
    }
}

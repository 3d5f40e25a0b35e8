//! INQUIRY (SPC-4 6.4): standard data, and the way to vital product data.

use wire::scsi::cdb::{Inquiry, flag};
use wire::scsi::inquiry::{
    COMMAND_QUEUE, DeviceType, HI_SUP, MULTI_PORT, NORM_ACA, QUALIFIER_NOT_CAPABLE, REMOVABLE,
    RESPONSE_DATA_FORMAT, StandardInquiry, THIRD_PARTY_COPY, TPGS_EXPLICIT, TPGS_IMPLICIT,
    VERSION_SPC_4, VersionDescriptor,
};
use wire::scsi::reservation::Protocol;
use wire::scsi::vpd;
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::nexus::Nexus;
use super::super::parsed::Parsed;
use super::super::sense::Sense;
use super::super::unit::MAKER;
use super::{ascii, vpd as pages};

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Inquiry = context.cdb();
    if cdb.flags & flag::EVPD != 0 {
        return pages::tell(context, vpd::Page(cdb.page));
    }
    if cdb.page != 0 {
        return Err(Sense::field(2));
    }
    let mut data = standard(context.nexus, context.unit.device_type());
    let is_optical = context.unit.device_type() == DeviceType::OPTICAL;
    if context.unit.settings.removable || is_optical {
        data.removable = REMOVABLE;
    }
    if context.unit.device_type() == DeviceType::DISK {
        data.flags5 |= THIRD_PARTY_COPY;
    }
    Ok(data.as_bytes().to_vec())
}

/// What is said of a LUN without a unit (SPC-4 6.4.1) and of the well-known unit.
pub fn nowhere(nexus: &Nexus, parsed: &Parsed, well_known: bool) -> Result<Vec<u8>, Sense> {
    let cdb: Inquiry = parsed.cdb();
    let kind = if well_known { DeviceType::WELL_KNOWN } else { DeviceType::UNKNOWN };
    let qualifier = if well_known { 0 } else { QUALIFIER_NOT_CAPABLE };
    let peripheral = qualifier | kind.0;
    if cdb.flags & flag::EVPD != 0 {
        if cdb.page != vpd::Page::SUPPORTED_VPD_PAGES.0 {
            return Err(Sense::field(2));
        }
        return Ok(vec![peripheral, cdb.page, 0, 1, cdb.page]);
    }
    if cdb.page != 0 {
        return Err(Sense::field(2));
    }
    let data = StandardInquiry { peripheral, ..standard(nexus, kind) };
    Ok(data.as_bytes().to_vec())
}

fn standard(nexus: &Nexus, kind: DeviceType) -> StandardInquiry {
    let mut claims = vec![VersionDescriptor::SAM_5, VersionDescriptor::SPC_4];
    if nexus.port().protocol == Protocol::ISCSI {
        claims.push(VersionDescriptor::ISCSI);
    }
    if kind == DeviceType::DISK {
        claims.extend([VersionDescriptor::SBC_3, VersionDescriptor::SBC_4]);
    }
    let mut product = MAKER.product;
    if kind == DeviceType::OPTICAL {
        claims.push(VersionDescriptor::MMC_6);
        product = MAKER.optical_product;
    }
    let mut data = StandardInquiry {
        peripheral: kind.0,
        version: VERSION_SPC_4,
        format: NORM_ACA | HI_SUP | RESPONSE_DATA_FORMAT,
        additional_length: (size_of::<StandardInquiry>() - 5) as u8,
        flags5: TPGS_IMPLICIT | TPGS_EXPLICIT,
        flags6: MULTI_PORT,
        flags7: COMMAND_QUEUE,
        vendor: ascii(MAKER.vendor),
        product: ascii(product),
        revision: ascii(MAKER.revision),
        ..StandardInquiry::default()
    };
    for (to, claim) in data.version_descriptors.iter_mut().zip(claims) {
        *to = claim.0.into();
    }
    data
}

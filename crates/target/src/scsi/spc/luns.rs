//! REPORT LUNS (SPC-4 6.33).

use wire::scsi::LogicalUnitNumber;
use wire::scsi::cdb::ReportLuns;

use super::super::context::Context;
use super::super::nexus::Nexus;
use super::super::parsed::Parsed;
use super::super::sense::Sense;

/// SELECT REPORT: which addresses.
mod select {
    pub const ADDRESSABLE: u8 = 0x00;
    pub const WELL_KNOWN: u8 = 0x01;
    pub const ALL: u8 = 0x02;
    /// Administrative units, and what hangs under this one: there are none.
    pub const ADMINISTRATIVE: u8 = 0x10;
    pub const NON_ADMINISTRATIVE: u8 = 0x11;
    pub const SUBSIDIARY: u8 = 0x12;
}

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    report(context.nexus, context.parsed)
}

pub fn report(nexus: &Nexus, parsed: &Parsed) -> Result<Vec<u8>, Sense> {
    let cdb: ReportLuns = parsed.cdb();
    let (units, well_known) = match cdb.select_report {
        select::ADDRESSABLE | select::NON_ADMINISTRATIVE => (true, false),
        select::WELL_KNOWN => (false, true),
        select::ALL => (true, true),
        select::ADMINISTRATIVE | select::SUBSIDIARY => (false, false),
        _ => return Err(Sense::field(2)),
    };
    let mut luns = Vec::new();
    if units {
        luns.extend(nexus.units().iter().map(|(number, _)| LogicalUnitNumber::new(*number)));
    }
    if well_known {
        luns.push(LogicalUnitNumber::REPORT_LUNS);
    }
    let mut bytes = ((luns.len() * 8) as u32).to_be_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(luns.iter().flat_map(|lun| lun.0));
    nexus.told_luns();
    Ok(bytes)
}

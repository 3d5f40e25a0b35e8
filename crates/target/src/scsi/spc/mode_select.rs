//! MODE SELECT(6) and (10) (SPC-4 6.11, 6.12). A list is understood completely before anything
//! changes: a bit that differs from what is and may not be changed refuses all of it (6.11).

use wire::scsi::cdb::{Plain6, flag};
use wire::scsi::mode::{
    Header6, Header10, LONGLBA, LongBlockDescriptor, Page, SPF, ShortBlockDescriptor,
};
use zerocopy::FromBytes;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::pages::{self, PageRow};
use crate::lun::{Change, ModeChange, Modes};

pub fn run_6<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        if list.is_empty() {
            return Ok(list);
        }
        let header = Header6::read_from_prefix(&list).map_err(|_| Sense::parameter_length())?.0;
        let descriptors = usize::from(header.block_descriptor_length);
        select(context, &list, (size_of::<Header6>(), descriptors, false)).await?;
        Ok(Vec::new())
    })
}

pub fn run_10<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        if list.is_empty() {
            return Ok(list);
        }
        let header = Header10::read_from_prefix(&list).map_err(|_| Sense::parameter_length())?.0;
        let descriptors = usize::from(header.block_descriptor_length.get());
        let long = header.flags & LONGLBA != 0;
        select(context, &list, (size_of::<Header10>(), descriptors, long)).await?;
        Ok(Vec::new())
    })
}

/// `shape`: bytes of header and of block descriptors, and whether these are long.
async fn select(
    context: &Context<'_>,
    list: &[u8],
    (header, descriptors, long): (usize, usize, bool),
) -> Result<(), super::super::answer::Answer> {
    let cdb: Plain6 = context.cdb();
    let save = cdb.flags & flag::SP != 0;
    let pages_at = header + descriptors;
    let blocks = list.get(header..pages_at).ok_or(Sense::parameter_length())?;
    block_descriptor(context, blocks, (header, long))?;
    let former = context.unit.view().modes;
    let (modes, pages) = read_pages(context, list, pages_at, former)?;
    if modes == former && !save {
        return Ok(());
    }
    let nexus = context.nexus.id().clone();
    // A page that was not sent is not saved either.
    let modes = ModeChange {
        caching: pages.contains(&Page::CACHING).then_some(modes.caching),
        control: pages.contains(&Page::CONTROL).then_some(modes.control),
        save,
    };
    context.change(Change::Mode { nexus: Some(nexus), modes }).await?;
    // What was answered before the cache was turned off must not be weaker than what comes.
    if former.caching.write_back && modes.caching.is_some_and(|caching| !caching.write_back) {
        context.io(block::Request::flush()).await?;
    }
    Ok(())
}

/// Neither the number nor the length of blocks can be changed here; a number of 0, or of all ones,
/// asks for none in particular (SBC-3 6.5.2).
fn block_descriptor(
    context: &Context<'_>,
    bytes: &[u8],
    (at, long): (usize, bool),
) -> Result<(), Sense> {
    let unit = context.unit;
    let (count, most, length) = match (bytes.len(), long) {
        (0, _) => return Ok(()),
        (8, false) => {
            let descriptor = ShortBlockDescriptor::read_from_bytes(bytes).expect("of its size");
            let count = u64::from(descriptor.block_count.get());
            (count, u64::from(u32::MAX), descriptor.block_length.get() & 0x00ff_ffff)
        }
        (16, true) => {
            let descriptor = LongBlockDescriptor::read_from_bytes(bytes).expect("of its size");
            (descriptor.block_count.get(), u64::MAX, descriptor.block_length.get())
        }
        _ => return Err(Sense::parameter(at as u16 - 1)),
    };
    if count != 0 && count != most && count != unit.blocks() {
        return Err(Sense::parameter(at as u16));
    }
    if length != 0 && length != unit.block_size {
        return Err(Sense::parameter(at as u16 + 4));
    }
    Ok(())
}

/// The modes as they would be, and the pages that were sent.
fn read_pages(
    context: &Context<'_>,
    list: &[u8],
    mut at: usize,
    mut modes: Modes,
) -> Result<(Modes, Vec<Page>), Sense> {
    let mut pages = Vec::new();
    while at < list.len() {
        let row = row_at(context, list, at)?;
        let current = row.current(&modes, &context.unit.view());
        let page = list.get(at..at + current.len()).ok_or(Sense::parameter_length())?;
        let header = row.header_len();
        if page[1..header] != current[1..header] {
            return Err(Sense::parameter(at as u16 + 1));
        }
        let mask = row.mask();
        for index in header..page.len() {
            if (page[index] ^ current[index]) & !mask[index] != 0 {
                return Err(Sense::parameter((at + index) as u16));
            }
        }
        (row.take)(page, &mut modes).ok_or(Sense::parameter((at + header) as u16))?;
        pages.push(row.page);
        at += page.len();
    }
    Ok((modes, pages))
}

fn row_at(context: &Context<'_>, list: &[u8], at: usize) -> Result<&'static PageRow, Sense> {
    let first = list[at];
    let subpage = match first & SPF {
        0 => 0,
        _ => *list.get(at + 1).ok_or(Sense::parameter_length())?,
    };
    let kind = context.unit.settings.kind;
    let is_meant = |row: &&PageRow| row.page.0 == first & 0x3f && row.subpage == subpage;
    pages::of(kind).find(is_meant).ok_or(Sense::parameter(at as u16))
}

//! MODE SENSE(6) and (10) (SPC-4 6.13, 6.14): header, block descriptor, pages.

use wire::scsi::cdb::{ModeSense6, Page10, flag};
use wire::scsi::mode::{
    ALL_SUBPAGES, DPOFUA, Header6, Header10, LONGLBA, LongBlockDescriptor, Page, PageControl,
    ShortBlockDescriptor, WRITE_PROTECTED,
};

use super::super::context::Context;
use super::super::sense::Sense;
use super::super::unit::Kind;
use super::pages::{self, PageRow};
use super::push;
use crate::lun::{Caching, Modes};

pub fn tell_6(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ModeSense6 = context.cdb();
    let pages = pages(context, cdb.page, cdb.subpage)?;
    let blocks = match cdb.flags & flag::DBD {
        0 if !is_optical(context) => short_descriptor(context),
        _ => Vec::new(),
    };
    let header = Header6 {
        // One byte holds less than the longest answer, but of pages and descriptor there are few.
        mode_data_length: (size_of::<Header6>() - 1 + blocks.len() + pages.len()) as u8,
        medium_type: 0,
        device_specific: device_specific(context),
        block_descriptor_length: blocks.len() as u8,
    };
    Ok(join(&header, &blocks, &pages))
}

pub fn tell_10(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Page10 = context.cdb();
    let pages = pages(context, cdb.page, cdb.subpage)?;
    let long = cdb.flags & flag::LLBAA != 0;
    let blocks = match cdb.flags & flag::DBD {
        _ if is_optical(context) => Vec::new(),
        0 if long => long_descriptor(context),
        0 => short_descriptor(context),
        _ => Vec::new(),
    };
    let header = Header10 {
        mode_data_length: ((size_of::<Header10>() - 2 + blocks.len() + pages.len()) as u16).into(),
        device_specific: device_specific(context),
        flags: if long && !blocks.is_empty() { LONGLBA } else { 0 },
        block_descriptor_length: (blocks.len() as u16).into(),
        ..Header10::default()
    };
    Ok(join(&header, &blocks, &pages))
}

fn join<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    header: &T,
    blocks: &[u8],
    pages: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, header);
    bytes.extend_from_slice(blocks);
    bytes.extend_from_slice(pages);
    bytes
}

/// The pages that are asked for, one behind the other.
fn pages(context: &Context<'_>, page: u8, subpage: u8) -> Result<Vec<u8>, Sense> {
    let control = match page >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => PageControl::Saved,
    };
    let code = Page(page & 0x3f);
    let kind = context.unit.settings.kind;
    let is_meant = |row: &&PageRow| {
        let page = code == Page::ALL_PAGES || row.page == code;
        let subpage = subpage == ALL_SUBPAGES || row.subpage == subpage;
        page && subpage
    };
    let view = context.unit.view();
    let modes = match control {
        PageControl::Default => default_modes(context),
        PageControl::Saved => view.saved_modes,
        _ => view.modes,
    };
    let make = |row: &PageRow| match control {
        PageControl::Changeable => row.mask(),
        _ => row.current(&modes, &view),
    };
    let bytes: Vec<u8> = pages::of(kind).filter(is_meant).flat_map(make).collect();
    if bytes.is_empty() {
        let known = pages::of(kind).any(|row| row.page == code) || code == Page::ALL_PAGES;
        return Err(Sense::field(if known { 3 } else { 2 }));
    }
    Ok(bytes)
}

/// As the device would have them.
fn default_modes(context: &Context<'_>) -> Modes {
    let write_back = context.unit.geometry().volatile_cache;
    Modes { caching: Caching { write_back, ..Caching::default() }, ..Modes::default() }
}

/// Optical drives have neither the parameter nor block descriptors.
fn is_optical(context: &Context<'_>) -> bool {
    context.unit.settings.kind == Kind::Optical
}

fn device_specific(context: &Context<'_>) -> u8 {
    if is_optical(context) {
        return 0;
    }
    let protected = if context.unit.is_write_protected() { WRITE_PROTECTED } else { 0 };
    protected | DPOFUA
}

fn short_descriptor(context: &Context<'_>) -> Vec<u8> {
    let blocks = context.unit.blocks();
    let descriptor = ShortBlockDescriptor {
        block_count: u32::try_from(blocks).unwrap_or(u32::MAX).into(),
        block_length: context.unit.block_size.into(),
    };
    let mut bytes = Vec::new();
    push(&mut bytes, &descriptor);
    bytes
}

fn long_descriptor(context: &Context<'_>) -> Vec<u8> {
    let descriptor = LongBlockDescriptor {
        block_count: context.unit.blocks().into(),
        reserved: 0.into(),
        block_length: context.unit.block_size.into(),
    };
    let mut bytes = Vec::new();
    push(&mut bytes, &descriptor);
    bytes
}

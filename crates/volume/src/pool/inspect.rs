//! What lies on the disks of a pool, in words: for whoever follows a byte with the description of
//! the form in hand. Pages are shown as they are, also those that nobody would take.

use std::fmt;
use std::sync::Arc;

use block::Error;
use rt::Core;

use super::disks::{Backing, read_page};
use super::home::{Pool, PoolError};
use super::journal::{self, BELOW, Record, Spot};
use super::label::{self, Becomes, End, Label, Was};
use super::lineage::Lineage;
use super::lu::{LuError, read_heads, read_root};
use super::map::{self, Form, MapPage, Run};
use super::owner::Opening;
use super::page::{Header, Kind, PAGE_BYTES, Page};
use super::root::{self, Head, Root, Site};
use super::shape::{SUMS_PER_PAGE, Shape};
use super::slabs::{self, Grant, Slab};
use super::sums;

/// Names and values that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub title: String,
    pub fields: Vec<(String, String)>,
}

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Lu(#[from] LuError),
    #[error("{disk}: {error}")]
    Disk { disk: String, error: Error },
    #[error("{0} is not in a slab table of this pool, or no slab is its first")]
    NoLu(String),
    #[error("{disk} ends at byte {size}")]
    Behind { disk: String, size: u64 },
}

/// What the kinds of pages are called.
const KINDS: [(Kind, &str); 7] = [
    (label::KIND, "label"),
    (slabs::KIND, "page of the slab table"),
    (root::HEAD, "head of an LU's root"),
    (root::BODY, "page of the body of an LU's root"),
    (map::KIND, "page of a layer's map"),
    (journal::KIND, "page of an LU's journal"),
    (sums::KIND, "page of checksums"),
];

impl Section {
    fn new(title: impl fmt::Display) -> Self {
        Self { title: title.to_string(), fields: Vec::new() }
    }

    fn add(&mut self, name: impl fmt::Display, value: impl fmt::Display) {
        self.fields.push((name.to_string(), value.to_string()));
    }
}

/// The labels of a disk, and whose its slabs are.
pub async fn disk(core: &Core, backing: &Arc<dyn Backing>) -> Result<Vec<Section>, Unseen> {
    let size = backing.device(core).geometry().size;
    let last = (size / PAGE_BYTES as u64).saturating_sub(1) * PAGE_BYTES as u64;
    let (front, back) = (page(core, backing, 0).await?, page(core, backing, last).await?);
    let mut sections = vec![page_at(&front, 0, None), page_at(&back, last, None)];
    let labels = [Label::decode(&front, End::Front), Label::decode(&back, End::Back)];
    let newest = labels.into_iter().flatten().max_by_key(|label| label.epoch);
    let Some(label) = newest else { return Ok(sections) };
    let Ok(layout) = super::shape::Layout::new(label.shape, label.size) else {
        return Ok(sections);
    };
    for number in 0..layout.table_pages() {
        for at in layout.table_places(number) {
            let image = page(core, backing, at).await?;
            sections.push(page_at(&image, at, Some((label.shape, label.lineage()))));
        }
    }
    Ok(sections)
}

/// The page at this byte of a disk, or the one that the byte is in.
pub async fn at(core: &Core, backing: &Arc<dyn Backing>, offset: u64) -> Result<Section, Unseen> {
    let size = backing.device(core).geometry().size;
    let start = offset / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    if start + PAGE_BYTES as u64 > size {
        return Err(Unseen::Behind { disk: backing.name().to_owned(), size });
    }
    let front = Label::decode(&page(core, backing, 0).await?, End::Front);
    let image = page(core, backing, start).await?;
    Ok(page_at(&image, start, front.ok().map(|label| (label.shape, label.lineage()))))
}

/// Where everything of an LU is.
pub async fn lu(
    core: &Core,
    backings: Vec<Arc<dyn Backing>>,
    id: [u8; 16],
) -> Result<Vec<Section>, Unseen> {
    let pool = Pool::find(core, backings).await?.look(&mut |_| ()).await;
    let sections = lu_of(&pool, id).await;
    pool.close().await?;
    sections
}

async fn lu_of(pool: &Pool, id: [u8; 16]) -> Result<Vec<Section>, Unseen> {
    let granted = pool.granted(id).unwrap_or_default();
    let first_slab = granted.first.ok_or_else(|| Unseen::NoLu(format!("LU {}", uuid(id))))?;
    let site = pool.site(id, first_slab);
    let mut sections = vec![slabs_of(pool, &granted.slabs)];
    let disks = pool.disks()?;
    let heads = read_heads(&disks, &site).await.map_err(LuError::from)?;
    for (head, at) in heads.iter().zip(site.heads()) {
        let mut section = page_section(head, Some((site.shape, site.lineage)));
        section.title = format!("{}, {}", section.title, place(pool, at));
        sections.push(section);
    }
    let root = read_root(&disks, &site).await?;
    sections.push(ring(pool, &root));
    sections.extend(layers(pool, root, site));
    Ok(sections)
}

fn slabs_of(pool: &Pool, slabs: &[u32]) -> Section {
    let mut section = Section::new("slabs of the LU");
    for &slab in slabs {
        section.add(format!("slab {slab}"), place(pool, Spot { slab, block: 0 }));
    }
    section
}

fn ring(pool: &Pool, root: &Root) -> Section {
    let mut section = Section::new("ring of the journal");
    let blocks = pool.shape().blocks_per_extent();
    for (index, at) in (0_u64..).zip(&root.ring) {
        let spot = Spot { slab: at.slab, block: (u64::from(at.extent) * blocks) as u32 };
        let places = format!("{} to {}", index * blocks, (index + 1) * blocks - 1);
        section.add(format!("places {places}"), place(pool, spot));
    }
    section
}

fn layers(pool: &Pool, root: Root, site: Site) -> Vec<Section> {
    let mut sections = Vec::new();
    for layer in &root.layers {
        let is_top = layer.number == root.top;
        let mut section = Section::new(format!("layer {}", layer.number));
        section.add("name", uuid(layer.id));
        section.add("stands on", layer.below.map_or("nothing".to_owned(), |it| it.to_string()));
        section.add("is the top", if is_top { "yes" } else { "no" });
        section.add("size when frozen", layer.frozen.size);
        section.add("snapshot", &layer.frozen.name);
        section.add("is being let go", if layer.frozen.is_going { "yes" } else { "no" });
        sections.push((layer.number, section));
    }
    // Places as whoever opens the LU computes them; what is checked of an epoch is not asked for.
    for ((number, page), at) in Opening::new(site, u64::MAX, root, &Arc::default()).pages() {
        let layer = sections.iter_mut().find(|(other, _)| *other == number);
        if let Some((_, section)) = layer {
            section.add(format!("page {page} of the map"), place(pool, at));
        }
    }
    sections.into_iter().map(|(_, section)| section).collect()
}

fn place(pool: &Pool, at: Spot) -> String {
    pool.whereabouts(at)
        .map_or("on no disk".to_owned(), |(disk, offset)| format!("{disk} at byte {offset}"))
}

async fn page(core: &Core, backing: &Arc<dyn Backing>, at: u64) -> Result<Page, Unseen> {
    let of = |error| Unseen::Disk { disk: backing.name().to_owned(), error };
    read_page(&*backing.device(core), at).await.map_err(of)
}

fn page_at(page: &Page, at: u64, pool: Option<OfPool>) -> Section {
    let mut section = page_section(page, pool);
    section.title = format!("{}, at byte {at}", section.title);
    section
}

/// What is known of the pool that a page is of.
type OfPool = (Shape, Lineage);

/// A page as it says that it is.
fn page_section(page: &Page, pool: Option<OfPool>) -> Section {
    if page.bytes().iter().all(|byte| *byte == 0) {
        return Section::new("nothing but zeroes");
    }
    let (header, form) = page.says();
    let Some((_, name)) = KINDS.iter().find(|(kind, _)| *kind == header.kind) else {
        return Section::new("no page of metadata: data, or what was there before");
    };
    let mut section = Section::new(name);
    section.add("kind", String::from_utf8_lossy(&header.kind.0));
    section.add("checksum", if page.is_whole() { "good" } else { "bad" });
    section.add("owner", uuid(header.owner));
    section.add("number", header.number);
    section.add("turn", header.turn);
    section.add("epoch", header.epoch);
    section.add("form", form);
    if page.is_whole() {
        payload(page, &header, pool, &mut section);
    }
    section
}

/// What the page carries, if it has the form that its kind has.
fn payload(page: &Page, header: &Header, pool: Option<OfPool>, section: &mut Section) {
    let shape = pool.map(|(shape, _)| shape);
    let own = Lineage::new(header.owner, header.owner);
    let lineage = pool.map_or(own, |(_, lineage)| lineage);
    match header.kind {
        label::KIND => {
            let end = if header.number == 0 { End::Front } else { End::Back };
            if let Ok(label) = Label::decode(page, end) {
                label_fields(&label, section);
            }
        }
        slabs::KIND => {
            if let Ok((_, slabs)) = slabs::decode(page, &lineage, header.number) {
                table_fields(header.number, &slabs, section);
            }
        }
        root::HEAD => {
            for (name, value) in Head::fields(*header, page, &lineage) {
                section.add(name, value);
            }
        }
        map::KIND => {
            let Some(form) = shape.map(Form::new) else { return };
            let of = (&header.owner, header.number);
            if let Ok(map) = MapPage::decode(page, form, of, u64::MAX) {
                map_fields(&map, header.number, form, section);
            }
        }
        journal::KIND => {
            let Some((first, mark, records)) = journal::said(page) else { return };
            section.add("mark", mark);
            for (serial, record) in (first..).zip(&records) {
                section.add(format!("record {serial}"), record_text(record));
            }
        }
        sums::KIND => {
            let Some(shape) = shape.filter(|shape| shape.has_sums()) else { return };
            sum_fields(page, header.number, shape, section);
        }
        _ => {}
    }
}

/// Sums in rows, as far as some are known.
fn sum_fields(page: &Page, number: u64, shape: Shape, section: &mut Section) {
    const ROW: usize = 8;
    section.add("slab", number / shape.sum_pages());
    let first = number % shape.sum_pages() * SUMS_PER_PAGE;
    let sums: Vec<Option<String>> = sums::said(page).collect();
    for (row, sums) in (first..).step_by(ROW).zip(sums.chunks(ROW)) {
        if sums.iter().any(Option::is_some) {
            let sums: Vec<&str> = sums.iter().map(|it| it.as_deref().unwrap_or("-")).collect();
            section.add(format!("blocks from {row} on"), sums.join(" "));
        }
    }
}

fn label_fields(label: &Label, section: &mut Section) {
    section.add("pool", &label.pool_name);
    section.add("disk", uuid(label.pv));
    section.add("disks of the pool", label.members);
    section.add("failure group", label.group);
    section.add("disks of the group", label.group_members);
    section.add("last epoch without a disk", label.missed);
    section.add("lacks something", if label.is_behind { "yes" } else { "no" });
    if let Some(epoch) = label.as_of {
        section.add("knows nothing since epoch", epoch);
    }
    if label.origin != label.pool {
        section.add("its pages name pool", uuid(label.origin));
    }
    if let Some(Becomes { pool, by }) = label.becomes {
        let text = format!("pool {}, when disk {} does", uuid(pool), uuid(by));
        section.add("is to become", text);
    }
    if let Some(Was { pool, epoch }) = label.was {
        section.add("was split off", format!("pool {} in epoch {epoch}", uuid(pool)));
    }
    if label.forces > 0 {
        section.add("forced", format!("{} times", label.forces));
        section.add("epoch of that, until all disks are here", label.forced);
    }
    section.add("size", label.size);
    section.add("slab size", label.shape.slab_bytes());
    section.add("extent size", label.shape.extent_bytes());
    section.add("checksums", if label.shape.has_sums() { "yes" } else { "no" });
}

fn table_fields(page: u64, all: &[Slab], section: &mut Section) {
    let first = page * super::shape::GRANTS_PER_PAGE;
    for (index, slab) in (first..).zip(all) {
        match slab {
            Slab::Free { generation: 0 } | Slab::Filling { generation: 0 } => {}
            Slab::Free { generation } | Slab::Filling { generation } => {
                section.add(format!("place {index}"), format!("free, generation {generation}"));
            }
            Slab::Granted(Grant { lu, number, generation, is_first, age }) => {
                let mut text = format!("slab {number}, generation {generation}, LU {}", uuid(*lu));
                if *is_first {
                    text.push_str(", its first");
                }
                if *age > 0 {
                    text.push_str(&format!(", age {age}"));
                }
                section.add(format!("place {index}"), text);
            }
        }
    }
}

fn map_fields(map: &MapPage, number: u64, form: Form, section: &mut Section) {
    for extent in 0..form.extents() as usize {
        let (mut texts, mut block) = (Vec::new(), 0);
        while block < form.blocks() {
            let run = map.look(extent, block, form.blocks());
            let to = block + run.count() - 1;
            match run {
                Run::Absent { .. } => {}
                Run::Zero { .. } => texts.push(format!("blocks {block} to {to} zero")),
                Run::Written { .. } => texts.push(format!("blocks {block} to {to} written")),
            }
            block = to + 1;
        }
        if let Some(place) = map.place(extent) {
            texts.insert(0, format!("at extent {} of slab {}", place.extent, place.slab));
        }
        if !texts.is_empty() {
            let extent = number * form.extents() + extent as u64;
            section.add(format!("extent {extent}"), texts.join("; "));
        }
    }
}

fn record_text(record: &Record) -> String {
    match record {
        Record::Written { block, at, sums } => {
            let (count, slab, to) = (sums.len(), at.slab, at.block);
            let sums: Vec<String> = sums.iter().map(|sum| format!("{sum:08x}")).collect();
            format!(
                "blocks {block} + {count} written from block {to} of slab {slab} on, sums {}",
                sums.join(" ")
            )
        }
        Record::Zeroed { block, count } => format!("blocks {block} + {count} zeroed"),
        Record::Branched { from, number, top } => {
            format!("layer {number}, {}, stands on layer {from} and is the top", uuid(*top))
        }
        Record::Folded { layer, into, extent, place } => {
            let into = into.map_or("nobody".to_owned(), |into| format!("layer {into}"));
            let at = place.map_or("nowhere".to_owned(), |place| {
                format!("at extent {} of slab {}", place.extent, place.slab)
            });
            let from = match layer {
                &BELOW => "what the LU is brought from".to_owned(),
                layer => format!("layer {layer}"),
            };
            format!("extent {extent} of {from} folded into {into}, {at}")
        }
        Record::Dropped { layer } => format!("layer {layer} is gone"),
        Record::Opened { slab, regions } => format!("regions {regions:#x} of slab {slab} are open"),
        Record::Closed { slab, regions } => {
            format!("regions {regions:#x} of slab {slab} are closed")
        }
        Record::Void { of, block, count } => {
            format!("of record {of} blocks {block} + {count} were not there")
        }
    }
}

/// As people write it.
pub(super) fn uuid(id: [u8; 16]) -> String {
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

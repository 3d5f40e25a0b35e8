//! Labels and slab tables as they are on disk, looked at while the pool is used. What cannot be
//! read at one place is written anew there; a label of something else is left as it is.

use super::super::check::{Finding, Of, Severity};
use super::super::label::{End, Label};
use super::super::page::PAGE_BYTES;
use super::super::slabs;
use super::table::Twin;
use super::{Pool, PoolError, ReadPage};

/// What was found of disks, and how many bytes were read for that.
#[derive(Debug, Default)]
pub struct Looked {
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

impl Looked {
    fn add(&mut self, severity: Severity, disk: &str, what: String) {
        self.findings.push(Finding { severity, of: Of::Disk(disk.to_owned()), what });
    }
}

impl Pool {
    /// Looks at what its disks say of themselves.
    pub async fn scrub(&self) -> Result<Looked, PoolError> {
        let mut looked = Looked::default();
        for disk in self.members() {
            let _changing = self.changing().await;
            self.disks()?;
            // It may have left meanwhile.
            if self.members().contains(&disk) {
                self.scrub_labels(disk, &mut looked).await?;
                self.scrub_table(disk, &mut looked).await?;
            }
        }
        Ok(looked)
    }

    async fn scrub_labels(&self, disk: u32, looked: &mut Looked) -> Result<(), PoolError> {
        let (name, places) = (self.name_of(disk), self.layout(disk).labels());
        let known = self.tables.borrow()[disk as usize].label.clone();
        let (mut good, mut bad) = (None, Vec::new());
        let ends = [(End::Front, "front"), (End::Back, "end")];
        for ((end, called), at) in ends.into_iter().zip(places) {
            looked.bytes += PAGE_BYTES as u64;
            let read = self.disks()?.read_own(disk, at).await;
            let label = read
                .map_err(|error| error.to_string())
                .and_then(|page| Label::decode(&page, end).map_err(|error| error.to_string()));
            match label {
                Ok(label) if (label.pool, label.pv) == (known.pool, known.pv) => good = Some(label),
                Ok(label) => {
                    let what = format!(
                        "its label at the {called} is that of a disk of pool '{}'; somebody else \
                         uses it",
                        label.pool_name
                    );
                    looked.add(Severity::Damaged, &name, what);
                }
                Err(why) => {
                    bad.push((end, at, format!("its label at the {called} cannot be read: {why}")))
                }
            }
        }
        // What the others say too, where neither is left.
        let (epoch, missed) = (self.settled.get(), self.missed.get());
        let label = good.unwrap_or(Label { epoch, missed, ..known });
        for (end, at, what) in bad {
            let written = match self.settle_twin(disk, Twin::Label).await {
                Ok(()) => self.write(disk, at, &label.encode(end)).await,
                failed => failed,
            };
            looked.add_mended(&name, what, written);
        }
        Ok(())
    }

    async fn scrub_table(&self, disk: u32, looked: &mut Looked) -> Result<(), PoolError> {
        let name = self.name_of(disk);
        for page in 0..self.layout(disk).table_pages() {
            let (mut read, mut flaws) = (Vec::<ReadPage>::new(), Vec::new());
            for (place, at) in self.layout(disk).table_places(page).into_iter().enumerate() {
                looked.bytes += PAGE_BYTES as u64;
                let which = ["first", "second"][place];
                let what = |why: &dyn std::fmt::Display| {
                    format!(
                        "page {page} of its slab table cannot be read at its {which} place: {why}"
                    )
                };
                let flaw = match self.disks()?.read_own(disk, at).await {
                    Ok(image) => match slabs::decode(&image, &self.lineage, page) {
                        Ok(good) => {
                            read.push(Ok(good));
                            continue;
                        }
                        Err(flaw) => what(&flaw),
                    },
                    Err(error) => what(&error),
                };
                flaws.push(flaw);
                // It is written first: the other one may be all that there is.
                self.tables.borrow_mut()[disk as usize].turns[page as usize].0 = 1 - place;
            }
            let turn = self.tables.borrow()[disk as usize].turns[page as usize].1;
            if let [Ok((one, slabs)), Ok((other, others))] = &read[..]
                && (slabs != others || one.turn.max(other.turn) != turn)
            {
                let what = "the two places of page {page} of its slab table do not say the same";
                flaws.push(what.replace("{page}", &page.to_string()));
            }
            for what in flaws {
                let written = self.rewrite_table(disk, page).await;
                looked.add_mended(&name, what, written);
            }
        }
        Ok(())
    }

    /// Both places, one after the other.
    async fn rewrite_table(&self, disk: u32, page: u64) -> Result<(), PoolError> {
        for _ in 0..2 {
            self.write_table(disk, page).await?;
            self.sync_these(&[disk]).await?;
        }
        Ok(())
    }
}

impl Looked {
    fn add_mended(&mut self, disk: &str, what: String, written: Result<(), PoolError>) {
        match written {
            Ok(()) => self.add(Severity::Mended, disk, format!("{what}; it is written anew")),
            Err(error) => {
                self.add(
                    Severity::Damaged,
                    disk,
                    format!("{what}; nor can it be written: {error}"),
                );
            }
        }
    }
}

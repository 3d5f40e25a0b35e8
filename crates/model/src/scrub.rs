//! [`Scrub`]: how far it is that all of a pool is read, or what that has come to. What is kept of
//! the last one is the same.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::name::LuName;
use crate::size::Size;

/// Findings that are listed one by one.
pub const LISTED_MAX: usize = 100;

/// A scrub of a pool: the one that is under way, or the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scrub {
    pub state: ScrubState,
    #[schema(value_type = String)]
    pub began: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ended: Option<Timestamp>,
    /// How much of what LUs have was read.
    pub percent: u8,
    /// What was read, at all places together.
    pub read: Size,
    /// Blocks of 4 KiB of which one place was not good, and which are good again.
    pub mended: u64,
    /// Blocks that are not the same at all places, and nothing tells what they should be.
    pub differing: u64,
    /// Blocks that are good nowhere: reading them fails.
    pub lost: u64,
    /// What was wrong with labels, slab tables, roots, journals, maps and pages of checksums, and
    /// was written anew.
    pub metadata_mended: u64,
    /// The same, which could not be written anew.
    pub metadata_damaged: u64,
    /// The first ones of what was found.
    pub found: Vec<ScrubFinding>,
    /// So many more are not listed.
    pub more: u64,
    /// Why something was not read.
    #[serde(default)]
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScrubState {
    Running,
    Done,
    Cancelled,
}

/// Something that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubFinding {
    pub outcome: ScrubOutcome,
    /// What it was found in, by name if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lu: Option<LuName>,
    /// The layer that has the blocks, where that is not the LU as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Uuid>,
    /// Of blocks: where the first one is in the LU, and how much it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Where it was not good; all that differ.
    #[serde(default)]
    pub disks: Vec<String>,
    /// Of what is not blocks: in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScrubOutcome {
    /// It was written anew.
    Mended,
    /// Places differ, and nothing tells which of them is right.
    Differing,
    /// It is good nowhere.
    Lost,
}

impl Scrub {
    pub fn begin(now: Timestamp) -> Scrub {
        Scrub {
            state: ScrubState::Running,
            began: now,
            ended: None,
            percent: 0,
            read: Size::ZERO,
            mended: 0,
            differing: 0,
            lost: 0,
            metadata_mended: 0,
            metadata_damaged: 0,
            found: Vec::new(),
            more: 0,
            left_out: Vec::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.state == ScrubState::Running
    }

    /// Counts what was found, and lists it if there is room.
    pub fn add(&mut self, finding: ScrubFinding) {
        let is_data = finding.what.is_none();
        let blocks = finding.size.map_or(1, |size| size.bytes() / 4096);
        let count = match (finding.outcome, is_data) {
            (ScrubOutcome::Mended, true) => &mut self.mended,
            (ScrubOutcome::Differing, _) => &mut self.differing,
            (ScrubOutcome::Lost, true) => &mut self.lost,
            (ScrubOutcome::Mended, false) => &mut self.metadata_mended,
            (ScrubOutcome::Lost, false) => &mut self.metadata_damaged,
        };
        *count += blocks;
        match self.found.len() < LISTED_MAX {
            true => self.found.push(finding),
            false => self.more += 1,
        }
    }

    /// Something is not good, and stays so.
    pub fn is_bad(&self) -> bool {
        self.differing + self.lost + self.metadata_damaged > 0 || !self.left_out.is_empty()
    }

    /// What was found altogether, in words.
    pub fn sum(&self) -> String {
        let blocks = |count, what: &str| plural(count, "block", what);
        let pages = |count, what: &str| plural(count, "piece of metadata", what);
        let all = [
            blocks(self.mended, "written anew"),
            blocks(self.differing, "that differ"),
            blocks(self.lost, "lost"),
            pages(self.metadata_mended, "written anew"),
            pages(self.metadata_damaged, "damaged"),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }
}

fn plural(count: u64, what: &str, behind: &str) -> Option<String> {
    let (first, rest) = what.split_once(' ').map_or((what, ""), |(first, rest)| (first, rest));
    let rest = if rest.is_empty() { String::new() } else { format!(" {rest}") };
    match count {
        0 => None,
        1 => Some(format!("1 {first}{rest} {behind}")),
        many => Some(format!("{many} {first}s{rest} {behind}")),
    }
}

impl fmt::Display for ScrubState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScrubState::Running => "running",
            ScrubState::Done => "done",
            ScrubState::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for ScrubOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScrubOutcome::Mended => "mended",
            ScrubOutcome::Differing => "differing",
            ScrubOutcome::Lost => "lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(outcome: ScrubOutcome, what: Option<&str>) -> ScrubFinding {
        let (size, what) = (what.is_none().then_some(Size::kib(8)), what.map(str::to_owned));
        let (lu, snapshot, offset, disks) = (None, None, Some(0), Vec::new());
        ScrubFinding { outcome, lu, snapshot, offset, size, disks, what }
    }

    #[test]
    fn findings_are_counted_and_some_listed() {
        let mut scrub = Scrub::begin(Timestamp::UNIX_EPOCH);
        assert_eq!((scrub.sum(), scrub.is_bad()), ("nothing".to_owned(), false));
        scrub.add(finding(ScrubOutcome::Mended, None));
        scrub.add(finding(ScrubOutcome::Mended, Some("a label")));
        assert!(!scrub.is_bad());
        (0..LISTED_MAX).for_each(|_| scrub.add(finding(ScrubOutcome::Lost, None)));
        assert!(scrub.is_bad());
        assert_eq!((scrub.found.len(), scrub.more), (LISTED_MAX, 2));
        let sum = "2 blocks written anew, 200 blocks lost, 1 piece of metadata written anew";
        assert_eq!(scrub.sum(), sum);
        let text = serde_json::to_string(&scrub).unwrap();
        assert_eq!(serde_json::from_str::<Scrub>(&text).unwrap(), scrub);
    }
}

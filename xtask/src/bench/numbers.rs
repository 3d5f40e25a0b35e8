//! Few numbers out of many, and how they are written.

use std::fmt::Write;

/// What several measurements of one thing say.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    pub count: usize,
    pub lowest: f64,
    pub median: f64,
    pub highest: f64,
}

impl Summary {
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&lowest), Some(&highest)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Self { count: sorted.len(), lowest, median, highest }
    }

    /// How far the measurements lie apart, as a share of their median.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.highest - self.lowest) / self.median }
    }

    /// How far the usual one lies above the lowest, as a share of that: for times, which other jobs
    /// only ever make longer.
    pub fn excess(&self) -> f64 {
        if self.lowest == 0.0 { 0.0 } else { self.median / self.lowest - 1.0 }
    }
}

/// Three digits that matter, thousands with a letter.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    let (scaled, letter) = match magnitude {
        m if m >= 1e6 => (value / 1e6, " M"),
        m if m >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 0.1 || m == 0.0 => 2,
        _ => 4,
    };
    format!("{scaled:.digits$}{letter}")
}

/// Lines of cells as columns: the first to the left, the others to the right.
pub fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(row, "{cell:width$}"),
                _ => write!(row, "  {cell:>width$}"),
            };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_few_and_of_none() {
        assert_eq!(Summary::of(&[]), Summary::default());
        let odd = Summary::of(&[3.0, 1.0, 2.0]);
        assert_eq!((odd.lowest, odd.median, odd.highest), (1.0, 2.0, 3.0));
        assert_eq!((odd.spread(), odd.excess()), (1.0, 1.0));
        assert_eq!(Summary::of(&[1.0, 2.0]).median, 1.5);
    }

    #[test]
    fn numbers_are_short_and_columns_straight() {
        let values = [0.0, 0.0123, 0.5, 9.876, 45.67, 678.9, 9999.0, 12_345.0, 7_850_000.0];
        let shorts = ["0.00", "0.0123", "0.50", "9.88", "45.7", "679", "9999", "12.3 k", "7.85 M"];
        assert_eq!(values.map(short), shorts);
        let lines = [vec!["a".into(), "1".into()], vec!["bcd".into(), "23".into()]];
        assert_eq!(columns(&lines), "a     1\nbcd  23\n");
    }
}

//! Tables for people: the first column is aligned left, the others right.

use std::fmt;

/// A table as rows of cells; the first row is the headings.
#[derive(Debug, Clone)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Starts a table with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row, which may be shorter than the headings but not longer.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let row: Vec<String> = cells.into_iter().map(Into::into).collect();
        debug_assert!(row.len() <= self.rows[0].len(), "every cell has a heading");
        self.rows.push(row);
    }

    /// Whether the table has only headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// The headings, then the rows, each of which has at most as many cells.
    pub fn rows(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().map(Vec::as_slice)
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("   {cell:>width$}") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Formats a number with two decimals, or a dash if there is none.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| String::from("-"), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Columns::new(["kind", "pages", "×"]);
        table.row(["zero", "12345678", "1"]);
        table.row(["word-marked", "7"]);
        let lines: Vec<String> = table.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "kind             pages   ×");
        assert_eq!(lines[1], "zero          12345678   1");
        assert_eq!(lines[2], "word-marked          7");
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        assert_eq!(number(Some(2.345)), "2.35");
        assert_eq!(number(None), "-");
    }
}

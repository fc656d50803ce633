//! Both runs value by value, side by side.

use std::collections::HashMap;

/// What kind of value a listed one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A constant of the model.
    Initializer,
    /// A constant kept in sparse form.
    Sparse,
    /// Given by the caller.
    Input,
    /// A node's output.
    Result,
    /// Handed to the caller (listed once more after everything else).
    Output,
}

/// One value of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub kind: Kind,
    /// Its element type, as isotrace writes it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Four letters that stand for its elements; see `isotrace_compare::four_letters`.
    pub summary: String,
    /// The operator that wrote it; empty for constants, inputs and outputs.
    pub op: String,
    /// Its name.
    pub name: String,
    /// The pair it belongs to: a place in [`Report::pairs`](crate::Report::pairs).
    pub pair: Option<usize>,
}

/// The values of both sides: constants, inputs, each node's outputs, final outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// A's values in order.
    pub a: Vec<Entry>,
    /// B's values in order.
    pub b: Vec<Entry>,
}

/// One line: a value of A, of B, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// A's value.
    pub a: Option<&'a Entry>,
    /// B's value.
    pub b: Option<&'a Entry>,
}

impl Listing {
    /// The two lists as rows: A's order is kept, and B's values without a partner follow their predecessor in B.
    ///
    /// Values of one pair stand in one row (a final output with a final output); a second value of the same pair
    /// stands alone.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let key = |e: &Entry| e.pair.map(|p| (p, e.kind == Kind::Output));
        let mut free: HashMap<(usize, bool), usize> = HashMap::new();
        for (j, e) in self.b.iter().enumerate().rev() {
            free.extend(key(e).map(|k| (k, j)));
        }
        let partner: Vec<Option<usize>> =
            self.a.iter().map(|e| key(e).and_then(|k| free.remove(&k))).collect();
        let mut taken = vec![false; self.b.len()];
        for &j in partner.iter().flatten() {
            taken[j] = true;
        }
        let mut rows = Vec::with_capacity(self.a.len() + self.b.len());
        let alone_after = |from: usize| self.b[from..].iter().zip(&taken[from..]).take_while(|(_, t)| !**t);
        rows.extend(alone_after(0).map(|(e, _)| Row { a: None, b: Some(e) }));
        for (a, j) in self.a.iter().zip(&partner) {
            rows.push(Row { a: Some(a), b: j.map(|j| &self.b[j]) });
            if let Some(j) = j {
                rows.extend(alone_after(j + 1).map(|(e, _)| Row { a: None, b: Some(e) }));
            }
        }
        rows
    }
}

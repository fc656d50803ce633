//! What a comparison found: one model of the report, and one file per form in which it is shown.
//!
//! [`Report`] is the contract (schema `isotrace.report/1`): programs read it as JSON, people as text. The forms
//! ([`json`], [`text`], [`sbs`]) only show what the report says; none computes anything.
//!
//! Numbers that JSON cannot write are the texts `"nan"`, `"inf"` and `"-inf"` (Python's `float()` reads both
//! forms); `null` stands for a number that was not measured.

pub mod json;
mod listing;
mod model;
mod number;
pub mod sbs;
pub mod text;

pub use json::JsonError;
pub use text::printable;

pub use listing::{Entry, Kind, Listing, Row};
pub use model::{
    Both, Budget, Cause, Counterfactual, Culprit, CulpritSide, Input, Metrics, Nearest, Pair, Region,
    Relation, Report, Role, Run, SCHEMA, Side, Source, Status, Verdict, Warning,
};

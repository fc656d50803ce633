//! The report as JSON, the form for programs.

use crate::{Report, SCHEMA};

/// Why a text is not a report.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("this is not an isotrace report: {0}; expected JSON of schema {SCHEMA}")]
    Syntax(#[from] serde_json::Error),
    /// JSON of something else, or of a later version.
    #[error(
        "found schema {found:?}, expected {SCHEMA:?}: read it with the isotrace that wrote it, or a newer one"
    )]
    Schema {
        /// What the file says it is.
        found: String,
    },
}

/// The report as indented JSON that ends with a newline.
#[expect(
    clippy::missing_panics_doc,
    reason = "serde_json fails on keys that are no text, and there are none"
)]
pub fn render(report: &Report) -> String {
    let mut text =
        serde_json::to_string_pretty(report).expect("every key is a text and every number is written");
    text.push('\n');
    text
}

/// Reads a report back. Fields this version does not know are passed over.
pub fn parse(text: &str) -> Result<Report, JsonError> {
    /// The schema is looked at first: a report of another version need not have this one's fields.
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    let head: Head = serde_json::from_str(text)?;
    if head.schema != SCHEMA {
        return Err(JsonError::Schema { found: head.schema });
    }
    Ok(serde_json::from_str(text)?)
}

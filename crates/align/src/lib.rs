//! Pairs the values of two networks and finds where they stop computing the same.
//!
//! Values first, structure second, names last, order never. B is executed once in topological order; wherever a
//! value of B equals one of A (in float64, up to layout) A's value is put in its place, so that each piece of B is
//! judged on A's own values and a fault does not poison what follows ([`State`]). What equality means is decided in
//! [`judge`]; what to do where it fails in [`search`].

mod agreement;
mod bits;
mod borders;
mod bounds;
mod chain;
mod comparison;
mod declared;
mod folded;
pub mod index;
pub mod judge;
pub mod narrow;
pub mod opaque;
mod parts;
pub mod patch;
pub mod region;
pub mod relation;
pub mod search;
mod shadow;
mod side;
pub mod signature;
pub mod state;
mod twins;

pub use comparison::Comparison;
pub use declared::Declared;
pub use index::Index;
pub use judge::{Evidence, Judge};
pub use region::Region;
pub use relation::Relation;
pub use shadow::Shadow;
pub use side::{Keeps, Side};
pub use state::{Changes, Match, State};
pub use twins::same_call;

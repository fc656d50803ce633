//! The graph that every part of isotrace speaks, free of any file format.
//!
//! A [`Graph`] is a list of [`Node`]s in execution order and a table of [`Value`]s between them. A value is an
//! input, a constant, a node's output, or (in the body of a control-flow operator) captured from the graph around.
//! Names are those of the file the user gave; nothing here makes up names that could be mistaken for them.

mod attribute;
mod graph;
mod ids;

pub use attribute::{Attribute, Attributes};
pub use graph::{Dim, Graph, GraphError, Node, TensorType, Value};
pub use ids::{NodeId, ValueId};

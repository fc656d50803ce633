//! One file a command. Each returns the program's exit status.

pub mod compare;
pub mod completions;
pub mod convert;
pub mod diff;
pub mod ops;
pub mod run;
pub mod stats;

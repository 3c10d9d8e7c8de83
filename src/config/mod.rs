//! From the operator's text to a generation: read, complain, compile.

pub mod complaint;
pub mod section;
pub mod units;

//! Ravelin's decoders, from their sources: they import nothing from the rest of it.

#[path = "../../../src/http1/mod.rs"]
pub mod http1;

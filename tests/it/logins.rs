//! Which exchanges are failed logins, good ones, or neither: real ones that were recorded, and our own corpus.

mod at_once;
mod corpus;
mod replay;
mod wiring;

/// What has to be open for everybody so that every exchange reaches the origin; tables of a configuration.
const OPEN: &str = "[install_tool]\nopen_to = \"everybody\"";

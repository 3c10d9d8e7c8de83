//! Which exchanges are failed logins, good ones, or neither: real ones that were recorded, and our own corpus.

mod corpus;
mod replay;

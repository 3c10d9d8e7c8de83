//! Failed and good logins, seen on the wire.
//!
//! A request is looked at while it passes ([`attempt`]), its answer when its head is there ([`verdict`]); together
//! they make an [`Outcome`], or nothing, which is by far the most frequent case. Nothing is held back and nothing
//! is kept but a user name. Where the rules come from is said at each of them; `docs/logins.md` has them as a table.

pub mod admit;
pub mod attempt;
pub mod basic;
pub mod conclude;
pub mod fields;
pub mod form;
pub mod moved;
pub mod multipart;
pub mod policy;
pub mod settle;
pub mod short;
pub mod signal;
pub mod tap;
pub mod verdict;
pub mod work;

pub use admit::{Admission, Admitted};
pub use attempt::{Asked, Attempt, Initiator, Kind, Watch, watch};
pub use conclude::{Conclusion, conclude, take_signal};
pub use policy::{Policy, Raw};
pub use settle::{Settlement, session_id, user_id};
pub use tap::{Tap, Window};
pub use verdict::{Facts, Outcome, Verdict};

//! Layers that were merged and policies that were compiled, so that ten thousand sites with one preset have
//! one policy.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Policy, Raw};
use crate::config::complaint::Complaints;

/// What was made so far. It lives for as long as a configuration is compiled.
#[derive(Debug, Default)]
pub struct Shared {
    merged: HashMap<(Same, Same), Arc<Raw>>,
    policies: HashMap<Same, Arc<Policy>>,
    /// Where no layer wrote anything.
    empty: Option<Arc<Policy>>,
}

/// Equal if it is the very same; what is held here cannot be freed, so no address comes twice.
#[derive(Clone, Debug)]
struct Same(Arc<Raw>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Shared {
    /// A layer with a more specific one over it; [`Raw::over`], once for the same two.
    pub fn over(&mut self, general: Option<Arc<Raw>>, specific: Option<Arc<Raw>>) -> Option<Arc<Raw>> {
        let (general, specific) = match (general, specific) {
            (Some(general), Some(specific)) => (general, specific),
            (one, other) => return one.or(other),
        };
        let merge = || Arc::new(Raw::clone(&general).over(Raw::clone(&specific)));
        let key = (Same(Arc::clone(&general)), Same(Arc::clone(&specific)));
        Some(Arc::clone(self.merged.entry(key).or_insert_with(merge)))
    }

    /// What merged layers mean; [`Raw::compile`], once for the same ones.
    pub fn policy(&mut self, raw: Option<&Arc<Raw>>, complaints: &mut Complaints) -> Arc<Policy> {
        let Some(raw) = raw else {
            let empty = self.empty.get_or_insert_with(|| Arc::new(Raw::default().compile(complaints)));
            return Arc::clone(empty);
        };
        let compile = || Arc::new(Raw::clone(raw).compile(complaints));
        Arc::clone(self.policies.entry(Same(Arc::clone(raw))).or_insert_with(compile))
    }
}

//! How the Observatory judges Content-Security-Policy.

use std::collections::{BTreeMap, BTreeSet};

use super::{Test, found};

const NAME: &str = "content-security-policy";
const BROAD: [&str; 8] =
    ["ftp:", "http:", "https:", "*", "http://*", "http://*.*", "https://*", "https://*.*"];

type Sources = BTreeSet<String>;

/// Directives with their sources, all policies of the response taken together.
#[derive(Debug, Default)]
struct Policy {
    directives: BTreeMap<String, Sources>,
}

/// Judges the lines; `reports` says whether there is a report-only policy.
pub(super) fn test(lines: &[&str], reports: bool) -> Test {
    let Ok(policy) = Policy::parse(lines) else { return found(NAME, "invalid", -25) };
    if policy.directives.is_empty() {
        let result = if reports { "only reported" } else { "absent" };
        return found(NAME, result, -25);
    }
    policy.judge()
}

/// Whether `frame-ancestors` keeps other sites from framing the page.
pub(super) fn keeps_frames_out(lines: &[&str]) -> bool {
    let policy = Policy::parse(lines).unwrap_or_default();
    policy.directives.get("frame-ancestors").is_some_and(|sources| !any_broad(sources))
}

impl Policy {
    fn parse(lines: &[&str]) -> Result<Self, ()> {
        let mut policy = Self::default();
        for line in lines {
            // Shorter than any directive.
            if line.trim().len() < "img-src".len() - 1 {
                return Err(());
            }
            policy.add(parse_one(line)?);
        }
        Ok(policy)
    }

    /// A second policy narrows the first: only what both allow is allowed.
    fn add(&mut self, other: BTreeMap<String, Sources>) {
        for (name, sources) in other {
            let both = match self.directives.remove(&name) {
                None => sources,
                Some(mine) => {
                    let both: Sources = mine.intersection(&sources).cloned().collect();
                    if both.is_empty() { BTreeSet::from(["'none'".to_owned()]) } else { both }
                }
            };
            self.directives.insert(name, both);
        }
    }

    fn get(&self, name: &str) -> Sources {
        let found = self.directives.get(name).or_else(|| self.directives.get("default-src"));
        found.cloned().unwrap_or_else(|| BTreeSet::from(["*".to_owned()]))
    }

    fn judge(&self) -> Test {
        let mut script = self.get("script-src");
        let mut style = self.get("style-src");
        let object = self.get("object-src");
        for sources in [&mut script, &mut style] {
            if has_nonce(sources) {
                sources.remove("'unsafe-inline'");
            }
        }
        if script.contains("'strict-dynamic'") {
            if !has_nonce(&script) {
                return found(NAME, "'strict-dynamic' without nonce or hash", -25);
            }
            script
                .retain(|source| source != "'self'" && !BROAD.iter().any(|broad| source.starts_with(broad)));
        }
        if any_broad_or_inline(&script) || any_broad(&object) {
            return found(NAME, "unsafe scripts or objects", -20);
        }
        if self.active(&script).any(|source| is_plain(source)) {
            return found(NAME, "active content over http", -20);
        }
        if script.contains("'unsafe-eval'") || style.contains("'unsafe-eval'") {
            return found(NAME, "'unsafe-eval'", -10);
        }
        if ["img-src", "media-src"]
            .iter()
            .any(|name| self.passive(name).iter().any(|source| is_plain(source)))
        {
            return found(NAME, "images or media over http", -10);
        }
        if any_broad_or_inline(&style) {
            return found(NAME, "unsafe only in styles", 0);
        }
        match self.directives.get("default-src") {
            Some(sources) if sources.len() == 1 && sources.contains("'none'") => {
                found(NAME, "nothing unsafe, default 'none'", 10)
            }
            _ => found(NAME, "nothing unsafe", 5),
        }
    }

    fn active<'a>(&'a self, script: &'a Sources) -> impl Iterator<Item = &'a String> {
        let others = self.directives.iter();
        let others =
            others.filter(|(name, _)| !["img-src", "media-src", "script-src"].contains(&name.as_str()));
        others.flat_map(|(_, sources)| sources).chain(script)
    }

    fn passive(&self, name: &str) -> Sources {
        self.directives.get(name).or_else(|| self.directives.get("default-src")).cloned().unwrap_or_default()
    }
}

/// One policy. A directive twice makes it invalid, but for those that name where to report to.
fn parse_one(line: &str) -> Result<BTreeMap<String, Sources>, ()> {
    let mut directives = BTreeMap::new();
    for directive in line.split(';') {
        let mut words = directive.split_ascii_whitespace().map(str::to_ascii_lowercase);
        let Some(name) = words.next() else { continue };
        let mut sources: Sources = words.collect();
        if sources.is_empty() && name.ends_with("-src") {
            sources.insert("'none'".to_owned());
        }
        let reports = name == "report-uri" || name == "report-to";
        if directives.insert(name, sources).is_some() && !reports {
            return Err(());
        }
    }
    Ok(directives)
}

fn has_nonce(sources: &Sources) -> bool {
    const STARTS: [&str; 4] = ["'nonce-", "'sha256-", "'sha384-", "'sha512-"];
    sources.iter().any(|source| STARTS.iter().any(|start| source.starts_with(start)))
}

fn any_broad(sources: &Sources) -> bool {
    BROAD.iter().any(|broad| sources.contains(*broad))
}

fn any_broad_or_inline(sources: &Sources) -> bool {
    any_broad(sources) || sources.contains("'unsafe-inline'") || sources.contains("data:")
}

fn is_plain(source: &str) -> bool {
    source.starts_with("http:") || source.starts_with("ftp:")
}

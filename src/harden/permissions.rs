//! Permissions-Policy as the structured field it is: the origin's entries win, ours complete it.

use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::singleton::elements;

/// A policy in our configuration, ready to complete an origin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Feature name and the whole `name=(allow list)`.
    list: Box<[(Box<str>, Box<str>)]>,
}

impl Features {
    /// Reads a policy (RFC 9651 dictionary). The error says what is wrong and how to write it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let dictionary = parse(text.as_bytes()).ok_or_else(|| {
            "is not a structured field: write `camera=(), geolocation=(self \"https://maps.example\")`"
                .to_owned()
        })?;
        if dictionary.is_empty() {
            return Err("names no feature".to_owned());
        }
        for (feature, entry) in &dictionary {
            check(feature.as_str(), entry)?;
        }
        let text = text.as_bytes();
        let list = elements(text)
            .filter_map(|member| {
                let member = std::str::from_utf8(member).ok()?;
                let name = member.split(['=', ';']).next()?.trim();
                Some((name.into(), member.into()))
            })
            .collect();
        Ok(Self { list })
    }

    /// The origin's lines completed by the features that they do not mention, as one line. `None` if
    /// there is nothing to add, or if the origin's policy cannot be read: then it is left alone.
    pub(super) fn complete(&self, lines: &[&[u8]]) -> Option<Vec<u8>> {
        let mut out = lines.join(b", ".as_slice());
        let theirs = parse(&out)?;
        let before = out.len();
        for (name, member) in self.list.iter().filter(|(name, _)| !theirs.contains_key(&**name)) {
            debug_assert!(!name.is_empty(), "sfv accepts no empty key");
            if !out.trim_ascii().is_empty() {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(member.as_bytes());
        }
        (out.len() > before || lines.len() > 1).then_some(out)
    }
}

fn parse(text: &[u8]) -> Option<Dictionary> {
    Parser::new(text).parse::<Dictionary>().ok()
}

/// An allow list holds `self`, `*`, `src` or origins in quotes (Permissions Policy section 5.2).
fn check(feature: &str, entry: &ListEntry) -> Result<(), String> {
    let items: &[Item] = match entry {
        ListEntry::InnerList(list) => &list.items,
        ListEntry::Item(item) => std::slice::from_ref(item),
    };
    for item in items {
        match &item.bare_item {
            BareItem::Token(token) if ["self", "*", "src"].contains(&token.as_str()) => {}
            BareItem::String(_) if matches!(entry, ListEntry::InnerList(_)) => {}
            BareItem::Token(token) if token.as_str() == "none" => {
                return Err(format!("`{feature}`: nobody is written `{feature}=()`"));
            }
            BareItem::Token(token) => {
                return Err(format!("`{feature}`: an origin stands in quotes: `{feature}=(\"{token}\")`"));
            }
            _ => return Err(format!("`{feature}` needs a list: `{feature}=(self)` or `{feature}=()`")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn completed(ours: &str, theirs: &[&str]) -> Option<String> {
        let lines: Vec<&[u8]> = theirs.iter().map(|t| t.as_bytes()).collect();
        Features::new(ours).unwrap().complete(&lines).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn faults_are_said() {
        for (text, word) in [
            ("camera 'none'", "structured field"),
            ("camera=none", "camera=()"),
            ("camera=(https://a.example)", "quotes"),
            ("camera", "list"),
            ("", "no feature"),
        ] {
            assert!(Features::new(text).unwrap_err().contains(word), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_origin_wins_and_ours_are_all_there(
            ours in proptest::collection::btree_set("[a-d]", 1..4),
            theirs in proptest::collection::btree_set("[c-f]", 0..4),
        ) {
            let text = |set: &std::collections::BTreeSet<String>, value: &str| {
                set.iter().map(|k| format!("{k}={value}")).collect::<Vec<_>>().join(", ")
            };
            let origin = text(&theirs, "(self)");
            let merged = completed(&text(&ours, "()"), &[&origin]).unwrap_or_else(|| origin.clone());
            let merged = parse(merged.as_bytes()).unwrap();
            for key in ours.union(&theirs) {
                let ListEntry::InnerList(list) = &merged[key.as_str()] else { panic!("{key}") };
                prop_assert_eq!(list.items.is_empty(), !theirs.contains(key));
            }
        }

        #[test]
        fn never_panics(ours in "[ -~]{0,30}", theirs in proptest::collection::vec("[ -~]{0,30}", 0..3)) {
            if let Ok(features) = Features::new(&ours) {
                let lines: Vec<&[u8]> = theirs.iter().map(String::as_bytes).collect();
                let _ = features.complete(&lines);
            }
        }
    }
}

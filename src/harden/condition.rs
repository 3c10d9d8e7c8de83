//! When a rule applies: by status (`404`, `5xx`, `400-499`) and by content type (`text/html`, `image/*`).

use http::StatusCode;

/// The conditions of a rule; all of them must hold. Nothing written: always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    status: Box<[(u16, u16)]>,
    types: Box<[Box<str>]>,
}

impl Condition {
    /// Reads the two lists, each element again a comma-separated list. The error names what is wrong.
    pub(super) fn new<'a>(
        status: impl IntoIterator<Item = &'a str>,
        types: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let split = |list: &'a str| list.split(',').map(str::trim);
        let status = status.into_iter().flat_map(split).map(range).collect::<Result<_, _>>()?;
        let types = types.into_iter().flat_map(split).map(media).collect::<Result<_, _>>()?;
        Ok(Self { status, types })
    }

    /// Whether nothing was written, so that it always holds.
    pub(super) fn is_always(&self) -> bool {
        self.status.is_empty() && self.types.is_empty()
    }

    /// Whether it asks for the content type.
    pub(super) fn needs_type(&self) -> bool {
        !self.types.is_empty()
    }

    /// Whether it holds for this status and this `Content-Type`. Parameters of the type are not looked
    /// at; a response without a type fulfils no condition on it.
    pub(super) fn holds(&self, status: StatusCode, content_type: Option<&[u8]>) -> bool {
        let code = status.as_u16();
        let status = self.status.is_empty() || self.status.iter().any(|(a, b)| (*a..=*b).contains(&code));
        status && (self.types.is_empty() || content_type.is_some_and(|value| self.is_type(value)))
    }

    fn is_type(&self, value: &[u8]) -> bool {
        let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        self.types.iter().any(|media| match media.strip_suffix('*') {
            Some(prefix) => {
                essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            None => essence.eq_ignore_ascii_case(media.as_bytes()),
        })
    }

    /// How it was meant, for `explain`: ` for status 404, 500-599 and type text/html`, or nothing.
    pub(super) fn describe(&self) -> String {
        let status: Vec<String> = self
            .status
            .iter()
            .map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") })
            .collect();
        match (status.is_empty(), self.types.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(" for status {}", status.join(", ")),
            (true, false) => format!(" for type {}", self.types.join(", ")),
            (false, false) => {
                format!(" for status {} and type {}", status.join(", "), self.types.join(", "))
            }
        }
    }
}

/// One element of a list of statuses: `404`, `5xx` or `400-499`.
pub(crate) fn range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{text}` is not a status: write `404`, `5xx`, `400-499`, or several with commas");
    let code = |text: &str| {
        let number = text.trim().parse::<u16>().ok().filter(|n| (100..=599).contains(n));
        number.ok_or_else(wrong)
    };
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let class = class.parse::<u16>().ok().filter(|n| (1..=5).contains(n)).ok_or_else(wrong)?;
        return Ok((class * 100, class * 100 + 99));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (code(from)?, code(to)?);
    if from <= to { Ok((from, to)) } else { Err(wrong()) }
}

fn media(text: &str) -> Result<Box<str>, String> {
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, sub)) if token(kind) && (token(sub) || sub == "*") => {
            Ok(text.to_ascii_lowercase().into_boxed_str())
        }
        _ => Err(format!("`{text}` is not a media type: write `text/html` or `image/*`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(status: &str, types: &str, code: u16, value: Option<&str>) -> bool {
        let list = |text: &'static str| (!text.is_empty()).then_some(text);
        let (status, types): (&'static str, &'static str) =
            (Box::leak(status.into()), Box::leak(types.into()));
        let condition = Condition::new(list(status), list(types)).unwrap();
        condition.holds(StatusCode::from_u16(code).unwrap(), value.map(str::as_bytes))
    }

    #[test]
    fn status_and_type() {
        assert!(holds("", "", 200, None));
        assert!(holds("404,5xx", "", 404, None));
        assert!(holds("404, 5xx", "", 599, None));
        assert!(!holds("404,5xx", "", 403, None));
        assert!(holds("400-403", "", 402, None));
        assert!(holds("", "text/html", 200, Some("Text/HTML; charset=utf-8")));
        assert!(!holds("", "text/html", 200, Some("text/htmlx")));
        assert!(!holds("", "text/html", 200, None));
        assert!(holds("", "image/*", 200, Some("image/svg+xml")));
        assert!(!holds("2xx", "image/*", 404, Some("image/svg+xml")));
    }

    #[test]
    fn what_is_no_status_or_type_is_refused() {
        for status in ["", "6xx", "0xx", "99", "600", "500-400", "abc", "4x"] {
            assert!(Condition::new([status], []).is_err(), "{status}");
        }
        for media in ["", "html", "/", "text/", "*/*", "text/h ml"] {
            assert!(Condition::new([], [media]).is_err(), "{media}");
        }
    }

    proptest! {
        #[test]
        fn a_class_holds_its_hundred(code in 100_u16..600) {
            let class = format!("{}xx", code / 100);
            prop_assert!(holds(&class, "", code, None));
        }

        #[test]
        fn reading_never_panics(status in ".{0,12}", media in ".{0,12}") {
            let _ = Condition::new([status.as_str()], [media.as_str()]);
        }
    }
}

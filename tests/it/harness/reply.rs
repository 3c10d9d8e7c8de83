//! An answer, and what can be said about it.

use super::names::REQUEST_ID;

/// One final response, with the interim ones that came before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    /// `HTTP/1.1`, `HTTP/2`.
    pub(crate) version: String,
    /// The status code.
    pub(crate) status: u16,
    /// Every field line in order, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The status codes of 1xx responses before it.
    pub(crate) interim: Vec<u16>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

/// Fields that may be there at most once, with one value (RFC 9110 section 5.3: none of them is a list).
const SINGLETONS: [&str; 12] = [
    "x-frame-options",
    "strict-transport-security",
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "cross-origin-embedder-policy",
    "origin-agent-cluster",
    "server",
    "content-length",
    "location",
    "content-type",
];

/// Fields that tell strangers what runs here.
const LEAKS: [&str; 4] = ["server", "x-powered-by", "x-generator", "x-redirect-by"];

impl Reply {
    /// Reads `HTTP/1.1 200 OK` and its field lines.
    pub(crate) fn from_head(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let mut start = lines.next()?.splitn(3, ' ');
        let version = start.next()?.to_owned();
        let status = start.next()?.parse().ok()?;
        let fields = lines
            .map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { version, status, fields, ..Self::default() })
    }

    /// The first value of `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of `name`, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// What `/echo` says that PHP got as the request field `name`; names have no case, and Ravelin writes
    /// them to the origin in lower case.
    #[track_caller]
    pub(crate) fn echoed(&self, name: &str) -> Option<String> {
        let seen = self.json();
        let fields = seen["headers"].as_object().unwrap_or_else(|| panic!("not an echo: {seen}"));
        let (_, value) = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::to_owned)
    }

    /// The status must be `status`.
    #[track_caller]
    pub(crate) fn status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "the status of {self}");
        self
    }

    /// It must have been spoken in `version`.
    #[track_caller]
    pub(crate) fn spoken(&self, version: &str) -> &Self {
        assert_eq!(self.version, version, "the protocol of {self}");
        self
    }

    /// `name` must be there exactly once, with exactly this value.
    #[track_caller]
    pub(crate) fn header_once(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.all(name), [value], "`{name}` of {self}");
        self
    }

    /// `name` must be there exactly once, with a value that contains `part`.
    #[track_caller]
    pub(crate) fn header_has(&self, name: &str, part: &str) -> &Self {
        let all = self.all(name);
        assert!(
            all.len() == 1 && all.iter().all(|v| v.contains(part)),
            "`{name}` should hold {part:?}: {self}"
        );
        self
    }

    /// `name` must not be there.
    #[track_caller]
    pub(crate) fn no_header(&self, name: &str) -> &Self {
        assert_eq!(self.all(name), [""; 0], "`{name}` of {self}");
        self
    }

    /// The body must contain `text`.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "the body should contain {text:?}: {self}\n{}", self.text());
        self
    }

    /// The body must not contain `text`.
    #[track_caller]
    pub(crate) fn hides(&self, text: &str) -> &Self {
        assert!(!self.text().contains(text), "the body must not contain {text:?}: {self}\n{}", self.text());
        self
    }

    /// There must be no body.
    #[track_caller]
    pub(crate) fn empty(&self) -> &Self {
        assert!(self.body.is_empty(), "there should be no body, but: {}\n{}", self, self.text());
        self
    }

    /// What holds for every response whatever it is: the base fields once, nothing twice, nothing leaked,
    /// HSTS only over TLS.
    #[track_caller]
    pub(crate) fn hardened(&self) -> &Self {
        let flaws = self.flaws();
        assert!(flaws.is_empty(), "{}: {self}", flaws.join("; "));
        self
    }

    /// What is wrong with the hardening of this response; nothing, if all is well.
    pub(crate) fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut must = |holds: bool, flaw: &dyn Fn() -> String| {
            if !holds {
                flaws.push(flaw());
            }
        };
        let frame = self.all("x-frame-options");
        must(frame == ["SAMEORIGIN"] || frame == ["DENY"], &|| format!("X-Frame-Options {frame:?}"));
        let sniff = self.all("x-content-type-options");
        must(sniff == ["nosniff"], &|| format!("X-Content-Type-Options {sniff:?}"));
        // A 304 updates what the browser stored (RFC 9111 section 4.3.4): what is only filled in where the
        // origin says nothing must not take the place of what the 200 said.
        let filled = usize::from(self.status != 304);
        let referrer = self.all("referrer-policy").len();
        must((filled..=1).contains(&referrer), &|| format!("{referrer} Referrer-Policy"));
        for name in SINGLETONS {
            must(self.all(name).len() <= 1, &|| format!("`{name}` is sent twice"));
        }
        for name in ["x-frame-options", "strict-transport-security", "x-content-type-options"] {
            let joined = self.all(name).iter().any(|value| value.contains(','));
            must(!joined, &|| format!("`{name}` is a joined value"));
        }
        for name in LEAKS {
            must(self.all(name).is_empty(), &|| format!("`{name}` tells strangers what runs here"));
        }
        let typo3 = self.fields.iter().find(|(name, _)| name.starts_with("x-typo3-"));
        must(typo3.is_none(), &|| format!("TYPO3's own debugging: {typo3:?}"));
        let hsts = self.all("strict-transport-security");
        must(self.secure || hsts.is_empty(), &|| "HSTS without TLS".to_owned());
        flaws
    }

    /// The reference id that a page of our own shows; it must be there.
    #[track_caller]
    pub(crate) fn reference(&self) -> String {
        let id = self.header(REQUEST_ID).unwrap_or_else(|| panic!("no {REQUEST_ID} on {self}"));
        assert!(self.text().contains(id), "the page should show its reference {id}: {}", self.text());
        id.to_owned()
    }

    /// The values of `Set-Cookie` whose name is `name`.
    pub(crate) fn cookies(&self, name: &str) -> Vec<&str> {
        let named = |value: &&str| value.split_once('=').is_some_and(|(n, _)| n.trim() == name);
        self.all("set-cookie").into_iter().filter(named).collect()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "\n  {} {}", self.version, self.status)?;
        for (name, value) in &self.fields {
            writeln!(f, "  {name}: {}", value.chars().take(300).collect::<String>())?;
        }
        write!(f, "  ({} bytes of body)", self.body.len())
    }
}

//! The grade that MDN's HTTP Observatory would give, computed without asking it.
//!
//! Algorithm 4 (package 1.4.8): start at 100, add the negative modifiers, and add the positive ones only
//! if 90 or more is left. What a response alone does not tell (scripts, redirect, CORS) is given.

mod cookie;
mod csp;

use http::HeaderName;
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, REFERRER_POLICY, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use crate::fields::Fields;

/// One response and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// The fields of the final response to `/` over https.
    pub fields: &'a Fields,
    /// Whether the site answers on https with a valid certificate at all.
    pub https: bool,
    /// What plain http does.
    pub redirect: Redirect,
    /// What scripts the page loads.
    pub scripts: Scripts,
    /// What a preflight learns.
    pub cors: Cors,
}

/// What `http://` of the site does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    /// To https of the same host at once, or there is no plain http.
    #[default]
    ToHttps,
    /// The first hop leads to another host.
    OffHostFirst,
    /// The first hop stays on http.
    HttpFirst,
    /// It stays on http, or the certificate is not valid.
    Never,
}

/// The scripts of the page (subresource integrity).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scripts {
    /// None, or all of the same origin.
    #[default]
    NoneOrOwn,
    /// Others too, all with integrity.
    AllWithIntegrity,
    /// Others over https without integrity.
    ExternalWithoutIntegrity,
    /// With integrity, but others over plain http.
    IntegrityOverHttp,
    /// Others over plain http without integrity.
    ExternalOverHttp,
}

/// Cross-origin resource sharing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None, public, or restricted.
    #[default]
    Harmless,
    /// Every origin reflected, with credentials.
    Universal,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 0 to 145.
    pub score: u32,
    /// `A+` to `F`.
    pub grade: &'static str,
    /// Every test, in the order of the published table.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What was found.
    pub result: &'static str,
    /// Points added or taken.
    pub modifier: i32,
}

/// Scores a response.
#[must_use]
pub fn score(scan: &Scan<'_>) -> Report {
    let transport = transport(scan);
    let tests = vec![
        csp::test(
            &texts(scan, &CONTENT_SECURITY_POLICY),
            scan.fields.contains(&CONTENT_SECURITY_POLICY_REPORT_ONLY),
        ),
        cookie::test(&texts(scan, &SET_COOKIE), transport.modifier >= 0),
        cors(scan.cors),
        redirection(scan.redirect),
        referrer(scan),
        transport,
        integrity(scan.scripts),
        sniffing(scan),
        framing(scan),
        resource(scan),
    ];
    let lost: i32 = tests.iter().map(|test| test.modifier.min(0)).sum();
    let won: i32 = tests.iter().map(|test| test.modifier.max(0)).sum();
    let base = 100 + lost;
    let score = if base >= 90 { base + won } else { base };
    let score = u32::try_from(score).unwrap_or(0);
    Report { score, grade: grade(score), tests }
}

/// The grade of a score.
#[must_use]
pub fn grade(score: u32) -> &'static str {
    const GRADES: [(u32, &str); 12] = [
        (100, "A+"),
        (90, "A"),
        (85, "A-"),
        (80, "B+"),
        (70, "B"),
        (65, "B-"),
        (60, "C+"),
        (50, "C"),
        (45, "C-"),
        (40, "D+"),
        (30, "D"),
        (25, "D-"),
    ];
    GRADES.iter().find(|(least, _)| score >= *least).map_or("F", |(_, grade)| grade)
}

const fn found(name: &'static str, result: &'static str, modifier: i32) -> Test {
    Test { name, result, modifier }
}

fn texts<'a>(scan: &Scan<'a>, name: &'a HeaderName) -> Vec<&'a str> {
    scan.fields.all(name).filter_map(|value| value.to_str().ok()).collect()
}

/// All lines joined as the scanner's HTTP client joins them; `None` without a line.
fn joined(scan: &Scan<'_>, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = scan.fields.all(name).map(|value| value.to_str().unwrap_or("?")).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn cors(cors: Cors) -> Test {
    match cors {
        Cors::Harmless => found("cors", "none, public or restricted", 0),
        Cors::Universal => found("cors", "every origin, with credentials", -50),
    }
}

fn redirection(redirect: Redirect) -> Test {
    match redirect {
        Redirect::ToHttps => found("redirection", "http leads to https", 0),
        Redirect::OffHostFirst => found("redirection", "the first hop leaves the host", -5),
        Redirect::HttpFirst => found("redirection", "the first hop stays on http", -10),
        Redirect::Never => found("redirection", "http does not lead to https", -20),
    }
}

fn referrer(scan: &Scan<'_>) -> Test {
    const PRIVATE: [&str; 4] =
        ["no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"];
    const PUBLIC: [&str; 4] =
        ["origin", "origin-when-cross-origin", "unsafe-url", "no-referrer-when-downgrade"];
    let Some(value) = joined(scan, &REFERRER_POLICY) else { return found("referrer-policy", "absent", 0) };
    let value = value.to_ascii_lowercase();
    let mut tokens = value.split(',').map(str::trim);
    match tokens.rfind(|token| PRIVATE.contains(token) || PUBLIC.contains(token)) {
        Some(token) if PRIVATE.contains(&token) => found("referrer-policy", "private", 5),
        Some(_) => found("referrer-policy", "tells other sites too much", -5),
        None => found("referrer-policy", "invalid", -5),
    }
}

fn transport(scan: &Scan<'_>) -> Test {
    const NAME: &str = "strict-transport-security";
    /// The published six months less a week, which the scanner grants.
    const ENOUGH: u64 = 15_552_000;
    if !scan.https {
        return found(NAME, "no https", -20);
    }
    let Some(value) = joined(scan, &STRICT_TRANSPORT_SECURITY) else { return found(NAME, "absent", -20) };
    let value = value.to_ascii_lowercase();
    let age = value.split(';').find_map(|part| part.trim().strip_prefix("max-age="));
    let digits = age.map(|age| age.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        _ if value.contains(',') => found(NAME, "sent twice", -20),
        None => found(NAME, "invalid", -20),
        Some(age) if age >= ENOUGH => found(NAME, "six months or more", 0),
        Some(_) => found(NAME, "less than six months", -10),
    }
}

fn integrity(scripts: Scripts) -> Test {
    const NAME: &str = "subresource-integrity";
    match scripts {
        Scripts::NoneOrOwn => found(NAME, "no foreign scripts", 0),
        Scripts::AllWithIntegrity => found(NAME, "all with integrity", 5),
        Scripts::ExternalWithoutIntegrity => found(NAME, "foreign scripts without integrity", -5),
        Scripts::IntegrityOverHttp => found(NAME, "integrity, but over http", -20),
        Scripts::ExternalOverHttp => found(NAME, "foreign scripts over http", -50),
    }
}

fn sniffing(scan: &Scan<'_>) -> Test {
    const NAME: &str = "x-content-type-options";
    match joined(scan, &X_CONTENT_TYPE_OPTIONS) {
        None => found(NAME, "absent", -5),
        Some(value) if value.trim().eq_ignore_ascii_case("nosniff") => found(NAME, "nosniff", 0),
        Some(_) => found(NAME, "invalid", -5),
    }
}

fn framing(scan: &Scan<'_>) -> Test {
    const NAME: &str = "x-frame-options";
    if csp::keeps_frames_out(&texts(scan, &CONTENT_SECURITY_POLICY)) {
        return found(NAME, "by frame-ancestors", 5);
    }
    let Some(value) = joined(scan, &X_FRAME_OPTIONS) else { return found(NAME, "absent", -20) };
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "deny" | "sameorigin" => found(NAME, "protected", 0),
        other if other.starts_with("allow-from ") => found(NAME, "allow-from", 0),
        _ => found(NAME, "invalid", -20),
    }
}

fn resource(scan: &Scan<'_>) -> Test {
    const NAME: &str = "cross-origin-resource-policy";
    let name = HeaderName::from_static(NAME);
    match joined(scan, &name).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
        None => found(NAME, "absent", 0),
        Some("same-origin" | "same-site") => found(NAME, "restricted", 10),
        Some("cross-origin") => found(NAME, "open", 0),
        Some(_) => found(NAME, "invalid", -5),
    }
}

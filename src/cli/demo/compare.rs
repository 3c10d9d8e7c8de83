//! From the answers of both sides to the rows that are shown: nothing is written here that was not measured.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_SECURITY_POLICY, LOCATION,
    SET_COOKIE, X_FRAME_OPTIONS,
};
use http::{HeaderName, Uri};

use super::probe::{Answer, Measured, NAME, STRANGER, Side};
use super::table::{Row, Section};
use crate::harden::observatory::{self, Cors, Redirect, Scan, Scripts};

/// What the reader should know about the numbers.
pub(super) const NOTES: &str = "\
Measured just now, over real connections to both, under the name www.example.org: for localhost
Strict-Transport-Security is left out, because it would bind other servers on this machine to https.
B+ is as far as a proxy gets that breaks nothing. The rest is a script policy, which only the site
can write; TYPO3's back end writes one, and Ravelin passes it on untouched.";

/// Stands for a header that is not there.
const NONE: &str = "-";

/// Every row, by subject.
pub(super) fn sections(measured: &Measured) -> Vec<Section> {
    let Measured { before, after } = measured;
    vec![
        Section { title: "Headers of the front page", rows: added(&before.front, &after.front) },
        Section { title: "Leaks", rows: removed(&before.front, &after.front) },
        Section { title: "Cookies", rows: cookies(before, after) },
        Section { title: "Back end login, which sends its own headers", rows: backend(before, after) },
        Section { title: "Requests", rows: requests(before, after) },
        Section { title: "MDN HTTP Observatory, computed offline", rows: grades(before, after) },
    ]
}

fn row(name: impl Into<String>, before: impl Into<String>, after: impl Into<String>) -> Row {
    Row { name: name.into(), before: before.into(), after: after.into() }
}

/// Every header that is new or another with Ravelin.
fn added(before: &Answer, after: &Answer) -> Vec<Row> {
    let names = names(after);
    let changed = names.iter().filter(|name| before.value(name) != after.value(name));
    changed.map(|name| row(spelled(name), before.shown(name), after.shown(name))).collect()
}

/// Every header that is there without Ravelin only.
fn removed(before: &Answer, after: &Answer) -> Vec<Row> {
    let names = names(before);
    let gone = names.iter().filter(|name| !after.fields.contains(name));
    gone.map(|name| row(spelled(name), before.shown(name), "gone")).collect()
}

/// The names of an answer's fields, each once; cookies have rows of their own, and the date is no news.
fn names(answer: &Answer) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, _) in answer.fields.iter() {
        if !names.contains(name) && *name != SET_COOKIE && *name != http::header::DATE {
            names.push(name.clone());
        }
    }
    names
}

fn cookies(before: &Side, after: &Side) -> Vec<Row> {
    let pages = [(&before.front, &after.front), (&before.login, &after.login)];
    let rows = pages.iter().flat_map(|(before, after)| {
        before.cookies().into_iter().map(|(name, flags)| {
            let after = after.cookies().into_iter().find(|(other, _)| *other == name);
            row(name, flags, after.map_or_else(|| "gone".to_owned(), |(_, flags)| flags))
        })
    });
    rows.collect()
}

fn backend(before: &Side, after: &Side) -> Vec<Row> {
    let policy = &CONTENT_SECURITY_POLICY;
    let untouched = before.login.value(policy) == after.login.value(policy);
    let kept = if untouched { "untouched".to_owned() } else { after.login.shown(policy) };
    vec![
        row(spelled(policy), before.login.shown(policy), kept),
        row(spelled(&X_FRAME_OPTIONS), before.login.shown(&X_FRAME_OPTIONS), once(&after.login)),
    ]
}

/// The value, and that it is sent once, if it is.
fn once(answer: &Answer) -> String {
    let times = answer.fields.all(&X_FRAME_OPTIONS).count();
    let shown = answer.shown(&X_FRAME_OPTIONS);
    if times == 1 { format!("{shown}, still once") } else { shown }
}

fn requests(before: &Side, after: &Side) -> Vec<Row> {
    let both = |name: &str, show: fn(&Side) -> String| row(name, show(before), show(after));
    vec![
        both("http://", |side| leads(&side.plain)),
        both("/typo3", |side| leads(&side.folder)),
        both("DELETE /", |side| answered(&side.delete)),
        both("TRACE /", |side| answered(&side.trace)),
    ]
}

/// The status, and what it leads to.
fn leads(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    match answer.location().and_then(|to| to.scheme_str().map(str::to_owned)) {
        Some(scheme) => format!("{status} to {scheme}"),
        None => format!("{status}, in the clear"),
    }
}

fn answered(answer: &Answer) -> String {
    let allow = answer.value(&ALLOW).map(|methods| format!(", Allow: {methods}")).unwrap_or_default();
    format!("{}{allow}", answer.status.as_u16())
}

fn grades(before: &Side, after: &Side) -> Vec<Row> {
    let both = |name: &str, page: fn(&Side) -> &Answer| row(name, grade(before, page), grade(after, page));
    vec![both("Front page", |side| &side.front), both("Back end login", |side| &side.login)]
}

fn grade(side: &Side, page: fn(&Side) -> &Answer) -> String {
    let page = page(side);
    let scan = Scan {
        fields: &page.fields,
        https: side.secure,
        redirect: redirect(&side.plain),
        scripts: scripts(&page.body),
        cors: cors(&side.preflight),
    };
    let report = observatory::score(&scan);
    format!("{:<3} {}", report.grade, report.score)
}

/// What plain http does, by its first hop.
fn redirect(plain: &Answer) -> Redirect {
    let Some(to) = plain.location() else { return Redirect::Never };
    match (to.scheme_str(), to.host()) {
        (Some("https"), Some(NAME)) => Redirect::ToHttps,
        (Some("https"), _) => Redirect::OffHostFirst,
        _ => Redirect::HttpFirst,
    }
}

/// Which scripts a page loads, the worst of them counting.
fn scripts(page: &str) -> Scripts {
    let tags = page.split("<script").skip(1).filter_map(|rest| rest.split('>').next());
    let foreign = |tag: &&str| ["src=\"http", "src=\"//"].iter().any(|start| tag.contains(start));
    let worst = |found: Scripts, tag: &str| match (tag.contains("src=\"http:"), tag.contains("integrity=")) {
        (true, false) => Scripts::ExternalOverHttp,
        (true, true) if found != Scripts::ExternalOverHttp => Scripts::IntegrityOverHttp,
        (false, false) if matches!(found, Scripts::NoneOrOwn | Scripts::AllWithIntegrity) => {
            Scripts::ExternalWithoutIntegrity
        }
        (false, true) if found == Scripts::NoneOrOwn => Scripts::AllWithIntegrity,
        _ => found,
    };
    tags.filter(foreign).fold(Scripts::NoneOrOwn, worst)
}

/// Whether a preflight grants a stranger everything.
fn cors(preflight: &Answer) -> Cors {
    let reflected = preflight.value(&ACCESS_CONTROL_ALLOW_ORIGIN).as_deref() == Some(STRANGER);
    let trusted = preflight.value(&ACCESS_CONTROL_ALLOW_CREDENTIALS).as_deref() == Some("true");
    if reflected && trusted { Cors::Universal } else { Cors::Harmless }
}

/// A name as people write it.
fn spelled(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word {
        "typo3" | "ua" => word.to_ascii_uppercase(),
        word => {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            first.to_ascii_uppercase() + rest
        }
    });
    words.collect::<Vec<_>>().join("-")
}

impl Answer {
    /// All lines of a field, joined as a browser joins them.
    fn value(&self, name: &HeaderName) -> Option<String> {
        let lines: Vec<_> =
            self.fields.all(name).map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    fn shown(&self, name: &HeaderName) -> String {
        self.value(name).unwrap_or_else(|| NONE.to_owned())
    }

    fn location(&self) -> Option<Uri> {
        self.value(&LOCATION)?.parse().ok()
    }

    /// Every cookie that is set, with its flags in one order.
    fn cookies(&self) -> Vec<(String, String)> {
        let lines = self.fields.all(&SET_COOKIE).filter_map(|value| value.to_str().ok());
        lines.filter_map(|line| Some((line.split('=').next()?.trim().to_owned(), flags(line)))).collect()
    }
}

/// `Secure, HttpOnly, SameSite=Lax`, as far as they are there.
fn flags(cookie: &str) -> String {
    let has = |flag: &str| {
        cookie.split(';').skip(1).find(|part| {
            let name = part.split('=').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case(flag)
        })
    };
    let mut flags: Vec<String> =
        ["Secure", "HttpOnly"].into_iter().filter(|flag| has(flag).is_some()).map(str::to_owned).collect();
    if let Some((_, site)) = has("SameSite").and_then(|part| part.split_once('=')) {
        let (first, rest) = site.trim().split_at_checked(1).unwrap_or((site, ""));
        flags.push(format!("SameSite={}{rest}", first.to_ascii_uppercase()));
    }
    if flags.is_empty() { NONE.to_owned() } else { flags.join(", ") }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::fields::Fields;

    fn answer(status: u16, lines: &[(&'static str, &'static str)]) -> Answer {
        let lines = lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let fields: Fields = lines.collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), fields, body: String::new() }
    }

    #[test]
    fn headers_are_new_changed_or_gone() {
        let before =
            answer(200, &[("server", "Apache"), ("x-typo3-parsetime", "1ms"), ("vary", "a"), ("etag", "e")]);
        let after =
            answer(200, &[("vary", "b"), ("etag", "e"), ("x-frame-options", "DENY"), ("date", "now")]);
        assert_eq!(added(&before, &after), [row("Vary", "a", "b"), row("X-Frame-Options", "-", "DENY")]);
        let gone = [row("Server", "Apache", "gone"), row("X-TYPO3-Parsetime", "1ms", "gone")];
        assert_eq!(removed(&before, &after), gone);
    }

    #[test]
    fn the_notes_fit_the_terminal_and_name_the_name() {
        assert!(NOTES.lines().all(|line| line.chars().count() <= 100));
        assert!(NOTES.contains(NAME));
    }

    #[test]
    fn flags_of_cookies() {
        assert_eq!(flags("a=b; path=/"), "-");
        assert_eq!(flags("a=Secure"), "-");
        assert_eq!(flags("a=b; samesite=strict; HTTPONLY;secure"), "Secure, HttpOnly, SameSite=Strict");
    }

    #[test]
    fn the_first_hop_decides() {
        let to = |to: &'static str| redirect(&answer(301, &[("location", to)]));
        assert_eq!(to("https://www.example.org:8443/"), Redirect::ToHttps);
        assert_eq!(to("https://example.com/"), Redirect::OffHostFirst);
        assert_eq!(to("http://www.example.org/start"), Redirect::HttpFirst);
        assert_eq!(redirect(&answer(200, &[])), Redirect::Never);
    }

    #[test]
    fn the_worst_script_counts() {
        assert_eq!(scripts("<script>1</script><script src=\"/own.js\"></script>"), Scripts::NoneOrOwn);
        let good = "<script src=\"https://cdn.example/a.js\" integrity=\"sha384-x\"></script>";
        let bad = "<script src=\"//cdn.example/b.js\"></script>";
        assert_eq!(scripts(good), Scripts::AllWithIntegrity);
        assert_eq!(scripts(&[good, bad].concat()), Scripts::ExternalWithoutIntegrity);
        let plain = "<script src=\"http://cdn.example/c.js\"></script>";
        assert_eq!(scripts(&[plain, good].concat()), Scripts::ExternalOverHttp);
    }

    #[test]
    fn a_reflected_stranger_with_credentials_is_everybody() {
        let origin = ("access-control-allow-origin", STRANGER);
        assert_eq!(cors(&answer(204, &[origin])), Cors::Harmless);
        assert_eq!(
            cors(&answer(204, &[origin, ("access-control-allow-credentials", "true")])),
            Cors::Universal
        );
    }
}

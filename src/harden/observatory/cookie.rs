//! How the Observatory judges cookies: the worst finding counts.

use super::{Test, found};

const NAME: &str = "cookies";

/// What matters of one Set-Cookie line.
#[expect(clippy::struct_excessive_bools, reason = "five answers about one cookie, each asked by name")]
struct Cookie {
    session: bool,
    anti_forgery: bool,
    secure: bool,
    http_only: bool,
    same_site: Option<String>,
}

/// Judges the lines; `hsts` says whether the HSTS test passed, which mends part of a missing Secure.
pub(super) fn test(lines: &[&str], hsts: bool) -> Test {
    let cookies: Vec<Cookie> = lines.iter().filter_map(|line| Cookie::parse(line)).collect();
    if cookies.is_empty() {
        return found(NAME, "none", 0);
    }
    let worst = cookies.iter().filter_map(|cookie| cookie.fault(hsts)).min_by_key(|test| test.modifier);
    worst.unwrap_or_else(|| {
        if cookies.iter().all(|cookie| cookie.same_site.is_some()) {
            found(NAME, "all Secure, HttpOnly and SameSite", 5)
        } else {
            found(NAME, "all Secure, sessions HttpOnly", 0)
        }
    })
}

impl Cookie {
    fn parse(line: &str) -> Option<Self> {
        let (name, _) = line.split(';').next()?.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let mut cookie = Self {
            session: name.contains("sess") || name.contains("login"),
            anti_forgery: name.contains("csrf"),
            secure: false,
            http_only: false,
            same_site: None,
        };
        for attribute in line.split(';').skip(1) {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            match key.trim().to_ascii_lowercase().as_str() {
                "secure" => cookie.secure = true,
                "httponly" => cookie.http_only = true,
                "samesite" => cookie.same_site = Some(value.trim().to_ascii_lowercase()),
                _ => {}
            }
        }
        (!name.is_empty() && name != "heroku-session-affinity").then_some(cookie)
    }

    fn fault(&self, hsts: bool) -> Option<Test> {
        let same_site = self.same_site.as_deref();
        let invalid = same_site.is_some_and(|site| {
            !["lax", "strict", "none"].contains(&site) || (site == "none" && !self.secure)
        });
        let faults = [
            (self.session && !self.secure && !hsts, "session without Secure", -40),
            (self.session && !self.http_only, "session without HttpOnly", -30),
            (invalid, "SameSite invalid", -20),
            (self.anti_forgery && same_site.is_none(), "anti-forgery token without SameSite", -20),
            (!self.secure && !hsts, "without Secure", -20),
            (self.session && !self.secure, "session without Secure, but HSTS", -10),
            (!self.secure, "without Secure, but HSTS", -5),
        ];
        faults.into_iter().find(|(here, ..)| *here).map(|(_, result, modifier)| found(NAME, result, modifier))
    }
}

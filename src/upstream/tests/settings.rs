//! What the operator writes, and what is complained about.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::*;
use crate::config::complaint::{Complaints, Severity, Source};
use crate::config::section::{Reading, Section};
use crate::upstream::settings::{Common, Raw};

fn compile_in(base: &Path, text: &str) -> (Policy, Complaints) {
    let source = Arc::new(Source { name: "test".to_owned(), text: text.to_owned() });
    let table = DeTable::parse(text).unwrap();
    let mut reading = Reading { complaints: Complaints::default(), env: &|_| None, base: base.to_path_buf() };
    let mut section = Section::root(table.get_ref(), &source);
    let raw = Raw::read(&mut section, &mut reading);
    section.finish(&mut reading);
    let policy = raw.compile(&mut Common::default(), &mut reading.complaints);
    (policy, reading.complaints)
}

fn compile(text: &str) -> (Policy, Complaints) {
    compile_in(Path::new("/nowhere"), text)
}

/// The only complaint, as the operator reads it.
fn complaint(text: &str, severity: Severity) -> String {
    let (_, complaints) = compile(text);
    let all: Vec<_> = complaints.iter().collect();
    assert_eq!(all.len(), 1, "{complaints}");
    assert_eq!(all[0].severity, severity, "{complaints}");
    all[0].to_string()
}

#[test]
fn one_or_several_members_with_the_standard_pool() {
    let (policy, complaints) = compile("upstream = 'http://127.0.0.1:8080'");
    assert!(complaints.is_empty(), "{complaints}");
    assert_eq!(policy.members[0].0.to_string(), "http://127.0.0.1:8080");
    assert_eq!(policy.pool, PoolPolicy::default());
    let (policy, complaints) = compile(
        "upstream = ['http://a', 'unix:/run/x.sock']\n[upstream_pool]\nidle = '2 s'\nidle_per_worker = 8\n\
         connect = '1 s'\nfail_after = 0\nretry_after = '1 min'\nrequests = 9\nqueue = '3 s'",
    );
    assert!(complaints.is_empty(), "{complaints}");
    assert_eq!(policy.members.len(), 2);
    let want = PoolPolicy {
        idle: Duration::from_secs(2),
        idle_per_worker: 8,
        connect: Duration::from_secs(1),
        fail_after: 0,
        retry_after: Duration::from_mins(1),
        requests: 9,
        queue: Duration::from_secs(3),
    };
    assert_eq!(policy.pool, want);
}

#[test]
fn only_http_is_forwarded_to() {
    for scheme in ["ftp", "mysql", "tcp", "ws", "fcgi"] {
        let text = complaint(&format!("upstream = '{scheme}://127.0.0.1:21'"), Severity::Error);
        assert!(text.contains("HTTP and nothing else") && text.contains("http://host:port"), "{text}");
    }
    let text = complaint("upstream = '127.0.0.1:80'", Severity::Error);
    assert!(text.contains("did you mean `http://127.0.0.1:80`?"), "{text}");
    assert!(text.contains("test:1"), "{text}");
}

#[test]
fn what_is_missing_wrong_or_doubtful() {
    assert!(complaint("", Severity::Error).contains("no `upstream`"));
    assert!(complaint("upstream = []", Severity::Error).contains("empty list"));
    assert!(
        complaint("upstream = 'http://localhost:443'", Severity::Warning).contains("did you mean `https")
    );
    assert!(complaint("upstream = ['http://a', 'http://a:80']", Severity::Warning).contains("twice"));
    let idle = "upstream = 'http://a'\nupstream_pool = { idle = '5 s' }";
    assert!(complaint(idle, Severity::Warning).contains("KeepAliveTimeout"));
    let unknown = "upstream = 'http://a'\nupstream_pool = { idel = '5 s' }";
    assert!(complaint(unknown, Severity::Error).contains("did you mean `idle`?"));
    let useless = "upstream = 'http://a'\nupstream_tls = { server_name = 'x' }";
    assert!(complaint(useless, Severity::Warning).contains("no effect"));
    let many: Vec<String> = (0..65).map(|i| format!("'http://a{i}'")).collect();
    let many = format!("upstream = [{}]", many.join(","));
    assert!(complaint(&many, Severity::Error).contains("more than 64"));
}

#[test]
fn tls_faults_name_the_file_and_the_key() {
    let tls = |lines: &str| format!("upstream = 'https://a.test'\n[upstream_tls]\n{lines}");
    let roots = complaint(&tls("roots = 'missing.pem'"), Severity::Error);
    assert!(roots.contains("/nowhere/missing.pem") && roots.contains("test:3"), "{roots}");
    let any = complaint(&tls("danger_accept_any_certificate = true"), Severity::Warning);
    assert!(any.contains("any certificate is accepted"), "{any}");
    let (_, both) = compile(&tls("roots = 'x.pem'\ndanger_accept_any_certificate = true"));
    assert!(both.to_string().contains("contradict"), "{both}");
    let danger = "danger_accept_any_certificate = true\n";
    for (lines, want) in [
        ("pin_sha256 = ['abc']", "is not a SHA-256 pin"),
        ("pin_sha256 = []", "empty list"),
        ("client_certificate = { chain = 'c.pem' }", "needs both"),
        ("client_certificate = { chain = 'c.pem', key = 'k.pem' }", "/nowhere/k.pem"),
        ("server_name = 'not a name'", "is not a server name"),
        ("pins = []", "unknown key `pins`"),
    ] {
        let (_, complaints) = compile(&tls(&format!("{danger}{lines}")));
        assert!(complaints.has_errors() && complaints.to_string().contains(want), "{lines}: {complaints}");
    }
}

#[test]
fn roots_pins_and_a_client_certificate_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("c.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("k.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    std::fs::File::create(folder.path().join("huge.pem")).unwrap().set_len(1 << 40).unwrap();
    assert!(
        std::process::Command::new("mkfifo").arg(folder.path().join("pipe.pem")).status().unwrap().success()
    );
    let text = "upstream = ['https://a.test', 'http://b']\n[upstream_tls]\nroots = 'c.pem'\n\
        client_certificate = { chain = 'c.pem', key = 'k.pem' }\nserver_name = 'origin.internal'\n\
        pin_sha256 = '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
    let (policy, complaints) = compile_in(folder.path(), text);
    assert!(complaints.is_empty(), "{complaints}");
    assert!(policy.members[0].1.is_some() && policy.members[1].1.is_none());
    for (file, why) in [("huge.pem", "larger than"), ("pipe.pem", "it is a pipe")] {
        for key in ["roots = 'c.pem'", "chain = 'c.pem'", "key = 'k.pem'"] {
            let written = text.replacen(key, &format!("{} = '{file}'", key.split(' ').next().unwrap()), 1);
            let (_, complaints) = compile_in(folder.path(), &written);
            assert!(complaints.to_string().contains(why), "{key}: {complaints}");
        }
    }
    let (_, complaints) = compile_in(folder.path(), &text.replace("roots = 'c.pem'", "roots = 'empty.pem'"));
    assert!(complaints.to_string().contains("holds no certificate"), "{complaints}");
}

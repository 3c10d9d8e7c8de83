//! Which files of a folder are certificates with their keys, judged by their names alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// More entries than these are not looked at: such a folder was not meant.
const MOST: usize = 20_000;

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Chain and key of each certificate, sorted by name. Both may be the same file.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Certificates, as it seems, beside which there is no key.
    pub keyless: Vec<PathBuf>,
}

/// Looks for pairs in `folder` and in the folders in it, one level deep. Names that begin with a dot are passed by:
/// drafts, and the machinery of Kubernetes' mounted secrets.
///
/// # Errors
/// When the folder cannot be read, or holds more than twenty thousand entries. A folder inside of it that cannot be
/// read is an error, too: a site must not lose its certificate without a word.
pub fn look(folder: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let (names, folders) = list(folder)?;
    pair(folder, &names, &mut found);
    for inner in folders {
        let inner = folder.join(inner);
        pair(&inner, &list(&inner)?.0, &mut found);
    }
    Ok(found)
}

/// The names of files and of folders, sorted. Links are what they lead to.
fn list(folder: &Path) -> io::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for (count, entry) in fs::read_dir(folder)?.enumerate() {
        if count >= MOST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it holds more than {MOST} entries"),
            ));
        }
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        // What has just been removed is not there.
        match fs::metadata(folder.join(&name)) {
            Ok(metadata) if metadata.is_dir() => drop(folders.insert(name)),
            Ok(_) => drop(files.insert(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok((files, folders))
}

/// Finds the pairs among the files of one folder: certbot's names, then `NAME.pem` or `NAME.crt` with `NAME.key`, then
/// a `.pem` that holds both.
fn pair(folder: &Path, names: &BTreeSet<String>, found: &mut Found) {
    if names.contains("fullchain.pem") && names.contains("privkey.pem") {
        found.pairs.push((folder.join("fullchain.pem"), folder.join("privkey.pem")));
        return;
    }
    let mut done = BTreeSet::new();
    for name in names {
        let Some((stem, "pem" | "crt")) = name.rsplit_once('.') else { continue };
        // `www.crt` and `www.pem` are the same certificate in two spellings; the first is taken.
        if !done.insert(stem) {
            continue;
        }
        let (chain, key) = (folder.join(name), format!("{stem}.key"));
        if names.contains(&key) {
            found.pairs.push((chain, folder.join(key)));
        } else if holds_key(&chain) {
            found.pairs.push((chain.clone(), chain));
        } else {
            found.keyless.push(chain);
        }
    }
}

fn holds_key(path: &Path) -> bool {
    use super::pem::{Content, contents};
    let text = crate::config::file::text(path, 1 << 20).unwrap_or_default();
    let contents = contents(text.as_bytes());
    contents.contains(&Content::Key) || contents.contains(&Content::EncryptedKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_layouts_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["b.pem", "b.key", "a.crt", "a.key", "ca.pem", "notes.txt", ".draft.pem", ".draft.key"] {
            put(name, "x");
        }
        put("both.pem", "-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n");
        for name in ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"] {
            put(&format!("live/{name}"), "x");
        }
        put("secret/tls.crt", "x");
        put("secret/tls.key", "x");
        put("..data/tls.crt", "x");
        let found = look(folder.path()).unwrap();
        let name = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
        let pairs: Vec<_> =
            found.pairs.iter().map(|(chain, key)| [name(chain), name(key)].join(" ")).collect();
        let wanted = [
            "a.crt a.key",
            "b.pem b.key",
            "both.pem both.pem",
            "live/fullchain.pem live/privkey.pem",
            "secret/tls.crt secret/tls.key",
        ];
        assert_eq!(pairs, wanted);
        assert_eq!(found.keyless.iter().map(|path| name(path)).collect::<Vec<_>>(), ["ca.pem"]);
        assert!(look(&folder.path().join("nowhere")).is_err());
    }
}

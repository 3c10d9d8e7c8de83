//! Which process holds a port, as far as this process may see it. Best effort: only the sentence of a
//! bind error depends on it.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process that listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    name: String,
    process: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.process)
    }
}

/// The process that listens on `port`, on whichever address. `None` if there is none, or if it belongs
/// to somebody whose files this process may not look at.
pub(super) fn of_port(port: u16) -> Option<Holder> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(text) = fs::read_to_string(table) {
            sockets.extend(listening_inodes(&text, port).map(|inode| format!("socket:[{inode}]")));
        }
    }
    if sockets.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        holds_any(&entry.path(), &sockets).then(|| Holder { name: name(&entry.path()), process })
    })
}

/// The inodes of sockets in state LISTEN (0A) on `port`, from the text of `/proc/net/tcp` or `tcp6`
/// (proc(5)): the second column is `ADDRESS:PORT` in hexadecimal, the fourth the state, the tenth the
/// inode.
fn listening_inodes(table: &str, port: u16) -> impl Iterator<Item = &str> {
    table.lines().skip(1).filter_map(move |line| {
        let mut columns = line.split_ascii_whitespace();
        let (_, local) = columns.nth(1)?.rsplit_once(':')?;
        let listens = columns.nth(1)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
        let inode = columns.nth(5)?;
        listens.then_some(inode)
    })
}

fn holds_any(process: &Path, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|target| target.to_str().is_some_and(|target| sockets.iter().any(|s| s == target)))
    })
}

fn name(process: &Path) -> String {
    let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
    // A process may call itself anything: nothing but printable characters reaches the terminal.
    comm.trim_end().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";

    #[test]
    fn only_listeners_on_the_port_count() {
        assert_eq!(listening_inodes(TABLE, 8080).collect::<Vec<_>>(), ["4711"]);
        assert_eq!(listening_inodes(TABLE, 80).collect::<Vec<_>>(), ["4713"]);
        assert_eq!(listening_inodes(TABLE, 443).count(), 0);
        assert_eq!(listening_inodes("sl\nnonsense\n\n a b:c d 0A", 80).count(), 0);
    }

    #[test]
    fn this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_port(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.process, std::process::id());
        assert!(!holder.name.is_empty());
    }
}

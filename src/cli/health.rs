//! `ravelin health`: asks a running Ravelin whether it is ready, for container health checks.
//!
//! One plain HTTP request with nothing but the standard library, so that an image needs no curl.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ask::ask;
use crate::admin::settings::Address;
use crate::clock;
use crate::config::{self, Admin};

/// As much of an answer as is read.
const ANSWER_MAX: usize = 4 << 10;
/// An hour is as good as for ever, and no sum of times can overflow.
const TIMEOUT_MAX: u64 = 3_600;
/// Where the documentation puts the admin listener.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9145);

/// Where to ask.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The admin listener, as in `[admin] listen`: the first, if there are several. Goes before `--config`;
    /// 127.0.0.1:9145 without both.
    #[arg(long, env = "RAVELIN_ADMIN", value_name = "ADDRESS", value_delimiter = ',')]
    admin: Vec<Address>,

    /// The configuration file whose `[admin] listen` is asked.
    #[arg(long, short, env = "RAVELIN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How many seconds to wait for the whole answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX))]
    timeout: u64,
}

/// Exit code 0 and `ready`, or 1 and why not.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let deadline = clock::now() + Duration::from_secs(arguments.timeout);
    let admin = match admin(arguments) {
        Ok(admin) => admin,
        Err(why) => return super::complain(&why),
    };
    match ask(&admin, "GET", "/-/readyz", ANSWER_MAX, deadline) {
        Ok(answer) if answer.status == 200 => {
            say!("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => super::complain(&format!("not ready: {}", answer.sentence())),
        Err(error) => super::complain(&format!("cannot ask {admin}: {error}")),
    }
}

/// Who is asked.
fn admin(arguments: &Arguments) -> Result<Address, String> {
    match (arguments.admin.first(), &arguments.config) {
        (Some(admin), _) => Ok(admin.clone()),
        (None, Some(file)) => written(file),
        (None, None) => Ok(Address::Tcp(USUAL)),
    }
}

/// The admin listener of a configuration. Whether the rest of it is usable does not matter here.
fn written(file: &Path) -> Result<Address, String> {
    let nowhere = || {
        format!(
            "{} opens no admin listener, so nobody answers: add `[admin]` with e.g. `listen = \"{USUAL}\"`",
            file.display()
        )
    };
    match config::admin(file) {
        Admin::At(addresses) => addresses.into_iter().next().ok_or_else(nowhere),
        Admin::Nowhere => Err(nowhere()),
        Admin::Unclear(complaints) => Err(complaints.to_string().trim_end().to_owned()),
    }
}

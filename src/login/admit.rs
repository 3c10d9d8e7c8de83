//! Whether a try to log in may go on: asked when all of it was seen, and before its last piece has left.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::attempt::{Attempt, Initiator, Kind};
use super::settle::{jail, user_id};
use crate::bans::{self, Culprit, Full, Jail, Ledger, Memory, Meters, UnderWay, Who, rate};
use crate::clock;
use crate::config::units::{Draw, Mode};
use crate::gate::is_enforced;
use crate::refusal::{Reason, Refusal};
use crate::site::Area;

/// When a client may come again whose other tries have no outcome yet: logins take less.
const SOON: Duration = Duration::from_secs(1);

/// All that the decision needs, for as long as the body takes.
#[derive(Debug)]
pub struct Admission {
    /// Who failed, who is locked out, and whose tries are under way.
    pub ledger: Arc<Ledger>,
    /// Where every client stands with the limits.
    pub meters: Arc<Meters>,
    /// The jails and limits.
    pub bans: Arc<bans::Policy>,
    /// Who asks, and which site.
    pub who: Who,
    /// What part of TYPO3 is asked.
    pub area: Area,
    /// The method.
    pub method: Method,
    /// The normalised path.
    pub path: Box<str>,
    /// The modes of the rules `ban` and `rate` here.
    pub modes: (Mode, Mode),
    /// The client's number among a hundred.
    pub draw: Draw,
}

/// What goes with a try that may go on.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Its places among those whose outcome is not known.
    pub under_way: Vec<UnderWay>,
    /// What would have refused it.
    pub would_block: Vec<Refusal>,
}

impl Admission {
    /// Decides about a request that is all of these tries, or that may be another one (`doubtful`).
    ///
    /// # Errors
    /// When a rule that is enforced says no.
    pub fn check(&self, attempts: &[Attempt], doubtful: bool) -> Result<Admitted, Refusal> {
        let mut admitted = Admitted::default();
        if attempts.is_empty() {
            return if doubtful { self.banned_since(&mut admitted).map(|()| admitted) } else { Ok(admitted) };
        }
        match self.decide(attempts, &mut admitted) {
            Ok(()) => Ok(admitted),
            Err(refusal) => {
                admitted.under_way.into_iter().for_each(UnderWay::give_back);
                Err(refusal)
            }
        }
    }

    fn decide(&self, attempts: &[Attempt], admitted: &mut Admitted) -> Result<(), Refusal> {
        self.banned_since(admitted)?;
        if attempts.iter().any(|attempt| attempt.initiator == Initiator::CrossSite) {
            let (Who { client, site, .. }, now) = (self.who, clock::millis());
            if let Some((mode, refusal)) = bans::check_cross_site(&self.bans, &self.ledger, client, site, now)
            {
                self.gate(self.modes.0.min(mode), refusal, admitted)?;
            }
        }
        if attempts.iter().any(counts_for_network) {
            let (Who { addr, site, .. }, now) = (self.who, clock::millis());
            if let Some((mode, refusal)) = bans::check_network(&self.bans, &self.ledger, addr, site, now) {
                self.gate(self.modes.0.min(mode), refusal, admitted)?;
            }
        }
        for user in attempts.iter().filter_map(|attempt| attempt.user.as_deref()) {
            let (user, site, now) = (user_id(user), self.who.site, clock::millis());
            if let Some((mode, refusal)) = bans::check_user(&self.bans, &self.ledger, user, site, now) {
                self.gate(self.modes.0.min(mode), refusal, admitted)?;
            }
        }
        if attempts.iter().all(|attempt| attempt.initiator == Initiator::Callback) {
            return Ok(());
        }
        self.too_often(admitted)?;
        self.begin(attempts, admitted)
    }

    /// The ban that was made while the body came, or that stood before and spares what else is asked from this address.
    fn banned_since(&self, admitted: &mut Admitted) -> Result<(), Refusal> {
        let (now, instant) = (clock::millis(), clock::now());
        let memory = Memory { ledger: &self.ledger, meters: &self.meters, now, instant };
        match bans::check_try(&self.bans, &memory, &self.who) {
            Some((mode, refusal, true)) => self.gate(self.modes.0.min(mode), refusal, admitted),
            // What is only reported was reported at the beginning.
            Some((mode, refusal, _)) if is_enforced(self.draw, self.modes.0.min(mode)) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// The limits on logins, where the path did not tell that this is one.
    fn too_often(&self, admitted: &mut Admitted) -> Result<(), Refusal> {
        let asked =
            rate::Asked { site: self.who.site, area: self.area, method: &self.method, path: &self.path };
        let counts = |rate: &&rate::Rate| self.modes.1.min(rate.mode) != Mode::Off && rate.counts_try(&asked);
        for rate in self.bans.rates.iter().filter(counts) {
            if let Some(wait) = rate.ask(&self.meters, self.who.client, &asked, clock::now()) {
                self.gate(self.modes.1.min(rate.mode), rate.refusal(wait), admitted)?;
            }
        }
        Ok(())
    }

    /// Takes a place in each of the jails that the tries may be counted in.
    fn begin(&self, attempts: &[Attempt], admitted: &mut Admitted) -> Result<(), Refusal> {
        let mut jails: Vec<Jail> = Vec::new();
        for attempt in attempts.iter().filter(|attempt| takes_a_place(attempt)) {
            let user = attempt.user.as_deref().map(user_id);
            let own = jail(self.bans.login(), attempt.kind, attempt.initiator);
            let network = self.bans.network(self.who.addr).filter(|_| counts_for_network(attempt));
            let network = network.map(|(jail, network)| (jail.clone(), network));
            for (jail, client) in [Some((own, self.who.client)), network].into_iter().flatten() {
                if jails.iter().all(|other| other.name != jail.name) {
                    let culprit = self.bans.culprit(self.who.addr, client, self.who.site, user);
                    self.take(&jail, &culprit, admitted)?;
                    jails.push(jail);
                }
            }
        }
        Ok(())
    }

    fn take(&self, jail: &Jail, culprit: &Culprit, admitted: &mut Admitted) -> Result<(), Refusal> {
        match self.ledger.begin(jail, culprit, clock::millis()) {
            Ok(under_way) => admitted.under_way.push(under_way),
            Err(full) => {
                let mode = self.modes.0.min(self.bans.mode_of(&jail.name));
                self.gate(mode, refusal(full, jail, culprit.client.addr()), admitted)?;
            }
        }
        Ok(())
    }

    fn gate(&self, mode: Mode, refusal: Refusal, admitted: &mut Admitted) -> Result<(), Refusal> {
        match mode.of(self.draw) {
            Mode::Off => {}
            Mode::Report => admitted.would_block.push(refusal),
            Mode::Enforce | Mode::Share(_) => return Err(refusal),
        }
        Ok(())
    }
}

/// What pages of other sites have browsers send says nothing of their networks.
fn counts_for_network(attempt: &Attempt) -> bool {
    attempt.kind.is_guess() && attempt.initiator == Initiator::Own
}

/// Webhooks come in bursts, and nobody guesses their secrets; what an identity provider sends holds none.
fn takes_a_place(attempt: &Attempt) -> bool {
    attempt.kind != Kind::Reaction && attempt.initiator != Initiator::Callback
}

fn refusal(full: Full, jail: &Jail, client: IpAddr) -> Refusal {
    let Full { failures, under_way, most } = full;
    let detail = format!(
        "{client} by jail `{}` ({}): {under_way} tries under way, {failures} failures, {most} make a ban",
        jail.name, jail.place
    );
    Refusal::new(Reason::LoginRateLimited, detail).retry_after(SOON)
}

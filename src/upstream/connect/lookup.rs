//! Where a name leads, asked again every few seconds and remembered when nobody answers.
//!
//! One question per name is under way at a time, whoever waits for it: a resolver that hangs holds one
//! thread of the runtime's blocking pool, not one for each connection. Nobody waits long for an answer to a
//! question that was answered before.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::clock;

/// How long an answer holds. The system's resolver does not say how long the name server meant it to, and
/// containers move; one question in five seconds is nothing to a resolver.
const HOLDS: Duration = Duration::from_secs(5);
/// How long to wait for a newer answer where there is an older one.
const PATIENCE: Duration = Duration::from_millis(200);
/// A question that was put longer ago than any resolver tries is not waited for any more.
const GIVEN_UP: Duration = Duration::from_mins(1);

/// The addresses of a name, or why there are none.
type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type Question = Shared<Pin<Box<dyn Future<Output = Answer> + Send>>>;
type Ask = dyn Fn(&str) -> Question + Send + Sync;

/// What is known of names. They come from configurations, so there are few.
pub(super) struct Names {
    known: Mutex<HashMap<Box<str>, Arc<Name>>>,
    ask: Box<Ask>,
}

#[derive(Debug, Default)]
struct Name(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The last good answer.
    addresses: Option<Arc<[IpAddr]>>,
    /// Until when it is used without a question.
    until: Option<Instant>,
    /// The question under way, and since when.
    question: Option<(Question, Instant)>,
    /// Whether the last question had no answer.
    failing: bool,
}

/// What to do for one caller.
enum Step {
    Use(Arc<[IpAddr]>),
    Ask { question: Question, since: Instant, last: Option<Arc<[IpAddr]>>, patience: Duration },
}

impl Names {
    /// Nothing known yet; the system's resolver is asked.
    pub(super) fn of_system() -> Self {
        Self::asking(Box::new(|host| {
            let host = host.to_owned();
            async move { look_up(&host).await }.boxed().shared()
        }))
    }

    fn asking(ask: Box<Ask>) -> Self {
        Self { known: Mutex::default(), ask }
    }

    /// The addresses of `host`, at most [`HOLDS`] old if the resolver answers; else the last good ones.
    ///
    /// # Errors
    /// When there never were any.
    pub(super) async fn addresses(&self, host: &str) -> Answer {
        let name = self.name(host);
        // Twice: an answer that came while nobody asked for it may be old by now.
        for last_round in [false, true] {
            let step = name.lock().step(clock::now(), || (self.ask)(host));
            let (question, since, last, patience) = match step {
                Step::Use(addresses) => return Ok(addresses),
                Step::Ask { question, since, last, patience } => (question, since, last, patience),
            };
            let answer = match &last {
                None => question.clone().await,
                Some(last) => match timeout(patience, question.clone()).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(Arc::clone(last)),
                },
            };
            let now = clock::now();
            name.lock().settle(host, &question, since, now, &answer);
            let is_old = now.saturating_duration_since(since) >= HOLDS;
            if last.is_none() || last_round || !is_old {
                return answer.or_else(|error| last.ok_or(error));
            }
        }
        Err(Arc::new(io::ErrorKind::TimedOut.into()))
    }

    /// Where `host` leads as far as is known by now, without waiting: an answer that is old is asked for anew, and
    /// found when somebody looks again. Nothing while the resolver does not answer.
    pub(super) fn glance(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let name = self.name(host);
        let step = name.lock().step(clock::now(), || (self.ask)(host));
        match step {
            Step::Use(addresses) => Some(addresses),
            Step::Ask { question, since, .. } => {
                // Whoever polls it puts it; it then goes on by itself.
                let answer = question.clone().now_or_never()?;
                name.lock().settle(host, &question, since, clock::now(), &answer);
                answer.ok()
            }
        }
    }

    fn name(&self, host: &str) -> Arc<Name> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(host) {
            return Arc::clone(name);
        }
        Arc::clone(known.entry(host.into()).or_default())
    }
}

impl Name {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn step(&mut self, now: Instant, ask: impl FnOnce() -> Question) -> Step {
        if let Some(addresses) = &self.addresses
            && self.until.is_some_and(|until| now < until)
        {
            return Step::Use(Arc::clone(addresses));
        }
        let under_way = self.question.take().filter(|(_, since)| now.duration_since(*since) < GIVEN_UP);
        let (question, since) = under_way.unwrap_or_else(|| (ask(), now));
        self.question = Some((question.clone(), since));
        let patience = if self.failing { Duration::ZERO } else { PATIENCE };
        let patience = (since + patience).saturating_duration_since(now);
        Step::Ask { question, since, last: self.addresses.clone(), patience }
    }

    /// Takes an answer in; all who waited for it come with it, the first one counts.
    fn settle(&mut self, host: &str, question: &Question, since: Instant, now: Instant, answer: &Answer) {
        if !self.question.as_ref().is_some_and(|(current, _)| current.ptr_eq(question)) {
            return;
        }
        self.question = None;
        match answer {
            Ok(addresses) => {
                if self.failing {
                    tracing::info!(host, "the name of an origin is found again");
                }
                self.failing = false;
                self.until = Some(since + HOLDS);
                self.addresses = Some(Arc::clone(addresses));
            }
            Err(error) => {
                if !self.failing && self.addresses.is_some() {
                    tracing::warn!(host, %error, "the name of an origin is not found; its last addresses stay");
                }
                self.failing = true;
                self.until = Some(now + HOLDS);
            }
        }
    }
}

async fn look_up(host: &str) -> Answer {
    let found = lookup_host((host, 0)).await?;
    let mut addresses: Vec<IpAddr> = found.map(|address: SocketAddr| address.ip()).collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(Arc::new(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses.into())
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("known", &self.known).finish_non_exhaustive()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("addresses", &self.addresses)
            .field("failing", &self.failing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const HOST: &str = "origin.test";

    fn nothing() -> Answer {
        Err(Arc::new(io::Error::other("no such host")))
    }

    /// What `names` say to one caller.
    async fn ask(names: &Names) -> Result<Arc<[IpAddr]>, String> {
        names.addresses(HOST).await.map_err(|error| error.to_string())
    }

    /// A resolver that answers what it is told, once it is let.
    struct Resolver {
        asked: Arc<AtomicUsize>,
        says: Arc<Mutex<Answer>>,
        turns: Arc<Semaphore>,
    }

    fn address(last: u8) -> Arc<[IpAddr]> {
        Arc::from([IpAddr::from([192, 0, 2, last])])
    }

    impl Resolver {
        fn new(says: Answer, turns: usize) -> (Self, Arc<Names>) {
            let it = Self {
                asked: Arc::default(),
                says: Arc::new(Mutex::new(says)),
                turns: Arc::new(Semaphore::new(turns)),
            };
            let (asked, says, turns) = (Arc::clone(&it.asked), Arc::clone(&it.says), Arc::clone(&it.turns));
            let names = Names::asking(Box::new(move |host| {
                assert_eq!(host, HOST);
                asked.fetch_add(1, Ordering::Relaxed);
                let (says, turns) = (Arc::clone(&says), Arc::clone(&turns));
                async move {
                    turns.acquire().await.unwrap().forget();
                    says.lock().unwrap().clone()
                }
                .boxed()
                .shared()
            }));
            (it, Arc::new(names))
        }

        fn says(&self, answer: Answer) {
            *self.says.lock().unwrap() = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    /// As if `time` had passed for what is known.
    fn pass(names: &Names, time: Duration) {
        let name = names.name(HOST);
        let mut known = name.lock();
        known.until = known.until.map(|until| until.checked_sub(time).unwrap());
        if let Some((_, since)) = &mut known.question {
            *since = since.checked_sub(time).unwrap();
        }
    }

    #[tokio::test]
    async fn an_answer_holds_for_a_while_and_then_a_new_one_is_followed() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 100);
        for _ in 0..10 {
            assert_eq!(ask(&names).await, Ok(address(1)));
        }
        resolver.says(Ok(address(2)));
        assert_eq!(ask(&names).await, Ok(address(1)), "not asked yet");
        assert_eq!(resolver.asked(), 1);
        pass(&names, HOLDS);
        assert_eq!(ask(&names).await, Ok(address(2)));
        assert_eq!(resolver.asked(), 2);
    }

    #[tokio::test]
    async fn the_last_good_answer_stays_while_there_is_none() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 100);
        assert_eq!(ask(&names).await, Ok(address(1)));
        resolver.says(nothing());
        for _ in 0..3 {
            pass(&names, HOLDS);
            assert_eq!(ask(&names).await, Ok(address(1)));
        }
        let asked = resolver.asked();
        assert_eq!(ask(&names).await, Ok(address(1)));
        assert_eq!(resolver.asked(), asked, "a failure holds for a while too");
        resolver.says(Ok(address(2)));
        pass(&names, HOLDS);
        assert_eq!(ask(&names).await, Ok(address(2)), "and is over when there is an answer");
    }

    #[tokio::test]
    async fn a_name_that_was_never_found_is_an_error_and_asked_for_each_time() {
        let (resolver, names) = Resolver::new(nothing(), 100);
        assert_eq!(ask(&names).await, Err("no such host".into()));
        resolver.says(Ok(address(1)));
        assert_eq!(ask(&names).await, Ok(address(1)));
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_and_not_waited_for() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 1);
        assert_eq!(ask(&names).await, Ok(address(1)));
        resolver.says(Ok(address(2)));
        pass(&names, HOLDS);
        // It hangs: whoever asks gets the last good answer.
        for _ in 0..20 {
            assert_eq!(ask(&names).await, Ok(address(1)));
        }
        assert_eq!(resolver.asked(), 2, "one question under way");
        // It comes back.
        resolver.turns.add_permits(10);
        assert_eq!(ask(&names).await, Ok(address(2)));
        assert_eq!(resolver.asked(), 2);
    }

    #[tokio::test]
    async fn an_old_answer_to_an_old_question_is_not_taken_for_a_new_one() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 1);
        assert_eq!(ask(&names).await, Ok(address(1)));
        pass(&names, HOLDS);
        assert_eq!(ask(&names).await, Ok(address(1)), "it hangs");
        resolver.says(Ok(address(2)));
        resolver.turns.add_permits(10);
        pass(&names, HOLDS);
        assert_eq!(ask(&names).await, Ok(address(2)));
        assert_eq!(resolver.asked(), 3, "asked anew, because the question was old");
        assert_eq!(ask(&names).await, Ok(address(2)));
        assert_eq!(resolver.asked(), 3);
    }

    #[tokio::test]
    async fn a_glance_waits_for_nobody_and_sees_what_came_meanwhile() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 0);
        assert_eq!(names.glance(HOST), None, "it is being asked");
        assert_eq!(names.glance(HOST), None);
        resolver.turns.add_permits(1);
        tokio::task::yield_now().await;
        assert_eq!(names.glance(HOST), Some(address(1)));
        assert_eq!((names.glance(HOST), resolver.asked()), (Some(address(1)), 1));
        // An old answer is asked for anew, and stays out of it while there is no new one.
        resolver.says(Ok(address(2)));
        pass(&names, HOLDS);
        assert_eq!(names.glance(HOST), None);
        resolver.turns.add_permits(1);
        tokio::task::yield_now().await;
        assert_eq!((names.glance(HOST), resolver.asked()), (Some(address(2)), 2));
        // A resolver that fails says nothing of where a name leads; who connects gets the last good answer.
        resolver.says(nothing());
        resolver.turns.add_permits(100);
        pass(&names, HOLDS);
        assert_eq!(names.glance(HOST), None);
        assert_eq!(ask(&names).await, Ok(address(2)));
    }

    #[tokio::test]
    async fn many_at_once_put_one_question() {
        let (resolver, names) = Resolver::new(Ok(address(1)), 0);
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let names = Arc::clone(&names);
                tokio::spawn(async move { ask(&names).await })
            })
            .collect();
        tokio::task::yield_now().await;
        // Whoever put it hangs up; the others get the answer all the same.
        callers[0].abort();
        resolver.turns.add_permits(1);
        for caller in callers.into_iter().skip(1) {
            assert_eq!(caller.await.unwrap(), Ok(address(1)));
        }
        assert_eq!(resolver.asked(), 1);
    }

    #[tokio::test]
    async fn the_system_knows_this_machine_and_no_invalid_name() {
        let names = Names::of_system();
        assert!(names.addresses("localhost").await.unwrap().iter().any(IpAddr::is_loopback));
        assert!(names.addresses("no-such-host.invalid").await.is_err());
    }
}

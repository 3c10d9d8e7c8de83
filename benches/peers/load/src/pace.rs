//! Requests at a fixed average rate, whether or not the proxy keeps up: latency counts from the moment a
//! request was due, so that a slow answer cannot hide the ones that had to wait behind it.
//!
//! Arrivals are random (exponential gaps) from a fixed seed: the same moments for every proxy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::Fault;
use crate::args::Args;
use crate::client::{Client, Room, Target};
use crate::report::Report;

/// Requests that are due and not yet sent.
#[derive(Default)]
struct Due {
    times: RefCell<VecDeque<Instant>>,
    more: Notify,
}

/// `pace --to A --rate 3000 --connections 64 --seconds S --warm 0.5`
pub async fn run(args: &Args) -> Result<(), Fault> {
    let target = Target::read(args)?;
    let request: Rc<[u8]> = target.head("GET", &args.get("path", "/1k".to_owned())?, "").into();
    let due = Rc::new(Due::default());
    let report = Report::shared();
    let warm = Instant::now() + Duration::from_secs_f64(args.get("warm", 0.5)?);
    for _ in 0..args.get("connections", 64)? {
        let client = Client::open(&target).await?;
        tokio::task::spawn_local(sender(
            target.clone(),
            client,
            request.clone(),
            due.clone(),
            warm,
            report.clone(),
        ));
    }
    arrivals(args.get("rate", 3000.0)?, Instant::now() + args.seconds()?, &due).await?;
    tokio::time::sleep(Duration::from_millis(200)).await; // the last answers
    let unsent = due.times.borrow().len();
    if unsent > 0 {
        report.borrow_mut().fault(&io::Error::other(format!("{unsent} requests were due and never sent")));
    }
    println!("{}", report.borrow_mut().line());
    Ok(())
}

/// Makes requests due until the time is up.
async fn arrivals(rate: f64, until: Instant, due: &Due) -> io::Result<()> {
    #[expect(deprecated, reason = "an OwnedFd keeps the promise that the safe `new` could not check")]
    let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?)?;
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut next = Instant::now();
    while next < until {
        next += Duration::from_secs_f64(chance.gap() / rate);
        sleep_until(&timer, next).await?;
        due.times.borrow_mut().push_back(next);
        due.more.notify_one();
    }
    Ok(())
}

/// Sleeps with the kernel's high-resolution timer.
async fn sleep_until(timer: &AsyncFd<OwnedFd>, when: Instant) -> io::Result<()> {
    let left = when.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(());
    }
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) },
    };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        if ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?)).is_ok() {
            return Ok(());
        }
    }
}

async fn sender(
    target: Target,
    mut client: Client,
    request: Rc<[u8]>,
    due: Rc<Due>,
    warm: Instant,
    report: Rc<RefCell<Report>>,
) {
    let mut room = Room::default();
    loop {
        let next = due.times.borrow_mut().pop_front();
        let Some(when) = next else {
            due.more.notified().await;
            continue;
        };
        match exchange(&mut client, &request, &mut room).await {
            Ok((status, bytes)) => {
                let mut report = report.borrow_mut();
                report.answer(status, bytes);
                if when >= warm {
                    report.latencies.push(u64::try_from(when.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            }
            Err(fault) => {
                report.borrow_mut().fault(&fault);
                match Client::open(&target).await {
                    Ok(fresh) => client = fresh,
                    Err(fault) => return report.borrow_mut().fault(&fault),
                }
            }
        }
    }
}

async fn exchange(client: &mut Client, request: &[u8], room: &mut Room) -> io::Result<(u16, u64)> {
    client.send(request).await?;
    client.answer(room).await
}

/// A small generator of chance (xorshift64*), the same in every run.
struct Chance(u64);

impl Chance {
    /// An exponentially distributed gap with mean 1.
    fn gap(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = (bits as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

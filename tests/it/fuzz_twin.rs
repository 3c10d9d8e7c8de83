//! The fuzz bodies on the stable toolchain: a fixed number of inputs from a fixed seed, grown from samples by
//! the mutations that a fuzzer makes. The coverage-guided twin is `tests/fuzz`.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use crate::harness::test_file;

/// Inputs for each body (fewer for dear ones), if `RAVELIN_FUZZ_ROUNDS` does not say more; a second or two in a debug
/// build.
const ROUNDS: usize = 20_000;

fn rounds() -> usize {
    std::env::var("RAVELIN_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of inputs"))
}

/// Well-formed and broken samples for all bodies: what one decoder accepts, another must survive.
const SAMPLES: [&[u8]; 34] = [
    b"/a/./b/../c//d/%2e%2e/%41?x",
    b"/typo3/%6cogin;x=1/..;/",
    b"/%C3%A4/%zz/%2f%5c%00\\",
    b"www.Example.org.:8443",
    b"[2001:db8::1]:443",
    b"user@host:1/path,b",
    b"xn--bcher-kva.example",
    b"203.0.113.9, 10.0.0.1, 127.0.0.1",
    b"for=\"[2001:db8::17]:4711\";proto=https, for=192.0.2.60;by=_x, for=unknown",
    b"::ffff:203.0.113.9:80, [::1], 1.2.3.4:99999",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.0 304 \r\nTransfer-Encoding: gzip, chunked\r\nX: \x01\r\n y\r\n\r\n",
    b"5;ext=\"x\"\r\nhello\r\n0\r\nX: y\r\n\r\nrest",
    b"ffffffffffffffff\r\n",
    b"3\nabc\r\n0\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x05\x01\x00",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    b"*1\r\n$4\r\nPING\r\n",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"PHPSESSID=abc; Path=/; HttpOnly;secure ; SameSite = Lax",
    b"a=b;expires=Sun, 22 Nov 2037 13:39:47 GMT; Domain=.example.org;;=;Secure=1",
    b" __Host-x = \"y;z\" ;sameSITE",
    b"login.status=login&%20user%6eame=j%2Edoe&install[action]=login&logintype=login&user=x&action=verify",
    b"----ab\r\nContent-Disposition: form-data; name=\"login_status\"\r\n\r\nlogin\r\n----ab--\r\n",
    b"x----ab\nC: y; na\r\nme='user\\name'\r\n\r\nj.doe\r\n----ab\r\nname=install[action]\n\nlogin",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 51221 443\r\nGET / HTTP/1.1\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xcb\0\x71\x09\x0a\0\0\x01\xc8\x15\x01\xbb\xea\0\x01\x01",
    b"tickets 1\n\0\0\0\0\0\0\0\x01iiiiiiiiiiiiiiiikkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\0\0\0\0\0\0\0\x02jjjjjjjjjjjjjjjjkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    b"",
];

/// xorshift64*: small, fast, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).expect("a small number");
        usize::try_from(self.roll() % limit).expect("a small number")
    }
}

/// One more input: a sample, or an earlier input, with a few changes.
fn grow(pool: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] =
        [b"..", b"%2e", b"%2F", b"//", b"\r\n", b"\n", b"\0", b":", b",", b"\"", b"0\r\n\r\n", b"\xc0\xaf"];
    let mut input = pool[dice.below(pool.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        match dice.below(6) {
            0 => input.insert(at, dice.roll().to_le_bytes()[0]),
            1 => input.truncate(at),
            2 if at < input.len() => input[at] = dice.roll().to_le_bytes()[0],
            3 if at < input.len() => drop(input.remove(at)),
            4 => input.splice(at..at, TOKENS[dice.below(TOKENS.len())].iter().copied()).for_each(drop),
            _ => {
                let other = &pool[dice.below(pool.len())];
                input.truncate(at);
                input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
            }
        }
    }
    input.truncate(1024);
    input
}

#[test]
fn no_decoder_breaks_its_promise() {
    for (name, body, cost) in bodies::ALL {
        let mut pool: Vec<Vec<u8>> = SAMPLES.iter().map(|sample| sample.to_vec()).collect();
        pool.extend(kept(name));
        for input in &pool {
            body(input);
        }
        let mut dice = Dice(0x5eed_0000_0000_0001);
        for round in 0..rounds() / cost {
            let input = grow(&pool, &mut dice);
            let outcome = std::panic::catch_unwind(|| body(&input));
            assert!(outcome.is_ok(), "{name}, round {round}: {:?}", input.escape_ascii().to_string());
            if dice.below(8) == 0 && pool.len() < 2000 {
                pool.push(input);
            }
        }
    }
}

/// Inputs that a fuzzer found worth keeping: `tests/fuzz/corpus/TARGET/*`.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = test_file("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let kept: Vec<Vec<u8>> = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(kept.len() >= 3, "{} holds {} inputs", folder.display(), kept.len());
    kept
}

#[test]
fn every_body_has_its_target() {
    for (name, ..) in bodies::ALL {
        let file = test_file("fuzz/fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains(&format!("bodies::{name}(")), "{} does not call its body", file.display());
    }
    let targets = std::fs::read_dir(test_file("fuzz/fuzz_targets")).unwrap().count();
    assert_eq!(targets, bodies::ALL.len(), "a target without a body, or the other way round");
}

//! Decodes the head of a request: one clear message, or a named fault.
//!
//! A head is read line by line, as the lines come: each byte is looked at once, and once more if its line
//! came in pieces. Nothing is copied; names become lower-case where they stand. A line is judged when its
//! end is there, so it never matters how the bytes were cut on their way.
//!
//! What is ambiguous is repaired in place while it is read, and the mode decides at the end whether the
//! repaired message is accepted: so every message is graded by its worst fault, not by its first.

use std::fmt;

use bytes::{Buf as _, BytesMut};
use http::{Method, Version};

use super::connection::tokens;
use super::framing::RequestFraming;
use super::grade::{Class, Fault, Mode};
use super::scan;

/// Room for so many lines is made at once: what browsers send, with a few to spare.
const USUAL_LINES: usize = 24;
/// The most digits of a `Content-Length`: below a petabyte, and sums with it cannot overflow.
const LENGTH_DIGITS: usize = 15;
/// The most bytes of a broken request line's method that are shown.
const METHOD_SHOWN: usize = 32;

/// The limits of a request head, each inclusive; altogether below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line, without its line end.
    pub request_line: usize,
    /// Field lines; what a folded line goes on with does not count anew.
    pub fields: usize,
    /// Bytes of all field lines, line ends included.
    pub fields_size: usize,
}

/// Reads request heads off one connection, one after the other.
///
/// Between two calls the caller may only append to `input`.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What the request line said, once it is complete.
    start: Option<Start>,
    /// The field lines so far.
    lines: Vec<Line>,
    filter: u64,
    /// The worst fault so far; the first of its class.
    worst: Option<Fault>,
    /// Where the line that is being read starts.
    at: usize,
    /// Where the field lines start.
    fields_at: usize,
    /// So far no line end was found behind `at`; 0 if nobody has looked.
    searched: usize,
    /// An empty line was passed over.
    empty_line: bool,
}

/// A request head, over the bytes that were received.
pub struct RequestHead {
    method: Method,
    version: Version,
    target: Span,
    bytes: BytesMut,
    lines: Vec<Line>,
    filter: u64,
    body: RequestFraming,
    persists: bool,
    expects_continue: bool,
    fault: Option<Fault>,
    is_refused: bool,
}

/// A request that was refused.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub fault: Fault,
    /// What could be read before the fault, for the log: the method is `-` and the target empty where not
    /// even that could be read.
    pub head: RequestHead,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct Start {
    method: Method,
    version: Version,
    target: Span,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    tag: u8,
}

/// What was read.
enum Step {
    /// A line of so many bytes.
    Line(usize),
    /// The empty line, of so many bytes: the head is complete.
    End(usize),
}

/// Why reading stopped.
enum Stop {
    /// The line is not complete.
    Cut,
    /// The line is broken; meaningful only if it is complete.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Decoder {
    /// Takes one request head off the front of `input` once it is complete (`Ok(None)`: more is needed).
    ///
    /// At most the limits and a few bytes are ever left in `input` with `Ok(None)`. After an error the
    /// connection cannot be read any further, and `input` is empty.
    pub fn decode(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
        mode: Mode,
    ) -> Result<Option<RequestHead>, Box<Broken>> {
        let end = match self.advance(input, limits) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => end,
            Err(fault) => return Err(Box::new(self.broken(fault, input, limits))),
        };
        let bytes = if end == input.len() { std::mem::take(input) } else { input.split_to(end) };
        let mut head = self.take(bytes);
        if let Err(fault) = head.settle() {
            head.fault = Some(fault);
        }
        match head.fault {
            Some(fault) if !mode.accepts(fault.class()) => {
                head.is_refused = true;
                Err(Box::new(Broken { fault, head }))
            }
            _ => Ok(Some(head)),
        }
    }

    /// The head will not be completed in time: what could be read of it.
    pub fn give_up(&mut self, input: &mut BytesMut, limits: &Limits) -> Broken {
        self.broken(Fault::TooSlow, input, limits)
    }

    /// Takes a head that is no longer needed apart: its memory serves the next one. Gives back the buffer,
    /// empty.
    pub fn reclaim(&mut self, head: RequestHead) -> BytesMut {
        let RequestHead { mut bytes, mut lines, .. } = head;
        if lines.capacity() > self.lines.capacity() && self.lines.is_empty() {
            lines.clear();
            self.lines = lines;
        }
        bytes.clear();
        bytes
    }

    /// Reads as many lines as there are; the length of the head if it is complete.
    fn advance(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<usize>, Fault> {
        loop {
            if self.searched > 0 && !self.has_line_end(input) {
                return self.wait(input, limits);
            }
            let step = if self.start.is_some() {
                self.field(input)
            } else if self.skips_empty_line(input)? {
                continue;
            } else {
                self.request_line(input)
            };
            match step {
                Ok(Step::Line(length)) => {
                    self.check_limits(length, limits)?;
                    self.at += length;
                    if self.fields_at == 0 {
                        self.fields_at = self.at;
                    }
                }
                Ok(Step::End(length)) => return Ok(Some(self.at + length)),
                Err(Stop::Cut) => return self.wait(input, limits),
                Err(Stop::Fault(fault)) => {
                    let Some(length) = line_length(input, self.at) else { return self.wait(input, limits) };
                    self.check_limits(length, limits)?;
                    return Err(fault);
                }
            }
        }
    }

    /// Whether the end of the line that was cut has come meanwhile.
    fn has_line_end(&mut self, input: &[u8]) -> bool {
        let fresh = input.get(self.searched..).unwrap_or_default();
        let found = memchr::memchr(b'\n', fresh).is_some();
        self.searched = if found { 0 } else { input.len() };
        found
    }

    /// The line is not complete: is there any use in waiting for more of it?
    fn wait(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Fault> {
        self.searched = input.len();
        if self.start.is_none() {
            // CR is there and LF is not.
            let over = input.len() >= limits.request_line.saturating_add(2);
            return if over { Err(Fault::RequestLineTooLong) } else { Ok(None) };
        }
        // The empty line may still come.
        let over = input.len() - self.fields_at.min(input.len()) > limits.fields_size.saturating_add(2);
        if over { Err(Fault::FieldsTooLarge) } else { Ok(None) }
    }

    /// Judges the size of a complete line; before any other fault of it, so that it does not matter whether
    /// it was complete at once.
    fn check_limits(&self, length: usize, limits: &Limits) -> Result<(), Fault> {
        if self.fields_at == 0 {
            // Two bytes are the line end; if it was one, the line may be one byte longer.
            return if length.saturating_sub(2) > limits.request_line {
                Err(Fault::RequestLineTooLong)
            } else {
                Ok(())
            };
        }
        if self.at + length - self.fields_at > limits.fields_size {
            return Err(Fault::FieldsTooLarge);
        }
        if self.lines.len() > limits.fields {
            return Err(Fault::TooManyFields);
        }
        Ok(())
    }
}

// One line after the other.
impl Decoder {
    /// Whether an empty line before the request line was passed over. RFC 9112 section 2.2 asks to ignore
    /// at least one; a second one is refused, since no client sends it.
    fn skips_empty_line(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let length = match input.as_ref() {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => return Ok(false),
        };
        if self.empty_line {
            return Err(Fault::EmptyLines);
        }
        if length == 1 {
            Fault::BareLineFeed.note(&mut self.worst);
        }
        self.empty_line = true;
        input.advance(length);
        Ok(true)
    }

    /// `method SP target SP version CRLF` (RFC 9112 section 3), single blanks.
    fn request_line(&mut self, line: &[u8]) -> Result<Step, Stop> {
        let method_end = scan::token(line);
        match line.get(method_end) {
            None => return Err(Stop::Cut),
            Some(b' ') if method_end > 0 => {}
            Some(_) => return Err(Fault::BadMethod.into()),
        }
        let target_at = method_end + 1;
        let (length, unescaped) = scan::target(line.get(target_at..).unwrap_or_default());
        let target_end = target_at + length;
        match line.get(target_end) {
            None => return Err(Stop::Cut),
            Some(b' ') if length > 0 => {}
            Some(b' ') => return Err(Fault::BadSpacing.into()),
            Some(b'\r') if line.get(target_end + 1) != Some(&b'\n') => {
                return Err(Fault::BareCarriageReturn.into());
            }
            Some(b'\r' | b'\n') => return Err(Fault::NoVersion.into()),
            Some(_) => return Err(Fault::BadTargetByte.into()),
        }
        let version_at = target_end + 1;
        let rest = line.get(version_at..).unwrap_or_default();
        let (version, length) = match rest.first_chunk() {
            Some(b"HTTP/1.1\r\n") => (Version::HTTP_11, 10),
            Some(b"HTTP/1.0\r\n") => (Version::HTTP_10, 10),
            _ => self.odd_version(rest)?,
        };
        let method = line.get(..method_end).unwrap_or_default();
        let method = Method::from_bytes(method).map_err(|_| Fault::BadMethod)?;
        check_form(&method, line.get(target_at..target_end).unwrap_or_default())?;
        if unescaped {
            let target = line.get(target_at..target_end).unwrap_or_default();
            str::from_utf8(target).map_err(|_| Fault::BadTargetByte)?;
            Fault::UnescapedTarget.note(&mut self.worst);
        }
        self.start = Some(Start { method, version, target: Span::new(target_at, target_end) });
        self.lines.reserve(USUAL_LINES);
        Ok(Step::Line(version_at + length))
    }

    /// What stands where one of the two usual versions and CR LF should stand, and its length.
    fn odd_version(&mut self, rest: &[u8]) -> Result<(Version, usize), Stop> {
        let feed = memchr::memchr(b'\n', rest).ok_or(Stop::Cut)?;
        let line = rest.get(..feed).unwrap_or_default();
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        let version = match text {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ if text.contains(&b'\r') => return Err(Fault::BareCarriageReturn.into()),
            _ if text.is_empty() || text.contains(&b' ') => return Err(Fault::BadSpacing.into()),
            _ => return Err(Fault::BadVersion.into()),
        };
        if text.len() == line.len() {
            Fault::BareLineFeed.note(&mut self.worst);
        }
        Ok((version, feed + 1))
    }

    /// `name ":" OWS value OWS CRLF` (RFC 9112 section 5), or the empty line.
    fn field(&mut self, input: &mut [u8]) -> Result<Step, Stop> {
        let line = input.get_mut(self.at..).unwrap_or_default();
        let name_end = scan::lower_token(line);
        let (name, rest) = line.split_at_checked(name_end).unwrap_or_default();
        let [b':', rest @ ..] = rest else { return self.odd_line(input, name_end) };
        if name.is_empty() {
            return Err(Fault::EmptyName.into());
        }
        if disguises_framing(name) {
            return Err(Fault::DisguisedFraming.into());
        }
        let tag = scan::tag(name);
        let value_at = name_end + 1 + blanks(rest);
        let end = value_at + scan::value(line.get(value_at..).unwrap_or_default());
        let found = match line.get(end..) {
            Some([b'\r', b'\n', ..]) => Value { end, next: end + 2, bare: false, controls: false },
            _ => value(line, end)?,
        };
        let value_end = trim_end(line, value_at, found.end);
        self.filter |= bit(tag);
        let at = self.at;
        let (name, value) = (Span::new(at, at + name_end), Span::new(at + value_at, at + value_end));
        self.lines.push(Line { name, value, tag });
        if found.bare || found.controls {
            self.note_value(&found, line.get_mut(value_at..value_end));
        }
        Ok(Step::Line(found.next))
    }

    /// Notes what is wrong with a value, and repairs it.
    fn note_value(&mut self, found: &Value, value: Option<&mut [u8]>) {
        if found.bare {
            Fault::BareLineFeed.note(&mut self.worst);
        }
        if found.controls {
            Fault::ControlByte.note(&mut self.worst);
            for byte in value.unwrap_or_default() {
                if scan::is_control(*byte) {
                    *byte = b' ';
                }
            }
        }
    }

    /// A line that does not start with a name and a colon.
    fn odd_line(&mut self, input: &mut [u8], name_end: usize) -> Result<Step, Stop> {
        let line = input.get(self.at..).unwrap_or_default();
        let rest = line.get(name_end..).unwrap_or_default();
        let fault = match rest {
            [] | [b'\r'] => return Err(Stop::Cut),
            [b'\r', b'\n', ..] if name_end == 0 => return Ok(Step::End(2)),
            [b'\n', ..] if name_end == 0 => {
                Fault::BareLineFeed.note(&mut self.worst);
                return Ok(Step::End(1));
            }
            [b' ' | b'\t', ..] if name_end == 0 => return self.folded(input),
            [b'\r', b'\n', ..] | [b'\n', ..] => Fault::NoColon,
            [b'\r', ..] => Fault::BareCarriageReturn,
            _ => {
                let feed = memchr::memchr(b'\n', rest).ok_or(Stop::Cut)?;
                let rest = rest.get(..feed).unwrap_or_default();
                match memchr::memchr(b':', rest) {
                    None => Fault::NoColon,
                    Some(colon) if colon == blanks(rest) => Fault::BlankBeforeColon,
                    Some(_) => Fault::BadName,
                }
            }
        };
        Err(fault.into())
    }

    /// A line that starts with a blank and goes on with the value of the line before; both become one.
    fn folded(&mut self, input: &mut [u8]) -> Result<Step, Stop> {
        let line = input.get(self.at..).unwrap_or_default();
        let start = blanks(line);
        let found = value(line, start)?;
        let end = trim_end(line, start, found.end);
        let Some(Line { name, value: before, .. }) = self.lines.last().copied() else {
            return Err(Fault::BlankBeforeFields.into());
        };
        let text = line.get(start..end).unwrap_or_default();
        if is_framing(name.of(input)) || text.split(|b| *b == b':').next().is_some_and(resembles_framing) {
            return Err(Fault::FoldedFraming.into());
        }
        Fault::Folded.note(&mut self.worst);
        if start < end {
            let joined = Span { start: before.start, end: Span::new(0, self.at + end).end };
            let gap = Span { start: before.end, end: Span::new(0, self.at + start).end };
            let joined = if before.is_empty() { Span { start: gap.end, ..joined } } else { joined };
            if let Some(gap) = input.get_mut(gap.range()) {
                gap.fill(b' ');
            }
            if let Some(last) = self.lines.last_mut() {
                last.value = joined;
            }
        }
        self.note_value(&found, input.get_mut(self.at + start..self.at + end));
        Ok(Step::Line(found.next))
    }

    /// The head over its bytes; the decoder is as new.
    fn take(&mut self, bytes: BytesMut) -> RequestHead {
        let done = std::mem::take(self);
        let start = done.start.unwrap_or_else(Start::unknown);
        RequestHead {
            method: start.method,
            version: start.version,
            target: start.target,
            bytes,
            lines: done.lines,
            filter: done.filter,
            body: RequestFraming::None,
            persists: false,
            expects_continue: false,
            fault: done.worst,
            is_refused: false,
        }
    }

    /// What could be read before the fault. What is left of the input cannot be read any more.
    fn broken(&mut self, fault: Fault, input: &mut BytesMut, limits: &Limits) -> Broken {
        if self.start.is_none() {
            self.start = Some(Start::guess(input.get(..limits.request_line).unwrap_or(input)));
        }
        let mut head = self.take(std::mem::take(input));
        head.fault = Some(fault);
        head.is_refused = true;
        Broken { fault, head }
    }
}

impl RequestHead {
    /// The method, any token; case matters (RFC 9110 section 9.1).
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// HTTP/1.0 or HTTP/1.1.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The target as it came: visible ASCII, one of the four forms, and the one that fits the method.
    #[must_use]
    pub fn target(&self) -> &str {
        text(self.target.of(&self.bytes))
    }

    /// Bytes of the target.
    #[must_use]
    pub fn target_len(&self) -> usize {
        self.target.of(&self.bytes).len()
    }

    /// The first value of `name`, which is written in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of `name`, which is written in lower case, in order.
    #[must_use]
    pub fn all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.named(name.as_bytes()).map(|line| line.value.of(&self.bytes))
    }

    /// Every field line: its name in lower case and its value without the blanks around it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines().map(|(name, value)| (text(name), value))
    }

    /// The same as [`RequestHead::iter`], with the names as bytes: cheaper where they are only copied.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name.of(&self.bytes), line.value.of(&self.bytes)))
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How the body ends. Exactly one answer, also where an ambiguous message was accepted.
    #[must_use]
    pub fn body(&self) -> RequestFraming {
        self.body
    }

    /// Whether the connection may carry another request, by version and `Connection` (RFC 9112 section
    /// 9.3); never after an ambiguous one.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// Whether the client waits for `100 Continue`: exactly that expectation, and HTTP/1.1 (RFC 9110
    /// section 10.1.1).
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Refuses it for what is wrong with the body that begins behind it.
    pub fn refuse(&mut self, fault: Fault) {
        fault.note(&mut self.fault);
        self.is_refused = true;
    }

    /// Whether its connection has refused it: its body was not read.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The worst fault, whether it was accepted or not.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The class of the message.
    #[must_use]
    pub fn class(&self) -> Class {
        self.fault.map_or(Class::Compliant, Fault::class)
    }

    fn named<'a>(&'a self, name: &[u8]) -> impl DoubleEndedIterator<Item = &'a Line> {
        let tag = scan::tag(name);
        let lines = if self.filter & bit(tag) == 0 { &[] } else { self.lines.as_slice() };
        lines.iter().filter(move |line| line.tag == tag && line.name.of(&self.bytes) == name)
    }
}

// What only the whole message shows.
impl RequestHead {
    fn settle(&mut self) -> Result<(), Fault> {
        self.check_hosts()?;
        self.settle_body()?;
        self.settle_connection();
        self.expects_continue = self.version == Version::HTTP_11 && {
            let mut expectations = self.all("expect");
            let only = expectations.next().filter(|_| expectations.next().is_none());
            only.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
        };
        Ok(())
    }

    /// RFC 9112 section 3.2: exactly one Host, which HTTP/1.0 may leave out.
    fn check_hosts(&mut self) -> Result<(), Fault> {
        let count = self.named(HOST).count();
        match count {
            0 if self.version == Version::HTTP_11 => return Err(Fault::NoHost),
            0 => Fault::NoHostInHttp10.note(&mut self.fault),
            1 => {}
            _ => return Err(Fault::RepeatedHost),
        }
        Ok(())
    }

    /// RFC 9112 section 6.3, with every doubt a fault.
    fn settle_body(&mut self) -> Result<(), Fault> {
        let length = self.settle_length()?;
        let chunked = self.chunked()?;
        let pointless = matches!(self.method, Method::GET | Method::HEAD);
        self.body = match (chunked, length) {
            (false, None) => return Ok(()),
            (true, Some(_)) => {
                Fault::LengthAndEncoding.note(&mut self.fault);
                self.drop_lengths_behind(0);
                RequestFraming::Chunked
            }
            (true, None) => RequestFraming::Chunked,
            (false, Some(length)) => RequestFraming::Length(length),
        };
        if pointless {
            let empty = self.body == RequestFraming::Length(0);
            let fault = if empty { Fault::ZeroLengthWithGet } else { Fault::BodyWithGet };
            fault.note(&mut self.fault);
        }
        Ok(())
    }

    /// The one `Content-Length`; equal ones become one.
    fn settle_length(&mut self) -> Result<Option<u64>, Fault> {
        let mut lengths = self.named(LENGTH).map(|line| length(line.value.of(&self.bytes)));
        let Some(first) = lengths.next() else { return Ok(None) };
        let first = first.ok_or(Fault::BadLength)?;
        let mut several = false;
        for other in lengths {
            if other.ok_or(Fault::BadLength)? != first {
                return Err(Fault::DifferentLengths);
            }
            several = true;
        }
        if several {
            Fault::RepeatedLength.note(&mut self.fault);
            self.drop_lengths_behind(1);
        }
        Ok(Some(first))
    }

    /// Leaves the first so many `Content-Length` lines.
    fn drop_lengths_behind(&mut self, keep: usize) {
        let (bytes, mut seen) = (&self.bytes, 0);
        self.lines.retain(|line| {
            seen += usize::from(line.name.of(bytes) == LENGTH);
            line.name.of(bytes) != LENGTH || seen <= keep
        });
    }

    /// Whether there is a `Transfer-Encoding`, which must be one `chunked`, over HTTP/1.1.
    fn chunked(&self) -> Result<bool, Fault> {
        let mut encodings = self.named(ENCODING).map(|line| line.value.of(&self.bytes));
        let Some(first) = encodings.next() else { return Ok(false) };
        if encodings.next().is_some() {
            return Err(Fault::RepeatedEncoding);
        }
        if !first.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::BadEncoding);
        }
        if self.version == Version::HTTP_11 { Ok(true) } else { Err(Fault::EncodingInHttp10) }
    }

    fn settle_connection(&mut self) {
        let (mut close, mut keep_alive) = (false, false);
        for token in self.all("connection").flat_map(tokens) {
            close |= token.eq_ignore_ascii_case(b"close");
            keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
        let goes_on = !close && (self.version == Version::HTTP_11 || keep_alive);
        self.persists = goes_on && self.class() < Class::Ambiguous;
    }
}

/// Without values: they hold passwords and session ids.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("target", &self.target())
            .field("version", &self.version)
            .field("names", &names)
            .field("body", &self.body)
            .field("persists", &self.persists)
            .field("expects_continue", &self.expects_continue)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Broken {}

impl Start {
    fn unknown() -> Self {
        let method = Method::from_bytes(b"-").unwrap_or_default();
        Self { method, version: Version::HTTP_11, target: Span::default() }
    }

    /// What can be told of a request line that is broken: the method if it is a token of ordinary length,
    /// and then the visible bytes behind it.
    fn guess(line: &[u8]) -> Self {
        let unknown = Self::unknown();
        let end = scan::token(line);
        let method = line.get(..end).unwrap_or_default();
        match (Method::from_bytes(method), line.get(end)) {
            (Ok(method), Some(b' ')) if end <= METHOD_SHOWN => {
                let rest = line.get(end + 1..).unwrap_or_default();
                let target = rest.get(..scan::target(rest).0).unwrap_or_default();
                let length = str::from_utf8(target).map_or_else(|error| error.valid_up_to(), str::len);
                Self { method, target: Span::new(end + 1, end + 1 + length), ..unknown }
            }
            _ => unknown,
        }
    }
}

impl Span {
    /// A head is far smaller than 4 GiB; beyond that a span would be empty, never wrong.
    fn new(start: usize, end: usize) -> Self {
        let narrow = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    fn is_empty(self) -> bool {
        self.start >= self.end
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}

const HOST: &[u8] = b"host";
const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";

/// Where a field value ends, as offsets into the line.
struct Value {
    /// Behind its last byte, blanks included.
    end: usize,
    /// Behind the line end.
    next: usize,
    /// The line ends with LF alone.
    bare: bool,
    /// It holds control bytes.
    controls: bool,
}

/// Reads a value from `end` on, up to the end of its line.
fn value(line: &[u8], mut end: usize) -> Result<Value, Stop> {
    let mut controls = false;
    loop {
        end += scan::value(line.get(end..).unwrap_or_default());
        match line.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => return Ok(Value { end, next: end + 2, bare: false, controls }),
            [b'\n', ..] => return Ok(Value { end, next: end + 1, bare: true, controls }),
            [] | [b'\r'] => return Err(Stop::Cut),
            [b'\r', ..] => return Err(Fault::BareCarriageReturn.into()),
            [0, ..] => return Err(Fault::Nul.into()),
            _ => controls = true,
        }
        end += 1;
    }
}

/// The number of blanks that `bytes` start with.
#[inline]
fn blanks(bytes: &[u8]) -> usize {
    match bytes {
        // Nearly always.
        [b' ', next, ..] if !is_blank(*next) => 1,
        _ => bytes.iter().take_while(|byte| is_blank(**byte)).count(),
    }
}

/// The end of `line[start..end]` without the blanks at its end.
#[inline]
fn trim_end(line: &[u8], start: usize, end: usize) -> usize {
    match line.get(start..end) {
        Some(value @ [.., last]) if is_blank(*last) => {
            end - value.iter().rev().take_while(|byte| is_blank(**byte)).count()
        }
        _ => end,
    }
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The length of the line at `at`, its end included, if that is there.
fn line_length(input: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(b'\n', input.get(at..)?).map(|feed| feed + 1)
}

fn bit(tag: u8) -> u64 {
    1 << (tag & 63)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// `1*DIGIT` (RFC 9110 section 8.6).
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > LENGTH_DIGITS {
        return None;
    }
    value.iter().try_fold(0, |sum: u64, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn is_framing(name: &[u8]) -> bool {
    name == LENGTH || name == ENCODING
}

/// Whether a name is not that of a framing field, and becomes one if somebody tidies it up.
fn disguises_framing(name: &[u8]) -> bool {
    // Cheap, and true for few names: they are as long as the real one, and no other letter stands first.
    let worth_a_look = match name.first() {
        Some(b'c' | b't') => true,
        Some(first) => !first.is_ascii_alphanumeric(),
        None => false,
    };
    worth_a_look && name.len() >= LENGTH.len() && !is_framing(name) && resembles_framing(name)
}

/// Whether the letters of a name are those of a framing field: with anything but letters and digits left
/// out, with one of them for the hyphen, or cut off. What AWS's desync guardian takes for a disguise is one.
fn resembles_framing(name: &[u8]) -> bool {
    resembles(name, b"content", b"length") || resembles(name, b"transfer", b"encoding")
}

fn resembles(name: &[u8], first: &[u8], second: &[u8]) -> bool {
    if name.len() < first.len() + second.len() + 1 {
        return false;
    }
    let mut letters =
        name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).peekable();
    if letters.peek().is_none() {
        return false;
    }
    for expected in first {
        match letters.next() {
            None => return true,
            Some(letter) if letter == *expected => {}
            Some(_) => return false,
        }
    }
    let starts = |mut letters: std::iter::Peekable<_>| {
        let mut second = second.iter();
        Iterator::all(&mut letters, |letter: u8| second.next() == Some(&letter))
    };
    starts(letters.clone()) || {
        letters.next();
        starts(letters)
    }
}

/// RFC 9112 section 3.2: every method has its forms of a target.
fn check_form(method: &Method, target: &[u8]) -> Result<(), Fault> {
    let fits = match target {
        _ if *method == Method::CONNECT => is_authority_form(target),
        [b'/', ..] => true,
        b"*" => *method == Method::OPTIONS,
        _ => is_absolute_form(target),
    };
    if fits { Ok(()) } else { Err(Fault::BadTargetForm) }
}

/// `http://authority…` or `https://authority…`; what stands in the authority is judged with the Host.
fn is_absolute_form(target: &[u8]) -> bool {
    let after = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://"));
    rest.and_then(<[u8]>::first).is_some_and(|first| !matches!(first, b'/' | b'?'))
}

/// `host ":" port`.
fn is_authority_form(target: &[u8]) -> bool {
    let Some(colon) = target.iter().rposition(|byte| *byte == b':') else { return false };
    let (host, port) = target.split_at(colon);
    let port = port.get(1..).unwrap_or_default();
    !host.is_empty()
        && !host.iter().any(|byte| matches!(byte, b'/' | b'?' | b'@' | b'\\'))
        && (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
}

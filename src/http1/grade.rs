//! What can be wrong with a request as a message, and how bad that is.
//!
//! The four classes are those of AWS's desync mitigation, so that an operator who knows them from a load
//! balancer finds them again. A fault is never graded milder here than there where the framing of a message
//! depends on it. Some are graded worse, because there is no single way to repair them: a fault is
//! [`Class::Ambiguous`] exactly if the decoder knows one clear message to make of it.

use std::fmt;
use std::str::FromStr;

/// How far a message may be understood differently by two readers; ordered by badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// By the letter of RFC 9110 and 9112, or what every browser sends.
    Compliant,
    /// Not by the letter, and read alike by everybody.
    Acceptable,
    /// Two readers may understand it differently. We can make one clear message of it; the connection ends
    /// after it.
    Ambiguous,
    /// Broken, or made to be misunderstood. Never accepted.
    Severe,
}

/// Which classes are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Compliant and acceptable messages.
    #[default]
    Strictest,
    /// Ambiguous ones too, repaired; the connection ends after them.
    Defensive,
    /// What is defended against is only counted: as [`Mode::Defensive`] for this decoder, since nothing is
    /// ever passed on that was not one clear message.
    Monitor,
}

/// A fault of a request: of its head, or of the chunks behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `"`, `<`, `>` or a letter outside ASCII (in UTF-8) in the target: to be percent-encoded by RFC 3986, and
    /// harmless. The path reaches the origin percent-encoded.
    UnescapedTarget,
    /// `Content-Length: 0` with GET or HEAD.
    ZeroLengthWithGet,
    /// HTTP/1.0 without Host: allowed there (RFC 1945), though no site can be chosen by it.
    NoHostInHttp10,
    /// A line that ends with LF alone; RFC 9112 section 2.2 lets a recipient accept it.
    BareLineFeed,
    /// A field value that goes on in the next line; obsolete by RFC 9112 section 5.2. Read as blanks.
    Folded,
    /// A control byte other than NUL, CR, LF in a field value. Read as a blank (RFC 9110 section 5.5).
    ControlByte,
    /// The same `Content-Length` twice; merged (RFC 9110 section 8.6).
    RepeatedLength,
    /// `Content-Length` beside `Transfer-Encoding`; the latter holds (RFC 9112 section 6.1).
    LengthAndEncoding,
    /// A body with GET or HEAD has no meaning (RFC 9110 section 9.3.1).
    BodyWithGet,
    /// The method is no token (RFC 9110 section 9.1).
    BadMethod,
    /// More or less than one blank between the parts of the request line (RFC 9112 section 3).
    BadSpacing,
    /// A byte in the target that no URI holds: a control byte, `#`, or one that is not UTF-8.
    BadTargetByte,
    /// A target that is none of the forms of RFC 9112 section 3.2, or not the method's form.
    BadTargetForm,
    /// No version: HTTP/0.9.
    NoVersion,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    BadVersion,
    /// A second empty line before the request line (RFC 9112 section 2.2 asks to ignore one).
    EmptyLines,
    /// A CR that no LF follows.
    BareCarriageReturn,
    /// A NUL in a field value.
    Nul,
    /// A field line without a colon.
    NoColon,
    /// An empty field name (CVE-2023-25725).
    EmptyName,
    /// A blank before the colon of a field line (RFC 9112 section 5.1).
    BlankBeforeColon,
    /// A field name that is no token (RFC 9110 section 5.1).
    BadName,
    /// A blank before the first field line (RFC 9112 section 2.2).
    BlankBeforeFields,
    /// A folded line that holds, or looks like, a framing field.
    FoldedFraming,
    /// A name that becomes `Content-Length` or `Transfer-Encoding` if somebody tidies it up, such as
    /// `Content_Length`.
    DisguisedFraming,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    NoHost,
    /// More than one Host (RFC 9112 section 3.2).
    RepeatedHost,
    /// What is to name the host names none: empty, or no host by the grammar (RFC 9112 section 3.2).
    BadHost,
    /// Host names another authority than the target (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
    HostMismatch,
    /// `Content-Length` is not a plain number.
    BadLength,
    /// Two different `Content-Length`.
    DifferentLengths,
    /// `Transfer-Encoding` is not exactly `chunked`.
    BadEncoding,
    /// More than one `Transfer-Encoding`.
    RepeatedEncoding,
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 section 6.1, CVE-2026-2835).
    EncodingInHttp10,
    /// A chunk size is missing or no plain hexadecimal number (RFC 9112 section 7.1).
    BadChunkSize,
    /// A chunk size has more than 15 digits, so that somebody may cut it off (RFC 9112 section 7.1).
    ChunkTooLarge,
    /// Chunk extensions without end (CVE-2023-39326).
    ChunkExtensionTooLong,
    /// A control byte in a chunk extension or a trailer.
    ChunkControlByte,
    /// A line of the coding, or the data of a chunk, does not end with CR LF: TERM.EXT and its kin.
    BadChunkEnd,
    /// A trailer that is no field line.
    BadTrailer,
    /// Trailers without end.
    TrailersTooLong,
    /// The request line is longer than allowed.
    RequestLineTooLong,
    /// More field lines than allowed.
    TooManyFields,
    /// The field lines have more bytes than allowed.
    FieldsTooLarge,
    /// The head did not end in time.
    TooSlow,
}

impl Class {
    /// Every class, from good to bad.
    pub const ALL: [Self; 4] = [Self::Compliant, Self::Acceptable, Self::Ambiguous, Self::Severe];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Compliant => "compliant",
            Self::Acceptable => "acceptable",
            Self::Ambiguous => "ambiguous",
            Self::Severe => "severe",
        }
    }
}

impl Mode {
    /// Every mode with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 3] =
        [("strictest", Self::Strictest), ("defensive", Self::Defensive), ("monitor", Self::Monitor)];

    /// Whether a message of this class is accepted.
    #[must_use]
    pub const fn accepts(self, class: Class) -> bool {
        match class {
            Class::Compliant | Class::Acceptable => true,
            Class::Ambiguous => !matches!(self, Self::Strictest),
            Class::Severe => false,
        }
    }

    /// The word in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Strictest => "strictest",
            Self::Defensive => "defensive",
            Self::Monitor => "monitor",
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, mode)| *mode).ok_or(UnknownMode)
    }
}

/// Not a word of [`Mode::WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of `strictest`, `defensive`, `monitor`")
    }
}

impl std::error::Error for UnknownMode {}

impl Fault {
    /// Every fault, from mild to bad.
    pub const ALL: [Self; 45] = [
        Self::UnescapedTarget,
        Self::ZeroLengthWithGet,
        Self::NoHostInHttp10,
        Self::BareLineFeed,
        Self::Folded,
        Self::ControlByte,
        Self::RepeatedLength,
        Self::LengthAndEncoding,
        Self::BodyWithGet,
        Self::BadMethod,
        Self::BadSpacing,
        Self::BadTargetByte,
        Self::BadTargetForm,
        Self::NoVersion,
        Self::BadVersion,
        Self::EmptyLines,
        Self::BareCarriageReturn,
        Self::Nul,
        Self::NoColon,
        Self::EmptyName,
        Self::BlankBeforeColon,
        Self::BadName,
        Self::BlankBeforeFields,
        Self::FoldedFraming,
        Self::DisguisedFraming,
        Self::NoHost,
        Self::RepeatedHost,
        Self::BadHost,
        Self::HostMismatch,
        Self::BadLength,
        Self::DifferentLengths,
        Self::BadEncoding,
        Self::RepeatedEncoding,
        Self::EncodingInHttp10,
        Self::BadChunkSize,
        Self::ChunkTooLarge,
        Self::ChunkExtensionTooLong,
        Self::ChunkControlByte,
        Self::BadChunkEnd,
        Self::BadTrailer,
        Self::TrailersTooLong,
        Self::RequestLineTooLong,
        Self::TooManyFields,
        Self::FieldsTooLarge,
        Self::TooSlow,
    ];

    /// How bad it is.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::UnescapedTarget | Self::ZeroLengthWithGet | Self::NoHostInHttp10 => Class::Acceptable,
            Self::BareLineFeed
            | Self::Folded
            | Self::ControlByte
            | Self::RepeatedLength
            | Self::LengthAndEncoding
            | Self::BodyWithGet => Class::Ambiguous,
            _ => Class::Severe,
        }
    }

    /// Whether it is a limit that was exceeded, not a rule of the grammar.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::RequestLineTooLong | Self::TooManyFields | Self::FieldsTooLarge | Self::TooSlow)
    }

    /// Keeps the worst fault, and the first of its class.
    pub fn note(self, worst: &mut Option<Self>) {
        if worst.is_none_or(|known| known.class() < self.class()) {
            *worst = Some(self);
        }
    }

    /// The word for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.words().0
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::UnescapedTarget => ("unescaped_target", "a byte of the target should be percent-encoded"),
            Self::ZeroLengthWithGet => ("zero_length_with_get", "Content-Length: 0 with GET or HEAD"),
            Self::NoHostInHttp10 => ("no_host_in_http10", "no Host in an HTTP/1.0 request"),
            Self::BareLineFeed => ("bare_line_feed", "a line ends with LF alone"),
            Self::Folded => ("folded", "a field value goes on in the next line"),
            Self::ControlByte => ("control_byte", "a control byte in a field value"),
            Self::RepeatedLength => ("repeated_length", "the same Content-Length twice"),
            Self::LengthAndEncoding => ("length_and_encoding", "both Content-Length and Transfer-Encoding"),
            Self::BodyWithGet => ("body_with_get", "a body with GET or HEAD"),
            Self::BadMethod => ("bad_method", "the method is no token"),
            Self::BadSpacing => ("bad_spacing", "the parts of the request line are not one blank apart"),
            Self::BadTargetByte => ("bad_target_byte", "a byte in the target that no URI holds"),
            Self::BadTargetForm => ("bad_target_form", "the target has no form that the method allows"),
            Self::NoVersion => ("no_version", "the request line has no version"),
            Self::BadVersion => ("bad_version", "the version is neither HTTP/1.0 nor HTTP/1.1"),
            Self::EmptyLines => ("empty_lines", "more than one empty line before the request"),
            Self::BareCarriageReturn => ("bare_carriage_return", "a CR that no LF follows"),
            Self::Nul => ("nul", "a NUL in a field value"),
            Self::NoColon => ("no_colon", "a field line without a colon"),
            Self::EmptyName => ("empty_name", "an empty field name"),
            Self::BlankBeforeColon => ("blank_before_colon", "a blank before the colon of a field"),
            Self::BadName => ("bad_name", "a field name that is no token"),
            Self::BlankBeforeFields => ("blank_before_fields", "a blank before the first field"),
            Self::FoldedFraming => ("folded_framing", "a folded line in or like a framing field"),
            Self::DisguisedFraming => ("disguised_framing", "a field name that looks like a framing field"),
            Self::NoHost => ("no_host", "no Host"),
            Self::RepeatedHost => ("repeated_host", "more than one Host"),
            Self::BadHost => ("bad_host", "Host is empty, or no host"),
            Self::HostMismatch => ("host_mismatch", "Host and the target name two authorities"),
            Self::BadLength => ("bad_length", "Content-Length is not a plain number"),
            Self::DifferentLengths => ("different_lengths", "two different Content-Length"),
            Self::BadEncoding => ("bad_encoding", "Transfer-Encoding is not exactly `chunked`"),
            Self::RepeatedEncoding => ("repeated_encoding", "more than one Transfer-Encoding"),
            Self::EncodingInHttp10 => ("encoding_in_http10", "Transfer-Encoding in an HTTP/1.0 request"),
            Self::BadChunkSize => ("bad_chunk_size", "a chunk size is not a hexadecimal number"),
            Self::ChunkTooLarge => ("chunk_too_large", "a chunk size has more than 15 digits"),
            Self::ChunkExtensionTooLong => {
                ("chunk_extension_too_long", "chunk extensions of more than 256 bytes")
            }
            Self::ChunkControlByte => {
                ("chunk_control_byte", "a control byte in a chunk extension or trailer")
            }
            Self::BadChunkEnd => ("bad_chunk_end", "a chunk or a line of its coding does not end with CR LF"),
            Self::BadTrailer => ("bad_trailer", "a trailer is no field line"),
            Self::TrailersTooLong => ("trailers_too_long", "more than 8 KiB of trailers"),
            Self::RequestLineTooLong => ("request_line_too_long", "the request line is longer than allowed"),
            Self::TooManyFields => ("too_many_fields", "more header fields than allowed"),
            Self::TooSlow => ("too_slow", "the head did not end in time"),
            Self::FieldsTooLarge => ("fields_too_large", "the header fields are larger than allowed"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_and_a_sentence_of_its_own() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            let (label, sentence) = (fault.label(), fault.to_string());
            assert!(label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{label}");
            for other in Fault::ALL.into_iter().skip(index + 1) {
                assert!(label != other.label() && sentence != other.to_string(), "{label}");
                assert!(fault.class() <= other.class(), "{label} stands before {}", other.label());
            }
        }
    }

    #[test]
    fn the_modes_differ_in_what_is_ambiguous_and_in_nothing_else() {
        for (word, mode) in Mode::WORDS {
            assert_eq!(word.parse(), Ok(mode));
            assert_eq!(mode.label(), word);
            assert!(mode.accepts(Class::Compliant) && mode.accepts(Class::Acceptable));
            assert_eq!(mode.accepts(Class::Ambiguous), mode != Mode::Strictest);
            assert!(!mode.accepts(Class::Severe));
        }
        assert_eq!("Strictest".parse::<Mode>(), Err(UnknownMode));
        assert_eq!(Mode::default(), Mode::Strictest);
    }

    #[test]
    fn classes_are_ordered_by_badness() {
        assert!(Class::ALL.is_sorted());
        assert_eq!(Class::ALL.map(Class::label), ["compliant", "acceptable", "ambiguous", "severe"]);
    }
}

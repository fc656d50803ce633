//! The header of a `.npy` file: a Python dict of exactly three entries, read without any Python.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1.0 to 3.0.

use crate::TraceError;

/// Longest header read; numpy itself writes at most a few hundred bytes for plain arrays.
const LONGEST: usize = 1 << 20;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The type as the file spells it, `<f4`.
    pub descr: String,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
    /// Where the data start.
    pub length: usize,
}

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: ".npy", problem: problem.into() }
}

/// Reads the header at the front of a file.
pub fn parse(bytes: &[u8]) -> Result<Header, TraceError> {
    let rest =
        bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| damaged("it does not begin with \\x93NUMPY"))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| damaged("it ends in its version"))?;
    let cut = || damaged("it ends in its header");
    let (length, start) = match version[0] {
        1 => (usize::from(u16::from_le_bytes(*rest.first_chunk().ok_or_else(cut)?)), 10),
        2 | 3 => (u32::from_le_bytes(*rest.first_chunk().ok_or_else(cut)?) as usize, 12),
        other => return Err(damaged(format!("its version is {other}, expected 1 to 3"))),
    };
    if length > LONGEST {
        return Err(damaged(format!("its header claims {length} bytes, at most {LONGEST} are read")));
    }
    let text = bytes.get(start..start + length).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| damaged("its header is not text"))?;
    let mut literal = Literal { rest: text };
    let (descr, fortran_order, shape) = literal.dict().ok_or_else(|| {
        damaged(format!(
            "its header is {:?}, expected {{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }} or the like",
            text.chars().take(120).collect::<String>()
        ))
    })?;
    Ok(Header { descr, fortran_order, shape, length: start + length })
}

/// As much of Python's literals as headers use. `None` is a syntax error.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn dict(&mut self) -> Option<(String, bool, Vec<usize>)> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.eat('}') {
            let key = self.string()?;
            self.expect(':')?;
            let twice = match key {
                "descr" => descr.replace(self.descr()?).is_some(),
                "fortran_order" => fortran.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => return None,
            };
            if twice || !(self.eat(',') || self.rest.trim_start().starts_with('}')) {
                return None;
            }
        }
        self.rest.trim().is_empty().then_some(())?;
        Some((descr?, fortran?, shape?))
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.eat(c).then_some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let quote = if self.eat('\'') { '\'' } else { self.expect('"').map(|()| '"')? };
        let (text, rest) = self.rest.split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then_some(text)
    }

    /// A type; a structured one is kept as its text, brackets and all, for the message.
    fn descr(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        if !text.starts_with('[') {
            return self.string().map(str::to_owned);
        }
        let mut depth = 0usize;
        for (at, c) in text.char_indices() {
            match c {
                '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                self.rest = &text[at + 1..];
                return Some(text[..=at].to_owned());
            }
        }
        None
    }

    fn boolean(&mut self) -> Option<bool> {
        let text = self.rest.trim_start();
        let (value, rest) = if let Some(rest) = text.strip_prefix("True") {
            (true, rest)
        } else {
            (false, text.strip_prefix("False")?)
        };
        self.rest = rest;
        Some(value)
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut sizes = vec![];
        self.expect('(')?;
        while !self.eat(')') {
            let text = self.rest.trim_start();
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            sizes.push(text[..digits].parse().ok()?);
            // Python 2 wrote long integers as 3L.
            self.rest = text[digits..].strip_prefix('L').unwrap_or(&text[digits..]);
            if !(self.eat(',') || self.rest.trim_start().starts_with(')')) {
                return None;
            }
        }
        Some(sizes)
    }
}

/// The bytes of a header, padded so that the data start at a multiple of 64.
pub fn write(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let tuple = format!("{}{comma}", sizes.join(", "));
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({tuple}), }}");
    // Version 1 has 10 bytes in front and the newline at the end; a rank beyond thousands needs version 2.
    let wide = dict.len() + 11 + 64 > usize::from(u16::MAX);
    let front = if wide { 12 } else { 10 };
    let total = (front + dict.len() + 1).next_multiple_of(64);
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([1 + u8::from(wide), 0]);
    if wide {
        bytes.extend(((total - front) as u32).to_le_bytes());
    } else {
        bytes.extend(((total - front) as u16).to_le_bytes());
    }
    bytes.extend(dict.as_bytes());
    bytes.resize(total - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn headers_of_all_kinds() {
        struct Case(&'static str, Option<(&'static str, bool, &'static [usize])>);
        let cases = [
            Case(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n",
                Some(("<f4", false, &[2, 3])),
            ),
            Case("{'descr': '|b1', 'fortran_order': True, 'shape': (), }", Some(("|b1", true, &[]))),
            Case(
                "{\"shape\": (5,), \"descr\": \"<i8\", \"fortran_order\": False}",
                Some(("<i8", false, &[5])),
            ),
            Case(
                "{'descr': '<i8', 'fortran_order': False, 'shape': (3L, 0), }",
                Some(("<i8", false, &[3, 0])),
            ),
            Case(
                "{'descr': [('a', '<f4', (2,))], 'fortran_order': False, 'shape': (1,), }",
                Some(("[('a', '<f4', (2,))]", false, &[1])),
            ),
            Case("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", None),
            Case("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", None),
            Case("{'descr': '<f4', 'fortran_order': False, 'shape': (1, }", None),
            Case("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", None),
            Case("{'descr': '<f4', 'fortran_order': False, }", None),
            Case("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", None),
            Case("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} import os", None),
            Case("{'descr': [[[['<f4', 'fortran_order': False, 'shape': (1,)}", None),
            Case("{'descr': ]'<f4', 'fortran_order': False, 'shape': (1,)}", None),
            Case("__import__('os')", None),
            Case("", None),
        ];
        let mut wrong = vec![];
        for Case(text, expected) in cases {
            let bytes = file(text);
            let found = parse(&bytes).ok().map(|h| (h.descr, h.fortran_order, h.shape));
            let expected = expected.map(|(d, f, s)| (d.to_owned(), f, s.to_vec()));
            if found != expected {
                wrong.push(format!("{text}: {found:?}"));
            }
            for end in 0..bytes.len() {
                assert!(parse(&bytes[..end]).is_err(), "{text} cut at {end}");
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}").is_err());
        assert!(parse(b"\x93NUMPY\x09\x00\x02\x00{}").is_err());
    }

    #[test]
    fn written_headers_read_back_aligned() {
        for shape in [vec![], vec![7], vec![2, 3], vec![1; 32_000]] {
            let bytes = write("<f4", &shape);
            let read = parse(&bytes).unwrap();
            assert_eq!((read.descr.as_str(), read.fortran_order, &read.shape), ("<f4", false, &shape));
            assert_eq!((read.length, bytes.len() % 64), (bytes.len(), 0));
        }
    }
}

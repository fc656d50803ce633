//! Python's pickles, read as data.
//!
//! A pickle is a program for a small stack machine whose instructions may call any function of any module. This machine
//! has the stack and none of the calls: a call becomes an [`Object::Call`] that says which function and with what, and
//! what a few functions of PyTorch and NumPy *would* have built is worked out from that. Nothing is ever executed,
//! whatever the file says.
//!
//! Instructions: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>. Objects live in one list and point
//! to each other by their place in it, so that neither cycles nor depth cost more than their instructions.

use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::TraceError;

/// Objects that a file may make: more than any checkpoint has, less than memory holds.
const MOST_OBJECTS: usize = 8 << 20;

/// Longest number read, in bytes; a key of a storage or a size is at most 8.
const LONGEST_NUMBER: usize = 256;

/// An object by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// What a pickle makes.
#[derive(Debug)]
pub enum Object {
    None,
    Bool(bool),
    Int(i64),
    /// A number of more than 64 bits.
    Long,
    Float,
    Text(String),
    /// Bytes of the file.
    Bytes(Range<usize>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function or class.
    Global(String),
    /// What a function would give.
    Call(Box<Call>),
    /// A reference to something outside: a storage.
    Persistent(Id),
}

/// A call that is not made.
#[derive(Debug)]
pub struct Call {
    /// What would be called.
    pub function: Id,
    /// With what: a tuple.
    pub arguments: Id,
    /// State that would be given to the result.
    pub state: Option<Id>,
    /// What would be put into the result by keys.
    pub items: Vec<(Id, Id)>,
    /// What would be appended to it.
    pub elements: Vec<Id>,
}

/// One pickle.
pub struct Pickle {
    objects: Vec<Object>,
    /// The object that it makes.
    pub root: Id,
    /// Where it ends in the file.
    pub end: usize,
}

impl Pickle {
    /// All objects, in the order in which they were made.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        &self.objects[id.0 as usize]
    }

    /// The elements of a tuple or list.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(elements) | Object::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// Text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Whole numbers that are not negative; also those of a `torch.Size`.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        if let Object::Call(call) = self.get(id) {
            let inner = *self.sequence(call.arguments)?.first()?;
            return if self.global(call.function) == Some("torch.Size") { self.sizes(inner) } else { None };
        }
        self.sequence(id)?.iter().map(|&d| self.size(d)).collect()
    }

    /// A function or class, `module.name`.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Global(name) => Some(name),
            _ => None,
        }
    }
}

fn damaged(problem: impl Into<String>) -> TraceError {
    TraceError::Damaged { format: "pickle", problem: problem.into() }
}

/// Reads the pickle that begins at `start`.
pub fn read(bytes: &[u8], start: usize) -> Result<Pickle, TraceError> {
    let mut machine = Machine {
        bytes,
        at: start,
        objects: vec![],
        stack: vec![],
        marks: vec![],
        memo: FxHashMap::default(),
    };
    let root = machine.run()?;
    Ok(Pickle { objects: machine.objects, root, end: machine.at })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: FxHashMap<u64, Id>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, TraceError> {
        loop {
            let place = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code).map_err(|e| match e {
                TraceError::Damaged { format, problem } => {
                    let problem = format!("{problem} (instruction {code:#04x} at byte {place})");
                    TraceError::Damaged { format, problem }
                }
                e => e,
            })?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), TraceError> {
        match code {
            // Protocol and frames say nothing about the objects.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(|| damaged("nothing to repeat"))?;
                self.stack.push(top);
            }
            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(n.into()))?;
            }
            b'K' => {
                let n = self.take(1)?[0];
                self.push(Object::Int(n.into()))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(n.into()))?;
            }
            b'I' | b'L' => self.decimal()?,
            b'F' => {
                self.line()?;
                self.push(Object::Float)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Object::Float)?;
            }
            0x8a => {
                let n = usize::from(self.take(1)?[0]);
                self.long(n)?;
            }
            0x8b => {
                let n = self.length(4)?;
                self.long(n)?;
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'V' => {
                // Latin-1, and escapes for what that does not have.
                let text: String = self.line()?.into_iter().map(char::from).collect();
                self.push(Object::Text(unescaped(&text)))?;
            }
            b'S' => {
                let text = utf8(self.line()?)?;
                let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or("").to_owned();
                self.push(Object::Text(inner))?;
            }
            // Strings of Python 2: text or bytes, nobody knows.
            b'U' => self.string(1)?,
            b'T' => self.string(4)?,
            b'C' => self.binary(1)?,
            b'B' => self.binary(4)?,
            0x8e | 0x96 => self.binary(8)?,
            // A set is as good as a list here.
            b']' | 0x8f => self.push(Object::List(vec![]))?,
            b')' => self.push(Object::Tuple(vec![]))?,
            b'}' => self.push(Object::Dict(vec![]))?,
            b'l' | 0x91 => {
                let elements = self.marked()?;
                self.push(Object::List(elements))?;
            }
            b't' => {
                let elements = self.marked()?;
                self.push(Object::Tuple(elements))?;
            }
            0x85..=0x87 => {
                let mut elements = vec![];
                for _ in 0x85..=code {
                    elements.push(self.pop()?);
                }
                elements.reverse();
                self.push(Object::Tuple(elements))?;
            }
            b'd' => {
                let pairs = pairs(&self.marked()?)?;
                self.push(Object::Dict(pairs))?;
            }
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])?;
            }
            b'e' | 0x90 => {
                let elements = self.marked()?;
                self.append(elements)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = pairs(&self.marked()?)?;
                self.set(pairs)?;
            }
            b'g' | b'h' | b'j' => {
                let at = self.memo_key(code == b'g', if code == b'h' { 1 } else { 4 })?;
                let id = *self.memo.get(&at).ok_or_else(|| damaged(format!("object {at} was never kept")))?;
                self.stack.push(id);
            }
            b'p' | b'q' | b'r' => {
                let at = self.memo_key(code == b'p', if code == b'q' { 1 } else { 4 })?;
                self.keep(at)?;
            }
            0x94 => self.keep(self.memo.len() as u64)?,
            b'c' => {
                let module = utf8(self.line()?)?;
                let name = utf8(self.line()?)?;
                self.push(Object::Global(format!("{module}.{name}")))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match (self.object(module), self.object(name)) {
                    (Object::Text(module), Object::Text(name)) => format!("{module}.{name}"),
                    _ => return Err(damaged("the name of a function is no text")),
                };
                self.push(Object::Global(global))?;
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?;
            }
            0x92 => {
                let (named, arguments, function) = (self.pop()?, self.pop()?, self.pop()?);
                let both = self.add(Object::Tuple(vec![arguments, named]))?;
                self.call(function, both)?;
            }
            b'i' => {
                let (module, name) = (utf8(self.line()?)?, utf8(self.line()?)?);
                let function = self.add(Object::Global(format!("{module}.{name}")))?;
                let arguments = self.marked()?;
                let arguments = self.add(Object::Tuple(arguments))?;
                self.call(function, arguments)?;
            }
            b'o' => {
                let mut arguments = self.marked()?;
                if arguments.is_empty() {
                    return Err(damaged("a call of nothing"));
                }
                let function = arguments.remove(0);
                let arguments = self.add(Object::Tuple(arguments))?;
                self.call(function, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let top = *self.stack.last().ok_or_else(|| damaged("state for nothing"))?;
                // Only what was called can have a state that matters here.
                if let Object::Call(call) = self.object_mut(top) {
                    call.state = Some(state);
                }
            }
            b'P' => {
                let text = utf8(self.line()?)?;
                let id = self.add(Object::Text(text))?;
                self.push(Object::Persistent(id))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            0x82..=0x84 | 0x97 | 0x98 => {
                return Err(damaged("it relies on tables or buffers that are not in the file"));
            }
            _ => return Err(damaged("no such instruction")),
        }
        Ok(())
    }

    fn object(&self, id: Id) -> &Object {
        &self.objects[id.0 as usize]
    }

    fn object_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id.0 as usize]
    }

    fn add(&mut self, object: Object) -> Result<Id, TraceError> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(TraceError::Bomb {
                problem: format!("a pickle that makes more than {MOST_OBJECTS} objects"),
            });
        }
        self.objects.push(object);
        Ok(Id(self.objects.len() as u32 - 1))
    }

    fn push(&mut self, object: Object) -> Result<(), TraceError> {
        let id = self.add(object)?;
        self.stack.push(id);
        // Repeating instructions make no objects, but a stack.
        if self.stack.len() > MOST_OBJECTS {
            return Err(TraceError::Bomb { problem: "a pickle with a stack without end".into() });
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, TraceError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(damaged("its stack is empty"));
        }
        Ok(self.stack.pop().expect("not empty"))
    }

    fn marked(&mut self) -> Result<Vec<Id>, TraceError> {
        let mark = self.marks.pop().ok_or_else(|| damaged("no mark on its stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn call(&mut self, function: Id, arguments: Id) -> Result<(), TraceError> {
        let call = Call { function, arguments, state: None, items: vec![], elements: vec![] };
        self.push(Object::Call(Box::new(call)))
    }

    fn append(&mut self, elements: Vec<Id>) -> Result<(), TraceError> {
        let top = *self.stack.last().ok_or_else(|| damaged("nothing to append to"))?;
        match self.object_mut(top) {
            Object::List(list) => list.extend(elements),
            Object::Call(call) => call.elements.extend(elements),
            _ => return Err(damaged("appends to what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, pairs: Vec<(Id, Id)>) -> Result<(), TraceError> {
        let top = *self.stack.last().ok_or_else(|| damaged("nothing to put into"))?;
        match self.object_mut(top) {
            Object::Dict(dict) => dict.extend(pairs),
            Object::Call(call) => call.items.extend(pairs),
            _ => return Err(damaged("puts into what is no dictionary")),
        }
        Ok(())
    }

    fn keep(&mut self, at: u64) -> Result<(), TraceError> {
        let top = *self.stack.last().ok_or_else(|| damaged("nothing to keep"))?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn memo_key(&mut self, decimal: bool, width: usize) -> Result<u64, TraceError> {
        if decimal {
            let text = utf8(self.line()?)?;
            return text.parse().map_err(|_| damaged(format!("{text:?} is no place of an object")));
        }
        Ok(self.length(width)? as u64)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], TraceError> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it ends in the middle"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TraceError> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    /// A length of 1, 4 or 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, TraceError> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| damaged("a length beyond all memory"))
    }

    fn line(&mut self) -> Result<Vec<u8>, TraceError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("a line without end"))?;
        self.at += end + 1;
        Ok(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec())
    }

    fn decimal(&mut self) -> Result<(), TraceError> {
        let text = utf8(self.line()?)?;
        self.push(match text.trim_end_matches('L') {
            // How protocol 0 writes truth values.
            "00" => Object::Bool(false),
            "01" => Object::Bool(true),
            digits => match digits.parse() {
                Ok(n) => Object::Int(n),
                Err(_) if digits.len() <= LONGEST_NUMBER => Object::Long,
                Err(_) => return Err(damaged("a number without end")),
            },
        })
    }

    fn long(&mut self, count: usize) -> Result<(), TraceError> {
        if count > LONGEST_NUMBER {
            return Err(damaged(format!("a number of {count} bytes")));
        }
        let bytes = self.take(count)?;
        let object = if count <= 8 {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..count].copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(wide))
        } else {
            Object::Long
        };
        self.push(object)
    }

    fn text(&mut self, width: usize) -> Result<(), TraceError> {
        let count = self.length(width)?;
        let text = utf8(self.take(count)?.to_vec())?;
        self.push(Object::Text(text))
    }

    fn string(&mut self, width: usize) -> Result<(), TraceError> {
        let count = self.length(width)?;
        let start = self.at;
        let bytes = self.take(count)?;
        let object = match std::str::from_utf8(bytes) {
            Ok(text) if count < 256 => Object::Text(text.to_owned()),
            _ => Object::Bytes(start..start + count),
        };
        self.push(object)
    }

    fn binary(&mut self, width: usize) -> Result<(), TraceError> {
        let count = self.length(width)?;
        let start = self.at;
        self.take(count)?;
        self.push(Object::Bytes(start..start + count))
    }
}

fn pairs(elements: &[Id]) -> Result<Vec<(Id, Id)>, TraceError> {
    let (pairs, rest) = elements.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(damaged("a key without a value"));
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

fn utf8(bytes: Vec<u8>) -> Result<String, TraceError> {
    String::from_utf8(bytes).map_err(|_| damaged("a text that is no UTF-8"))
}

/// The text of a line of protocol 0, in which newlines and backslashes are written as `\u000a` and the like.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let digits = match escape.chars().next() {
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        let code = escape.get(1..=digits).filter(|_| digits > 0);
        if let Some(c) = code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) {
            out.push(c);
            rest = &escape[1 + digits..];
        } else {
            out.push('\\');
            rest = escape;
        }
    }
    out + rest
}

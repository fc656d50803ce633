//! Writing a trace: records as they come, elements gathered into shards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use super::digest::Digest;
use super::reader::{LOG, Trace};
use super::record::{
    Call, End, Header, Keeps, Node, Note, Place, Record, SCHEMA, Shard, Step, Storage, Value,
};
use super::shard::{self, UNFINISHED, Waiting};
use crate::TraceError;

/// Tensors in one shard at most: its table of contents is read whole.
const MOST_IN_SHARD: usize = 10_000;

/// How a trace is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of elements that are gathered before they are written as one shard. This much is lost when the program is
    /// killed, and kept in memory until then; a larger tensor is a shard of its own.
    pub shard_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { shard_bytes: 64 << 20 }
    }
}

/// A trace under way.
///
/// Records are handed to the system as they come; elements wait until they fill a shard, or until [`flush`]. Whatever
/// happens to the program, the folder is a trace that [`Trace::open`] reads. After an error nothing more is written:
/// every later call fails, and what was finished before stays readable.
///
/// [`flush`]: Self::flush
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    log: File,
    /// Bytes of the log that are whole records.
    sound: u64,
    options: Options,
    keeps: Keeps,
    waiting: Vec<Waiting>,
    waiting_bytes: u64,
    /// Names in the next shard, and how often each was asked for.
    keys: FxHashMap<String, u32>,
    next_value: u64,
    next_node: u64,
    next_call: u64,
    next_shard: u32,
    counts: End,
    failed: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.key)
    }
}

impl Writer {
    /// Begins a trace in a new or empty folder.
    pub fn create(folder: impl AsRef<Path>, header: &Header, options: Options) -> Result<Self, TraceError> {
        let folder = folder.as_ref();
        let io = |action| move |cause| write_error(action, folder, cause);
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(TraceError::Occupied { path: folder.into() });
        }
        fs::create_dir_all(folder).map_err(io("create"))?;
        let path = folder.join(LOG);
        let log = OpenOptions::new().append(true).create_new(true).open(&path);
        let log = log.map_err(|cause| write_error("create", &path, cause))?;
        lock(&log, &path)?;
        shard::sync_folder(folder).map_err(io("write"))?;
        let mut writer = Self::over(folder, log, 0, options, header.keeps);
        let header = Header { schema: SCHEMA.into(), ..header.clone() };
        writer.append_record(&Record::Header(header))?;
        Ok(writer)
    }

    /// Goes on with a trace that is there, whether it was finished or not. What was lost stays lost; a record that was
    /// cut short is removed.
    pub fn append(folder: impl AsRef<Path>, options: Options) -> Result<Self, TraceError> {
        let folder = folder.as_ref();
        let path = folder.join(LOG);
        let log = OpenOptions::new().append(true).open(&path);
        let log = log.map_err(|cause| write_error("open", &path, cause))?;
        lock(&log, &path)?;
        let trace = Trace::open(folder)?;
        log.set_len(trace.sound_bytes()).map_err(|cause| write_error("write", &path, cause))?;
        let mut next_shard = trace.next_shard();
        for entry in fs::read_dir(folder).map_err(|cause| write_error("list", folder, cause))? {
            let entry = entry.map_err(|cause| write_error("list", folder, cause))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|n| n.strip_prefix("data-")) else { continue };
            if name.ends_with(UNFINISHED) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|cause| write_error("remove", &path, cause))?;
            } else if let Some(index) = name.strip_suffix(".safetensors").and_then(|n| n.parse::<u32>().ok())
            {
                next_shard = next_shard.max(index.saturating_add(1));
            }
        }
        let mut writer = Self::over(folder, log, trace.sound_bytes(), options, trace.header().keeps);
        writer.next_value = trace.values().iter().map(|v| v.id + 1).max().unwrap_or(1);
        writer.next_node = trace.nodes().iter().map(|n| n.id + 1).max().unwrap_or(1);
        writer.next_call = trace.calls().iter().map(|c| c.id + 1).max().unwrap_or(1);
        writer.next_shard = next_shard;
        writer.counts = trace.counts();
        Ok(writer)
    }

    fn over(folder: &Path, log: File, sound: u64, options: Options, keeps: Keeps) -> Self {
        Self {
            folder: folder.to_path_buf(),
            log,
            sound,
            options,
            keeps,
            waiting: vec![],
            waiting_bytes: 0,
            keys: FxHashMap::default(),
            next_value: 1,
            next_node: 1,
            next_call: 1,
            next_shard: 0,
            counts: End::default(),
            failed: false,
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An id for a value whose record comes later: nodes may name what they compute before it is there.
    pub fn reserve(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value - 1
    }

    /// An id for a call of a module, whose record comes when it returns.
    pub fn reserve_call(&mut self) -> u64 {
        self.next_call += 1;
        self.next_call - 1
    }

    /// Adds a value with its elements and gives its id. What the tensor says (type, shape) is filled in; whether its
    /// elements, a digest or both are kept is the header's choice.
    pub fn value(&mut self, mut value: Value, tensor: &Tensor) -> Result<u64, TraceError> {
        tensor.dtype().name().clone_into(&mut value.dtype);
        value.shape = tensor.shape().iter().map(|&d| d as u64).collect();
        if self.keeps != Keeps::Data {
            value.digest = Some(Digest::of(tensor));
        }
        if self.keeps != Keeps::Digest {
            value.data = Some(self.place(&value.name, tensor.clone()));
        }
        let id = self.described(value)?;
        self.flush_when_full()?;
        Ok(id)
    }

    /// Adds a value whose elements are not kept here: they are part of a [`storage`](Self::storage), or
    /// [`Value::omitted`] says why not. The caller fills in type and shape.
    pub fn described(&mut self, mut value: Value) -> Result<u64, TraceError> {
        if DType::parse(&value.dtype).is_none() {
            return Err(TraceError::ElementType {
                name: value.name,
                found: value.dtype,
                remedy: "give the name of an element type, such as f32 or bf16",
            });
        }
        if value.id == 0 {
            value.id = self.reserve();
        }
        let id = value.id;
        self.append_record(&Record::Value(value))?;
        self.counts.values += 1;
        Ok(id)
    }

    /// Adds the bytes that several values share, as they were after `version` writes.
    pub fn storage(&mut self, id: u64, version: u64, bytes: &Tensor) -> Result<(), TraceError> {
        let place = self.place(&format!("storage {id}.{version}"), bytes.clone());
        let record = Storage { id, version, bytes: bytes.raw_bytes().len() as u64, data: Some(place) };
        self.append_record(&Record::Storage(record))?;
        self.flush_when_full()
    }

    /// Adds a call of an operator and gives its id.
    pub fn node(&mut self, mut node: Node) -> Result<u64, TraceError> {
        node.id = self.next_node;
        self.append_record(&Record::Node(node))?;
        self.next_node += 1;
        self.counts.nodes += 1;
        Ok(self.next_node - 1)
    }

    /// Adds a call of a module and gives its id.
    pub fn call(&mut self, mut call: Call) -> Result<u64, TraceError> {
        if call.id == 0 {
            call.id = self.reserve_call();
        }
        let id = call.id;
        self.append_record(&Record::Call(call))?;
        self.counts.calls += 1;
        Ok(id)
    }

    /// Adds the inputs and outputs of a graph.
    pub fn graph(&mut self, graph: super::record::Graph) -> Result<(), TraceError> {
        self.append_record(&Record::Graph(graph))
    }

    /// Says that a step begins or ends.
    pub fn step(&mut self, step: Step) -> Result<(), TraceError> {
        self.append_record(&Record::Step(step))
    }

    /// Says something a reader should know.
    pub fn note(&mut self, note: Note) -> Result<(), TraceError> {
        self.append_record(&Record::Note(note))
    }

    /// Writes what waits as a shard: from now on it survives whatever happens to the program.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.check()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let index = self.next_shard;
        let written = shard::write(&self.folder, index, &self.waiting);
        let bytes = written.map_err(|(path, cause)| self.fail(&path, cause))?;
        let tensors = self.waiting.len() as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.keys.clear();
        self.next_shard += 1;
        self.append_record(&Record::Shard(Shard { index, bytes, tensors }))?;
        self.counts.shards += 1;
        self.log.sync_data().map_err(|cause| self.fail_log(cause))
    }

    /// Writes what waits, and that nothing was left out.
    pub fn finish(mut self) -> Result<(), TraceError> {
        self.flush()?;
        self.append_record(&Record::End(self.counts))?;
        self.log.sync_data().map_err(|cause| self.fail_log(cause))
    }

    /// Puts a tensor into the next shard, under a name that it does not have yet.
    fn place(&mut self, name: &str, tensor: Tensor) -> Place {
        // The format keeps this one name for itself.
        let name = if name == "__metadata__" { "__metadata" } else { name };
        let mut key = name.to_owned();
        while self.keys.contains_key(&key) {
            let count = self.keys.entry(name.to_owned()).or_insert(1);
            *count += 1;
            key = format!("{name}#{count}");
        }
        self.keys.insert(key.clone(), 1);
        self.waiting_bytes += tensor.raw_bytes().len() as u64;
        self.waiting.push(Waiting { key: key.clone(), tensor });
        Place { shard: self.next_shard, key }
    }

    fn flush_when_full(&mut self) -> Result<(), TraceError> {
        if self.waiting_bytes >= self.options.shard_bytes || self.waiting.len() >= MOST_IN_SHARD {
            return self.flush();
        }
        Ok(())
    }

    /// One line in one call of the system, so that a kill leaves it out or leaves it whole.
    fn append_record(&mut self, record: &Record) -> Result<(), TraceError> {
        self.check()?;
        let mut line = serde_json::to_vec(record).map_err(|e| self.fail_log(e.into()))?;
        line.push(b'\n');
        self.log.write_all(&line).map_err(|cause| self.fail_log(cause))?;
        self.sound += line.len() as u64;
        Ok(())
    }

    fn check(&self) -> Result<(), TraceError> {
        if self.failed { Err(TraceError::Stopped { path: self.folder.clone() }) } else { Ok(()) }
    }

    fn fail_log(&mut self, cause: io::Error) -> TraceError {
        let path = self.folder.join(LOG);
        self.fail(&path, cause)
    }

    fn fail(&mut self, path: &Path, cause: io::Error) -> TraceError {
        self.failed = true;
        // What was cut short may be removed, or a reader will tell.
        let _ = self.log.set_len(self.sound);
        write_error("write", path, cause)
    }
}

/// Two writers would mix their records.
fn lock(log: &File, path: &Path) -> Result<(), TraceError> {
    match log.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(TraceError::Busy { path: path.into() }),
        // A file system without locks is none of our business.
        Err(fs::TryLockError::Error(_)) | Ok(()) => Ok(()),
    }
}

/// The error of the system, and what it means where a user can do something.
pub(crate) fn write_error(action: &'static str, path: &Path, cause: io::Error) -> TraceError {
    let path = path.to_path_buf();
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            TraceError::Full { path, cause }
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            TraceError::ReadOnly { path, cause }
        }
        _ => TraceError::Io { action, path, cause },
    }
}

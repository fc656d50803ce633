//! Reading a trace, whole or not.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use isotrace_onnx::{MappedFile, file_bytes};
use isotrace_tensor::{DType, Tensor, element_count};
use rustc_hash::{FxHashMap, FxHashSet};

use super::record::{
    Call, End, Graph, Header, Node, Note, Place, Record, SCHEMA, Step, Storage, Value, View,
};
use super::shard::{Contents, check_elements, damaged, file_name};
use crate::TraceError;
use crate::strided::Strided;

/// The file of records.
pub const LOG: &str = "trace.jsonl";

/// Shards kept open at a time: a process may have only so many open files.
const OPEN: usize = 16;

/// A recording.
///
/// Opening reads the records, never the elements: [`tensor`](Self::tensor) maps those of one value.
pub struct Trace {
    folder: PathBuf,
    header: Header,
    graphs: Vec<Graph>,
    nodes: Vec<Node>,
    values: Vec<Value>,
    storages: Vec<Storage>,
    steps: Vec<Step>,
    calls: Vec<Call>,
    notes: Vec<Note>,
    /// The names of the values, each once.
    names: Vec<String>,
    by_id: FxHashMap<u64, usize>,
    snapshots: FxHashMap<(u64, u64), usize>,
    shards: Shards,
    missing: Missing,
    sound: u64,
}

/// What a trace lacks: everything, where its writer could finish, is 0 and false.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Its writer did not finish: killed, failed, or still at work.
    pub unfinished: bool,
    /// The last record was cut short.
    pub cut: bool,
    /// Values whose elements were to be in a shard that is not there, by their place in [`Trace::values`].
    pub values: Vec<usize>,
    /// Those shards.
    pub shards: Vec<u32>,
    /// Values that nodes, calls or graphs name and of which there is no record.
    pub unknown: usize,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Missing {
    /// A sentence for each kind of thing that is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![];
        if self.unfinished {
            parts.push("the recorder did not finish".to_owned());
        }
        if self.cut {
            parts.push("its last record is cut short".to_owned());
        }
        if !self.values.is_empty() {
            let files: Vec<String> = self.shards.iter().take(3).map(|&s| file_name(s)).collect();
            let more = if self.shards.len() > files.len() { " and more" } else { "" };
            let values =
                if self.values.len() == 1 { "1 value" } else { &format!("{} values", self.values.len()) };
            parts.push(format!("the elements of {values} are missing ({}{more})", files.join(", ")));
        }
        if self.unknown > 0 {
            parts.push(format!("{} values are named and were not recorded", self.unknown));
        }
        f.write_str(if parts.is_empty() { "nothing is missing" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

impl Trace {
    /// Reads the records of a folder.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, TraceError> {
        let folder = folder.as_ref();
        let log = folder.join(LOG);
        let bytes = file_bytes(&log)?;
        Self::read(folder, &bytes).map_err(|e| e.in_file(&log))
    }

    fn read(folder: &Path, bytes: &[u8]) -> Result<Self, TraceError> {
        let (lines, rest) = match bytes.iter().rposition(|&b| b == b'\n') {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (&bytes[..0], bytes),
        };
        let mut records = lines.split(|&b| b == b'\n').enumerate().map(|(at, line)| {
            serde_json::from_slice::<Record>(line)
                .map_err(|e| damaged(format!("line {} is no record: {e}", at + 1)))
        });
        let header = if lines.is_empty() { None } else { records.next().transpose()? };
        let Some(Record::Header(header)) = header else {
            return Err(damaged(
                "it does not begin with a header; its recorder was stopped before it began, or it is no trace"
                    .into(),
            ));
        };
        if header.schema != SCHEMA {
            return Err(TraceError::Schema { found: header.schema, expected: SCHEMA });
        }
        let mut trace = Self {
            folder: folder.to_path_buf(),
            header,
            graphs: vec![],
            nodes: vec![],
            values: vec![],
            storages: vec![],
            steps: vec![],
            calls: vec![],
            notes: vec![],
            names: vec![],
            by_id: FxHashMap::default(),
            snapshots: FxHashMap::default(),
            shards: Shards { folder: folder.to_path_buf(), ..Shards::default() },
            missing: Missing { unfinished: true, cut: !rest.is_empty(), ..Missing::default() },
            sound: (bytes.len() - rest.len()) as u64,
        };
        let mut written = 0;
        for record in records {
            let record = record?;
            trace.missing.unfinished = !matches!(record, Record::End(_));
            match record {
                Record::Graph(graph) => trace.graphs.push(graph),
                Record::Node(node) => trace.nodes.push(node),
                Record::Value(value) => {
                    if trace.by_id.insert(value.id, trace.values.len()).is_some() {
                        return Err(damaged(format!("two values have the id {}", value.id)));
                    }
                    trace.values.push(value);
                }
                Record::Storage(storage) => {
                    trace.snapshots.insert((storage.id, storage.version), trace.storages.len());
                    trace.storages.push(storage);
                }
                Record::Step(step) => trace.steps.push(step),
                Record::Call(call) => trace.calls.push(call),
                Record::Note(note) => trace.notes.push(note),
                Record::Shard(_) => written += 1,
                Record::Header(_) => return Err(damaged("it has two headers".into())),
                Record::End(_) | Record::Unknown => {}
            }
        }
        trace.shards.written = written;
        trace.missing.unfinished |= trace.missing.cut;
        trace.names = names(&trace.values);
        trace.look_for_missing();
        Ok(trace)
    }

    /// Shards that are not there, and records that are not.
    fn look_for_missing(&mut self) {
        let place_of = |value: &Value| match (&value.data, &value.storage) {
            (Some(place), _) => Some(place.shard),
            (None, Some(view)) => self.snapshot(*view).and_then(|s| s.data.as_ref()).map(|p| p.shard),
            (None, None) => None,
        };
        let wanted: Vec<Option<u32>> = self.values.iter().map(place_of).collect();
        let mut there: FxHashMap<u32, bool> = FxHashMap::default();
        let mut lost = vec![];
        for (at, shard) in wanted.into_iter().enumerate() {
            let Some(shard) = shard else { continue };
            let there = there.entry(shard).or_insert_with(|| self.folder.join(file_name(shard)).is_file());
            if !*there {
                lost.push(at);
            }
        }
        self.missing.values = lost;
        self.missing.shards = there.into_iter().filter(|(_, there)| !there).map(|(shard, _)| shard).collect();
        self.missing.shards.sort_unstable();
        let of_nodes = self.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).flatten());
        let of_calls = self.calls.iter().flat_map(|c| c.inputs.iter().chain(&c.outputs));
        let of_graphs = self.graphs.iter().flat_map(|g| g.inputs.iter().chain(&g.outputs));
        let unknown: FxHashSet<u64> = of_nodes
            .chain(of_calls)
            .chain(of_graphs)
            .filter(|id| !self.by_id.contains_key(id))
            .copied()
            .collect();
        self.missing.unknown = unknown.len();
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Who recorded, on what, and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The inputs and outputs of the graph and of bodies in it, where they were recorded.
    pub fn graphs(&self) -> &[Graph] {
        &self.graphs
    }

    /// The calls of operators, in the order in which they were recorded.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The values, in the order in which they were recorded.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The names of the values, each once: `name`, where several share it `name@step` or, where that does not tell them
    /// apart either, `name#id`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The value with this id.
    pub fn by_id(&self, id: u64) -> Option<&Value> {
        self.by_id.get(&id).map(|&at| &self.values[at])
    }

    /// The beginnings and ends of steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The calls of modules, in the order in which they returned.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// What the recorder wanted to be known.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// What a user should know: what is missing, and what the recorder noted.
    pub fn told(&self) -> Vec<Note> {
        let missing = (!self.missing.is_empty()).then(|| Note::of_reader(self.missing.to_string()));
        missing.into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// What is missing.
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// How many records of each kind there are.
    pub fn counts(&self) -> End {
        End {
            values: self.values.len() as u64,
            nodes: self.nodes.len() as u64,
            calls: self.calls.len() as u64,
            shards: self.shards.written,
        }
    }

    /// Bytes of the log up to the end of the last whole record.
    pub(super) fn sound_bytes(&self) -> u64 {
        self.sound
    }

    /// The first shard that no record speaks of.
    pub(super) fn next_shard(&self) -> u32 {
        let places = self.values.iter().filter_map(|v| v.data.as_ref());
        let places = places.chain(self.storages.iter().filter_map(|s| s.data.as_ref()));
        places.map(|p| p.shard.saturating_add(1)).max().unwrap_or(0)
    }

    /// Whether the elements of a value are there to be read.
    pub fn has_data(&self, at: usize) -> bool {
        let value = &self.values[at];
        let kept = value.data.is_some()
            || value.storage.and_then(|view| self.snapshot(view)).is_some_and(|s| s.data.is_some());
        kept && self.missing.values.binary_search(&at).is_err()
    }

    /// Type and shape of a value.
    pub fn typed(&self, value: &Value) -> Result<(DType, Vec<usize>), TraceError> {
        let dtype = DType::parse(&value.dtype).ok_or_else(|| TraceError::ElementType {
            name: value.name.clone(),
            found: value.dtype.clone(),
            remedy: "read it with a newer isotrace",
        })?;
        let shape: Option<Vec<usize>> = value.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape =
            shape.ok_or_else(|| damaged(format!("value {:?} has an impossible shape", value.name)))?;
        element_count(&shape).map_err(|cause| TraceError::Tensor { name: value.name.clone(), cause })?;
        Ok((dtype, shape))
    }

    /// The elements of a value, mapped from its shard.
    pub fn tensor(&self, value: &Value) -> Result<Tensor, TraceError> {
        let (dtype, shape) = self.typed(value)?;
        let why = |why: &str| TraceError::NoData { name: value.name.clone(), why: why.into() };
        if let Some(place) = &value.data {
            return self
                .shards
                .read(place, |contents, file| contents.tensor(file, &place.key, dtype, &shape));
        }
        if let Some(snapshot) = value.storage.and_then(|view| self.snapshot(view))
            && let (Some(place), Some(view)) = (&snapshot.data, value.storage)
        {
            let bytes = self.shards.read(place, |contents, file| contents.bytes(file, &place.key))?;
            return strided(value, view, dtype, &shape, &bytes);
        }
        Err(match &value.omitted {
            Some(reason) => why(reason),
            None if value.digest.is_some() => why("only its digest was kept"),
            None => why("they were not kept"),
        })
    }

    /// Every value with its elements, one after the other, each mapped when the iterator comes to it.
    pub fn tensors(&self) -> impl Iterator<Item = (&Value, Result<Tensor, TraceError>)> {
        self.values.iter().map(|value| (value, self.tensor(value)))
    }

    /// The names of the tensors in a finished shard: for those who look at shards themselves.
    pub fn shard_keys(&self, shard: u32) -> Result<Vec<String>, TraceError> {
        let mut keys: Vec<String> = self.shards.open(shard)?.0.keys().map(str::to_owned).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    fn snapshot(&self, view: View) -> Option<&Storage> {
        self.snapshots.get(&(view.id, view.version)).map(|&at| &self.storages[at])
    }
}

/// A view of a storage, dense; its bytes are shared where it lies in C order.
fn strided(
    value: &Value,
    view: View,
    dtype: DType,
    shape: &[usize],
    bytes: &Bytes,
) -> Result<Tensor, TraceError> {
    let whole = |n: u64| {
        usize::try_from(n).map_err(|_| damaged(format!("value {:?} has impossible strides", value.name)))
    };
    let strides = value.strides.as_ref().map(|s| s.iter().map(|&n| whole(n)).collect::<Result<_, _>>());
    let view =
        Strided { dtype, shape: shape.to_vec(), strides: strides.transpose()?, offset: whole(view.offset)? };
    let tensor = view.dense(&value.name, &bytes.slice(view.span(&value.name, bytes.len())?))?;
    check_elements(&value.name, dtype, tensor.raw_bytes())?;
    Ok(tensor)
}

/// A name for each value, none of them twice.
fn names(values: &[Value]) -> Vec<String> {
    let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
    for value in values {
        *counts.entry(&value.name).or_default() += 1;
    }
    let mut seen = FxHashSet::default();
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        let mut name = match value.step {
            Some(step) if counts[value.name.as_str()] > 1 => format!("{}@{step}", value.name),
            _ => value.name.clone(),
        };
        if !seen.insert(name.clone()) {
            name = format!("{}#{}", value.name, value.id);
            while !seen.insert(name.clone()) {
                name.push('#');
            }
        }
        out.push(name);
    }
    out
}

/// The files of data, opened when they are needed.
#[derive(Default)]
struct Shards {
    folder: PathBuf,
    written: u64,
    contents: Mutex<FxHashMap<u32, Arc<OnceLock<Contents>>>>,
    open: Mutex<VecDeque<(u32, Arc<MappedFile>)>>,
}

impl Shards {
    fn read<T>(
        &self,
        place: &Place,
        get: impl FnOnce(&Contents, &MappedFile) -> Result<T, TraceError>,
    ) -> Result<T, TraceError> {
        let (contents, file) = self.open(place.shard)?;
        get(&contents, &file).map_err(|e| e.in_file(file.path()))
    }

    fn open(&self, shard: u32) -> Result<(ContentsRef, Arc<MappedFile>), TraceError> {
        let file = self.file(shard)?;
        let slot = {
            let mut all = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(shard).or_default())
        };
        if slot.get().is_none() {
            let read = Contents::read(&file).map_err(|e| e.in_file(file.path()))?;
            let _ = slot.set(read); // another thread may have read the same
        }
        Ok((ContentsRef(slot), file))
    }

    fn file(&self, shard: u32) -> Result<Arc<MappedFile>, TraceError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(index, _)| *index == shard) {
            return Ok(Arc::clone(file));
        }
        let path = self.folder.join(file_name(shard));
        let file = match MappedFile::open(&path) {
            Ok(file) => Arc::new(file),
            Err(_) if !path.exists() => {
                return Err(damaged(format!("{} is missing: its recorder was stopped", path.display())));
            }
            Err(error) => return Err(error.into()),
        };
        if open.len() == OPEN {
            open.pop_front();
        }
        open.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }
}

/// Contents that are known to have been read.
struct ContentsRef(Arc<OnceLock<Contents>>);

impl std::ops::Deref for ContentsRef {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        self.0.get().expect("set before it was wrapped")
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:?}, {} values, {})", self.folder, self.values.len(), self.missing)
    }
}

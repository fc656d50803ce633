//! The records of `trace.jsonl`, one JSON object a line.
//!
//! docs/trace-format.md is the specification; these types are its form in Rust. Fields that are absent mean «not
//! known». Readers skip records and fields that they do not know, so that a later version 1 can add some.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::number::Number;

/// The schema that this crate writes, and reads.
pub const SCHEMA: &str = "isotrace.trace/1";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "records live one at a time, while their line is read or written"
)]
pub enum Record {
    /// The first line.
    Header(Header),
    /// What the graph reads and gives.
    Graph(Graph),
    /// One call of an operator.
    Node(Node),
    /// A tensor.
    Value(Value),
    /// The bytes that several values share.
    Storage(Storage),
    /// A step begins or ends.
    Step(Step),
    /// One call of a module.
    Call(Call),
    /// A file of data is whole and in its place.
    Shard(Shard),
    /// Something a reader should know.
    Note(Note),
    /// Nothing was left out.
    End(End),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Who recorded, on what, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Always [`SCHEMA`]; the writer sets it.
    pub schema: String,
    /// The program that wrote the trace.
    pub producer: Producer,
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was recorded, in the user's words: a model file, a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Versions of everything that computes: `torch`, `cuda`, `onnxruntime`, ...
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Where it was computed: `cpu`, `cuda:0`, with the name of the device where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What decides how exactly the device computes.
    #[serde(skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// What is kept of values.
    pub keeps: Keeps,
}

/// A program and its version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Producer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Settings of the framework that change results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flags {
    /// Whether matrix products may round their inputs to TF32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tf32_matmul: Option<bool>,
    /// Whether convolutions may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tf32_convolution: Option<bool>,
    /// The type that autocast computes in, `off` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autocast: Option<String>,
    /// Whether the network was in training mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<bool>,
    /// Whether gradients were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradients: Option<bool>,
    /// Whether only deterministic algorithms were allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<bool>,
    /// Threads of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Whatever else the producer finds worth telling.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Flags {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// Their elements.
    #[default]
    Data,
    /// Statistics and signatures.
    Digest,
    /// Both.
    Both,
}

/// The values that a graph reads and gives, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Graph {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Values by id.
    pub inputs: Vec<u64>,
    /// Values by id.
    pub outputs: Vec<u64>,
    /// For the body of a control-flow operator: the node and its attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
}

/// One call of an operator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Unique among nodes; the writer sets it.
    pub id: u64,
    /// Its name in the user's model; may be empty.
    pub name: String,
    /// The operator: `MatMul`, `aten.mm.default`.
    pub op: String,
    /// The operator's domain, empty for ONNX's own; `aten` and the like for frameworks.
    pub domain: String,
    /// The version of the domain's operator set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Settings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
    /// Values by id, `None` where an optional input is left out. Their records may come later.
    pub inputs: Vec<Option<u64>>,
    /// Values by id, `None` where an output is not wanted.
    pub outputs: Vec<Option<u64>>,
    /// The modules around it by path, the outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    /// The call of a module in which it ran, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<u64>,
    /// The step in which it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The body it belongs to, where it is not in the outermost graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// Where in the user's program, `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// A body: the attribute of a node that holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// The node by id.
    pub node: u64,
    /// Its attribute.
    pub attribute: String,
}

/// A setting of a node, with its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(Number),
    /// A truth value.
    Bool(bool),
    /// Text.
    String(String),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<Number>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts.
    Strings(Vec<String>),
    /// A tensor: a value by id.
    Tensor(u64),
    /// Tensors: values by id.
    Tensors(Vec<u64>),
    /// A body, of which the nodes say [`Node::within`].
    Body(String),
    /// An element type.
    Dtype(String),
    /// Anything else, as its producer writes it.
    Other(serde_json::Value),
}

/// What part a value plays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Fed from outside.
    Input,
    /// Given to the outside.
    Output,
    /// Learnt.
    Parameter,
    /// Kept with the network, not learnt: running means.
    Buffer,
    /// Part of the program.
    Constant,
    /// The gradient of another value.
    Gradient,
    /// State of an optimiser.
    Optimizer,
    /// Computed on the way.
    #[default]
    Intermediate,
    /// A role that this version does not know.
    #[serde(other)]
    Other,
}

/// A tensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Value {
    /// Unique among values; the writer sets it where it is 0.
    pub id: u64,
    /// Its name in the user's model. Names may repeat: a parameter has one value a step.
    pub name: String,
    /// What part it plays.
    pub role: Role,
    /// Its element type, by [`isotrace_tensor::DType::name`].
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Elements between neighbours along each axis in its storage; absent: C order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<u64>>,
    /// The storage that it is a view of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<View>,
    /// The node that computed it, and which of its outputs it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// Which output of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// The step in which it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The call of a module in which it was taken, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<u64>,
    /// The module it belongs to, by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Where it lived, if not on the header's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// For a gradient or state of an optimiser: the value it belongs to, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Where its elements are. Absent: in its storage, or not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Place>,
    /// Why its elements are not kept, if it is not for [`Keeps::Digest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
    /// Its statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Value {
    /// A value with a name and a part to play; the writer fills in what the tensor says.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, ..Self::default() }
    }
}

/// Which stretch of which storage a value looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The storage: values with the same number share memory.
    pub id: u64,
    /// How often the storage had been written to when the value was taken.
    #[serde(default)]
    pub version: u64,
    /// Where the value's first element is, in elements of its type.
    #[serde(default)]
    pub offset: u64,
}

/// A snapshot of a storage that several values share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// As in [`View::id`].
    pub id: u64,
    /// As in [`View::version`].
    pub version: u64,
    /// Its size.
    pub bytes: u64,
    /// Where its bytes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Place>,
}

/// Where elements are: a tensor of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of the shard.
    pub shard: u32,
    /// The tensor's name in it.
    pub key: String,
}

/// A step of training, or of whatever is repeated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Which.
    pub index: u64,
    /// Whether it begins or ends.
    pub event: Event,
    /// What it is called: `warmup`, `decode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One end of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It begins.
    #[default]
    Begin,
    /// It ends.
    End,
}

/// One call of a module, written when it returns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// Unique among calls; the writer sets it where it is 0.
    pub id: u64,
    /// The module's path: `encoder.layers.0.attention`.
    pub module: String,
    /// The module's class.
    pub class: String,
    /// Which call of this module in this step, from 0.
    pub index: u64,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The call around it, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// Values that it was given, by id.
    pub inputs: Vec<u64>,
    /// Values that it gave, by id.
    pub outputs: Vec<u64>,
}

/// A shard that is whole and in its place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shard {
    /// Its number.
    pub index: u32,
    /// Its size.
    pub bytes: u64,
    /// How many tensors it holds.
    pub tensors: u64,
}

/// Something a reader should know: what the recorder could not do, or what whoever opened the file missed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// What kind: `interrupted`, `uncalled`, `tied`, ...
    pub class: String,
    /// One sentence.
    pub text: String,
    /// Names of values, nodes or modules.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

impl Note {
    /// The class of what a reader has to say of a file; no recorder writes it.
    pub const READER: &str = "reader";

    /// What a reader has to say of a file.
    pub(crate) fn of_reader(text: String) -> Self {
        Self { class: Self::READER.into(), text, places: vec![] }
    }

    /// Whether it limits what the tensors tell. That weights are tied is so in the network.
    pub fn limits(&self) -> bool {
        self.class != "tied"
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How many records of each kind came before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// Values.
    pub values: u64,
    /// Nodes.
    pub nodes: u64,
    /// Calls.
    pub calls: u64,
    /// Shards.
    pub shards: u64,
}

//! One call of an ATen operator while it is written as nodes.

use isotrace_graph::{Attribute, Graph, Node, Value, ValueId};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::trace::record;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::VERSION;

/// Type and shape.
pub type Typed = (DType, Vec<usize>);

/// A call, what is known of its tensors, and the nodes that it has become so far.
pub struct Call<'c> {
    graph: &'c mut Graph,
    node: &'c record::Node,
    inputs: Vec<Option<ValueId>>,
    /// The types of what it reads, as recorded.
    given: Vec<Option<Typed>>,
    /// The types of what it gives, as recorded.
    pub wanted: Vec<Option<Typed>>,
    types: FxHashMap<ValueId, DType>,
    nodes: Vec<Node>,
    made: FxHashSet<ValueId>,
}

impl<'c> Call<'c> {
    pub fn new(
        graph: &'c mut Graph,
        node: &'c record::Node,
        inputs: Vec<Option<ValueId>>,
        given: Vec<Option<Typed>>,
        wanted: Vec<Option<Typed>>,
    ) -> Self {
        let types = inputs.iter().zip(&given).filter_map(|(v, t)| Some(((*v)?, t.as_ref()?.0))).collect();
        Self { graph, node, inputs, given, wanted, types, nodes: vec![], made: FxHashSet::default() }
    }

    /// The nodes, and the values that they write.
    pub fn finish(self) -> (Vec<Node>, FxHashSet<ValueId>) {
        (self.nodes, self.made)
    }

    /// The operator without its overload and without the mark of writing in place: `add` for `add_.Tensor`.
    pub fn operator(&self) -> &'c str {
        let name = self.node.op.split('.').next().unwrap_or_default();
        match name.strip_suffix('_') {
            Some(plain) if !name.ends_with("__") => plain,
            _ => name,
        }
    }

    /// Whose operator it is.
    pub fn domain(&self) -> &'c str {
        &self.node.domain
    }

    /// The operator's overload: `Tensor`, `dim_IntList`.
    pub fn overload(&self) -> &'c str {
        self.node.op.split_once('.').map_or("", |(_, overload)| overload)
    }

    /// How many tensors it reads.
    pub fn arity(&self) -> usize {
        self.inputs.len()
    }

    pub fn input(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }

    pub fn shape(&self, at: usize) -> Option<&[usize]> {
        self.given.get(at)?.as_ref().map(|(_, shape)| shape.as_slice())
    }

    pub fn dtype(&self, at: usize) -> Option<DType> {
        self.given.get(at)?.as_ref().map(|(dtype, _)| *dtype)
    }

    /// The type of a value that was read or made here.
    pub fn type_of(&self, v: ValueId) -> Option<DType> {
        self.types.get(&v).copied()
    }

    pub fn rank(&self, at: usize) -> Option<i64> {
        self.shape(at).map(|s| s.len() as i64)
    }

    /// Type and shape of an output.
    pub fn result(&self, at: usize) -> Option<(DType, Vec<usize>)> {
        self.wanted.get(at)?.clone()
    }

    // Settings

    pub fn setting(&self, name: &str) -> Option<&'c record::Attribute> {
        self.node.attributes.get(name)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.setting(name)? {
            record::Attribute::Int(i) => Some(*i),
            record::Attribute::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        self.int(name) == Some(1)
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        match self.setting(name)? {
            record::Attribute::Float(x) => Some(x.0),
            record::Attribute::Int(i) => Some(*i as f64),
            record::Attribute::Bool(b) => Some(f64::from(u8::from(*b))),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.setting(name)? {
            record::Attribute::Ints(list) => Some(list.clone()),
            record::Attribute::Int(one) => Some(vec![*one]),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&'c str> {
        match self.setting(name)? {
            record::Attribute::String(text) => Some(text),
            _ => None,
        }
    }

    /// An axis, counted from the front.
    pub fn axis(&self, name: &str, rank: i64) -> Option<i64> {
        let axis = self.int(name)?;
        Some(if axis < 0 { axis + rank.max(1) } else { axis })
    }

    // Nodes

    /// A node with one output of a type.
    pub fn typed(
        &mut self,
        dtype: DType,
        op: &str,
        inputs: &[Option<ValueId>],
        settings: &[(&str, Attribute)],
    ) -> ValueId {
        let v = self.fresh(op, dtype);
        self.push(op, inputs, &[Some(v)], settings);
        v
    }

    /// A node whose output has the type of its first input.
    pub fn op(&mut self, op: &str, inputs: &[ValueId], settings: &[(&str, Attribute)]) -> ValueId {
        let dtype = inputs.first().and_then(|v| self.type_of(*v)).unwrap_or(DType::F32);
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.typed(dtype, op, &inputs, settings)
    }

    /// A node with several outputs.
    pub fn several(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        outputs: &[DType],
        settings: &[(&str, Attribute)],
    ) -> Vec<ValueId> {
        let made: Vec<ValueId> = outputs.iter().map(|&d| self.fresh(op, d)).collect();
        let outputs: Vec<_> = made.iter().copied().map(Some).collect();
        self.push(op, inputs, &outputs, settings);
        made
    }

    fn fresh(&mut self, op: &str, dtype: DType) -> ValueId {
        let base = self.node.outputs.iter().flatten().next().copied().unwrap_or(0);
        let name = format!("{base}/{op}/{}", self.made.len());
        let v = self.graph.add_value(Value { name, ..Value::default() });
        self.types.insert(v, dtype);
        self.made.insert(v);
        v
    }

    fn push(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
        settings: &[(&str, Attribute)],
    ) {
        self.nodes.push(Node {
            name: String::new(),
            domain: String::new(),
            op: op.to_owned(),
            version: VERSION,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            attributes: settings.iter().map(|(n, a)| ((*n).to_owned(), a.clone())).collect(),
        });
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let base = self.node.outputs.iter().flatten().next().copied().unwrap_or(0);
        let name = format!("{base}/constant/{}", self.graph.values.len());
        let dtype = tensor.dtype();
        let v = self.graph.add_value(Value { name, constant: Some(tensor), declared: None });
        self.types.insert(v, dtype);
        v
    }

    pub fn integers(&mut self, list: Vec<i64>) -> ValueId {
        self.constant(Tensor::vector(list))
    }

    /// A number of a type, as a tensor without axes.
    pub fn scalar(&mut self, x: f64, dtype: DType) -> Option<ValueId> {
        let tensor = Tensor::scalar(x).cast(dtype).ok()?;
        Some(self.constant(tensor))
    }

    /// A value in another type.
    pub fn cast(&mut self, v: ValueId, dtype: DType) -> Option<ValueId> {
        if self.type_of(v) == Some(dtype) {
            return Some(v);
        }
        let code = onnx_code(dtype)?;
        Some(self.typed(dtype, "Cast", &[Some(v)], &[("to", Attribute::Int(code))]))
    }

    /// Input `at` in another type.
    pub fn input_as(&mut self, at: usize, dtype: DType) -> Option<ValueId> {
        let v = self.input(at)?;
        self.cast(v, dtype)
    }
}

/// ONNX's number of an element type.
pub fn onnx_code(dtype: DType) -> Option<i64> {
    Some(match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
        _ => return None,
    })
}

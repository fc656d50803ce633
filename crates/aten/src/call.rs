//! One call of an ATen operator while it is written as nodes.

use isotrace_graph::{Attribute, Graph, Node, Value, ValueId};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::trace::record;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::VERSION;

/// Type and shape.
pub type Typed = (DType, Vec<usize>);

/// What a trace tells of the values that a call names.
pub trait Told {
    /// The elements, where they were kept.
    fn elements(&self, id: u64) -> Option<Tensor>;
    /// Strides and offset in the storage, in elements.
    fn layout(&self, id: u64) -> Option<(Vec<i64>, i64)>;
}

/// A call, what is known of its tensors, and the nodes that it has become so far.
pub struct Call<'c> {
    graph: &'c mut Graph,
    node: &'c record::Node,
    inputs: Vec<Option<ValueId>>,
    /// The types of what it reads, as recorded.
    given: Vec<Option<Typed>>,
    /// The types of what it gives, as recorded.
    pub wanted: Vec<Option<Typed>>,
    trace: &'c dyn Told,
    /// A number that stands for a setting while one of several tensors is looked at.
    instead: Option<(&'static str, f64)>,
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
        trace: &'c dyn Told,
    ) -> Self {
        let types = inputs.iter().zip(&given).filter_map(|(v, t)| Some(((*v)?, t.as_ref()?.0))).collect();
        let (nodes, made) = (Vec::new(), FxHashSet::default());
        Self { graph, node, inputs, given, wanted, trace, instead: None, types, nodes, made }
    }

    /// The same call seen by one of several tensors: reads inputs `inputs`, gives output `output`, and has `instead` for
    /// a setting.
    pub fn narrowed<R>(
        &mut self,
        inputs: &[usize],
        output: usize,
        instead: Option<(&'static str, f64)>,
        rule: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let picked = inputs.iter().map(|&i| self.inputs.get(i).copied().flatten()).collect();
        let types = inputs.iter().map(|&i| self.given.get(i).cloned().flatten()).collect();
        let wanted = vec![self.wanted.get(output).cloned().flatten()];
        let all = (
            std::mem::replace(&mut self.inputs, picked),
            std::mem::replace(&mut self.given, types),
            std::mem::replace(&mut self.wanted, wanted),
        );
        self.instead = instead;
        let result = rule(self);
        (self.inputs, self.given, self.wanted) = all;
        self.instead = None;
        result
    }

    /// What was recorded of input `at`.
    pub fn elements(&self, at: usize) -> Option<Tensor> {
        self.trace.elements(self.node.inputs.get(at).copied().flatten()?)
    }

    /// Strides and offset of input `at` in its storage, in elements; C order from 0 where nothing was said.
    pub fn layout(&self, at: usize) -> Option<(Vec<i64>, i64)> {
        self.trace.layout(self.node.inputs.get(at).copied().flatten()?)
    }

    /// Whether the elements of output `at` were kept.
    pub fn keeps(&self, at: usize) -> bool {
        let id = self.node.outputs.get(at).copied().flatten();
        id.is_some_and(|id| self.trace.elements(id).is_some())
    }

    /// What was recorded of output `at`, as a constant: what the call drew at random.
    pub fn drawn(&mut self, at: usize) -> Option<ValueId> {
        let tensor = self.trace.elements(self.node.outputs.get(at).copied().flatten()?)?;
        Some(self.constant(tensor))
    }

    /// All that it reads.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Whether it reads or gives complex numbers.
    pub fn is_complex(&self) -> bool {
        let complex = |t: &Option<Typed>| matches!(t, Some((DType::C64 | DType::C128, _)));
        self.given.iter().chain(&self.wanted).any(complex)
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

    /// How many tensors it gives.
    pub fn results(&self) -> usize {
        self.wanted.len()
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
        if let Some((instead, x)) = self.instead
            && instead == name
        {
            return Some(x);
        }
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

    pub fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        match self.setting(name)? {
            record::Attribute::Floats(list) => Some(list.iter().map(|x| x.0).collect()),
            record::Attribute::Ints(list) => Some(list.iter().map(|&i| i as f64).collect()),
            _ => None,
        }
    }

    /// Whether output `at` is wanted, where the call has a mask of its outputs.
    pub fn asked(&self, at: usize) -> bool {
        match self.setting("output_mask") {
            Some(record::Attribute::Bools(mask)) => mask.get(at).copied().unwrap_or(true),
            _ => true,
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

    /// Input `at` in the type in which kernels compute: f64, or f32 for all that is narrower.
    pub fn wide(&mut self, at: usize) -> Option<ValueId> {
        let dtype = if self.dtype(at)? == DType::F64 { DType::F64 } else { DType::F32 };
        self.input_as(at, dtype)
    }

    /// A value in the type of output `at`.
    pub fn as_result(&mut self, v: ValueId, at: usize) -> Option<ValueId> {
        let dtype = self.result(at)?.0;
        self.cast(v, dtype)
    }

    pub fn add(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.op("Add", &[x, y], &[])
    }

    pub fn sub(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.op("Sub", &[x, y], &[])
    }

    pub fn mul(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.op("Mul", &[x, y], &[])
    }

    pub fn div(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.op("Div", &[x, y], &[])
    }

    pub fn matmul(&mut self, x: ValueId, y: ValueId) -> ValueId {
        self.op("MatMul", &[x, y], &[])
    }

    /// A number of the type of `like`.
    pub fn number_like(&mut self, x: f64, like: ValueId) -> Option<ValueId> {
        let dtype = self.type_of(like)?;
        self.scalar(x, dtype)
    }

    /// A value times a number.
    pub fn times(&mut self, v: ValueId, factor: f64) -> Option<ValueId> {
        let factor = self.number_like(factor, v)?;
        Some(self.mul(v, factor))
    }

    /// A value plus a number.
    pub fn plus(&mut self, v: ValueId, x: f64) -> Option<ValueId> {
        let x = self.number_like(x, v)?;
        Some(self.add(v, x))
    }

    /// A number minus a value.
    pub fn from(&mut self, x: f64, v: ValueId) -> Option<ValueId> {
        let x = self.number_like(x, v)?;
        Some(self.sub(x, v))
    }

    /// `op` over axes; over all where none are given.
    pub fn over(&mut self, op: &str, v: ValueId, axes: &[i64], keep: bool) -> ValueId {
        let settings = [("keepdims", Attribute::Int(i64::from(keep)))];
        if axes.is_empty() {
            return self.op(op, &[v], &settings);
        }
        let axes = self.integers(axes.to_vec());
        self.op(op, &[v, axes], &settings)
    }

    /// `x` where `op(v, limit)` holds, else `y`.
    pub fn choose(&mut self, op: &str, v: ValueId, limit: f64, x: ValueId, y: ValueId) -> Option<ValueId> {
        let limit = self.number_like(limit, v)?;
        let holds = self.typed(DType::Bool, op, &[Some(v), Some(limit)], &[]);
        Some(self.pick(holds, x, y))
    }

    /// `x` where a condition holds, else `y`.
    pub fn pick(&mut self, condition: ValueId, x: ValueId, y: ValueId) -> ValueId {
        let dtype = self.type_of(x).unwrap_or(DType::F32);
        self.typed(dtype, "Where", &[Some(condition), Some(x), Some(y)], &[])
    }

    /// A tensor of one number.
    pub fn filled(&mut self, x: f64, shape: &[usize], dtype: DType) -> Option<ValueId> {
        let v = self.scalar(x, dtype)?;
        let shape = self.integers(shape.iter().map(|&n| n as i64).collect());
        Some(self.op("Expand", &[v, shape], &[]))
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

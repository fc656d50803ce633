//! Operators of the domain ai.onnx.ml, which the exporters of scikit-learn, LightGBM and XGBoost write, as far as they
//! are about tensors.
//!
//! Whatever numbers come in, these operators compute and answer in f32. Where the definition is silent (how two classes
//! share one score, what a label is decided by), ONNX Runtime's reading is taken, since nobody has another.

pub mod feature;
pub mod label;
pub mod linear;
pub mod normalizer;
pub mod scaler;
mod scores;
pub mod svm;
pub mod tree;
mod tree_parse;
pub mod zip_map;

use isotrace_tensor::{DType, Tensor};

use crate::spread::Number;
use crate::{Call, Float, OpError, Precision};

/// Runs `$body` with `$T` the float type in which this call computes: f32, or f64 in a float64 evaluation.
macro_rules! computing {
    ($call:expr, $T:ident => $body:expr) => {
        match $call.precision {
            $crate::Precision::Declared => {
                type $T = f32;
                $body
            }
            $crate::Precision::Float64 => {
                type $T = f64;
                $body
            }
        }
    };
}
use computing;

/// Input 0 as rows of features. One axis is one row.
struct Rows<T> {
    data: Vec<T>,
    count: usize,
    width: usize,
}

/// How many rows, and how many features in each.
fn sizes(x: &Tensor) -> Result<(usize, usize), OpError> {
    match *x.shape() {
        [width] => Ok((1, width)),
        [count, width] => Ok((count, width)),
        ref other => Err(OpError::Input(format!("X has shape {other:?}, expected [rows, features]"))),
    }
}

impl<T: Float> Rows<T> {
    fn of(call: &Call<'_>) -> Result<Self, OpError> {
        let x = call.need(0, "X")?;
        let (count, width) = sizes(x)?;
        Ok(Self { data: numbers::<T>(x)?.as_slice::<T>()?.to_vec(), count, width })
    }

    fn exact<N: Number<Weight = T>>(&self) -> Vec<N> {
        self.data.iter().map(|&x| N::exact(x)).collect()
    }
}

/// X in a type of floats; texts are refused.
fn numbers<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let found = x.dtype();
    if found == DType::String {
        return Err(OpError::DType { what: "X", found, supported: "numbers" });
    }
    Ok(x.cast(T::DTYPE)?)
}

/// The type in which a float output is held.
fn answer(precision: Precision) -> DType {
    precision.resolve(DType::F32)
}

#[cfg(test)]
mod testing {
    use isotrace_graph::{Attribute, Node, ValueId};
    use isotrace_tensor::Tensor;

    use crate::{Call, Precision};

    /// A node of this domain with two outputs.
    pub fn node(op: &str, version: i64, attributes: &[(&str, Attribute)]) -> Node {
        let outputs = vec![Some(ValueId(0)), Some(ValueId(1))];
        Node { domain: crate::registry::ML.into(), outputs, ..crate::testing::node(op, version, attributes) }
    }

    pub fn floats(list: &[f32]) -> Attribute {
        Attribute::Floats(list.to_vec())
    }

    pub fn ints(list: &[i64]) -> Attribute {
        Attribute::Ints(list.to_vec())
    }

    pub fn texts(list: &[&str]) -> Attribute {
        Attribute::Strings(list.iter().map(|t| t.as_bytes().to_vec()).collect())
    }

    pub fn text(text: &str) -> Attribute {
        Attribute::Bytes(text.into())
    }

    /// Whether each number is as expected, to some units of f32.
    pub fn close(got: &Tensor, expected: &[f64]) -> bool {
        let got = got.to_f64().unwrap();
        got.len() == expected.len()
            && got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(0.1))
    }

    /// Checks that f32 stays inside of the budget of output `index` on these inputs; how much of it is used.
    pub fn share(node: &Node, inputs: &[&Tensor], index: usize) -> f64 {
        let op = crate::build(node).unwrap();
        let given: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
        let outputs = node.outputs.len();
        let narrow = op.run(&Call { outputs, ..Call::new(&given) }).unwrap().swap_remove(index);
        let wide: Vec<Tensor> = inputs
            .iter()
            .map(|t| {
                if t.dtype().is_float() { t.cast(isotrace_tensor::DType::F64).unwrap() } else { (*t).clone() }
            })
            .collect();
        let wide: Vec<Option<&Tensor>> = wide.iter().map(Some).collect();
        let call = Call { outputs, precision: Precision::Float64, ..Call::new(&wide) };
        let exact = op.run(&call).unwrap().swap_remove(index);
        let budget = op.budget(&call, index, &exact, crate::budget::Unit::F32).unwrap();
        let pairs =
            narrow.to_f64().unwrap().into_owned().into_iter().zip(exact.to_f64().unwrap().into_owned());
        pairs.zip(budget).map(|((a, b), allowed)| (a - b).abs() / allowed.max(1e-300)).fold(0.0, f64::max)
    }

    /// Numbers between -1 and 1, the same each time.
    pub fn noise(shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
        };
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|_| next()).collect()).unwrap()
    }
}

//! A recorded sum of products, beside what it should be: how far each element strays, and how far rounding would take it.

use isotrace_align::Side;
use isotrace_align::patch::{Patch, Source};
use isotrace_graph::{Attribute, Node, NodeId, ValueId};
use isotrace_ops::{Precision, parallel};
use isotrace_tensor::{DType, Tensor, unravel};

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// A node that sums products of f32, with what enters it, in f64.
pub struct Product<'g> {
    node: &'g Node,
    inputs: Vec<Option<Tensor>>,
    /// Terms of each sum, without a bias.
    pub terms: usize,
}

/// How one run of a product strays from float64, element by element.
pub struct Residual {
    /// The product in float64.
    pub exact: Vec<f64>,
    /// What was recorded less that.
    pub error: Vec<f64>,
    /// The standard deviation of a sum in random order in f32: u·sqrt(K·(y²/3 + Σa²b²/6) + y²).
    pub walk: Vec<f64>,
    /// Elements before the axis that channels lie along, channels, elements after it.
    pub layout: [usize; 3],
}

impl<'g> Product<'g> {
    /// The product that `id` is, of what `lookup` yields; `None` for any other node, and for types other than f32.
    pub fn new(side: &Side<'g>, id: NodeId, lookup: &dyn Fn(ValueId) -> Option<Tensor>) -> Option<Self> {
        let node = side.graph().node(id);
        let is_one =
            |name: &str| !matches!(node.attributes.get(name), Some(Attribute::Float(f)) if *f != 1.0);
        let known = node.domain.is_empty() && matches!(node.op.as_str(), "MatMul" | "Gemm" | "Conv");
        let f32s = node.reads().chain(node.writes());
        let plain = |v: ValueId| side.declared.dtype(v) == Some(DType::F32);
        if !known || !is_one("alpha") || !is_one("beta") || !f32s.into_iter().all(plain) {
            return None;
        }
        let inputs: Vec<Option<Tensor>> =
            node.inputs.iter().map(|v| v.and_then(lookup)?.cast(DType::F64).ok()).collect();
        let shape = |slot: usize| inputs.get(slot)?.as_ref().map(Tensor::shape);
        let (x, w) = (shape(0)?, shape(1)?);
        let terms = match node.op.as_str() {
            "Conv" => w.iter().skip(1).product(),
            "Gemm" => *x.get(usize::from(!is_set(node, "transA")))?,
            _ if x.len() < 2 || w.len() < 2 => return None,
            _ => *x.last()?,
        };
        Some(Self { node, inputs, terms })
    }

    /// Whether something is added to the sums.
    pub fn has_bias(&self) -> bool {
        self.inputs.get(2).is_some_and(Option::is_some)
    }

    /// In float64; the sums alone, without the bias, where `bias` says so, and of inputs that `enters` may change.
    pub fn exact(&self, bias: bool, enters: &dyn Fn(&Tensor) -> Tensor) -> Option<Tensor> {
        let mut node = self.node.clone();
        let mut sources: Vec<Source> = self
            .inputs
            .iter()
            .map(|t| match t {
                Some(t) => {
                    let t = enters(t);
                    Source::Tensor { declared: t.clone(), shadow: t }
                }
                None => Source::Absent,
            })
            .collect();
        if !bias {
            node.inputs.truncate(2);
            sources.truncate(2);
        }
        Patch::new(&node, sources)?.evaluate(Precision::Float64, &|_| None, None)?.into_iter().next()
    }

    /// How `recorded` strays.
    pub fn residual(&self, exact: &Tensor, recorded: &Tensor) -> Option<Residual> {
        let (y, r) = (exact.to_f64().ok()?, recorded.to_f64().ok()?);
        let squared = |t: &Tensor| map(t, |x| x * x);
        let squares = self.exact(false, &squared)?;
        let squares = squares.to_f64().ok()?;
        if y.len() != r.len() || y.len() != squares.len() {
            return None;
        }
        let terms = self.terms as f64;
        let walk = |i: usize| U * (terms * (y[i] * y[i] / 3.0 + squares[i] / 6.0) + y[i] * y[i]).sqrt();
        let shape = exact.shape();
        let channels = if self.node.op == "Conv" { 1 } else { shape.len().checked_sub(1)? };
        Some(Residual {
            error: parallel::map(y.len(), |i| r[i] - y[i]),
            walk: parallel::map(y.len(), walk),
            layout: [
                shape[..channels].iter().product(),
                *shape.get(channels)?,
                shape[channels + 1..].iter().product(),
            ],
            exact: y.into_owned(),
        })
    }

    /// Whether hardly anything cancels: sums of terms of one sign drift to one side for good reasons.
    pub fn hardly_cancels(&self, exact: &Tensor) -> Option<bool> {
        let magnitude = self.exact(true, &|t| map(t, f64::abs))?;
        let (y, magnitude) = (exact.to_f64().ok()?, magnitude.to_f64().ok()?);
        let cancels = y.iter().zip(magnitude.iter()).filter(|(y, m)| y.abs() < 0.9 * **m).count();
        Some(2 * cancels < y.len())
    }

    /// The factors of element `at` (flat), in the order of the inner axis; with the bias, if there is one, as a
    /// product with 1 at the end.
    pub fn factors(&self, shape: &[usize], at: usize) -> Option<Vec<(f64, f64)>> {
        let (x, w) = (self.inputs[0].as_ref()?, self.inputs[1].as_ref()?);
        let (a, b) = (x.as_slice::<f64>().ok()?, w.as_slice::<f64>().ok()?);
        let index = unravel(at, shape);
        let mut factors = match self.node.op.as_str() {
            "Conv" => self.convolved(&index, x.shape(), w.shape(), a, b)?,
            op => {
                let gemm = op == "Gemm";
                let (ta, tb) = (gemm && is_set(self.node, "transA"), gemm && is_set(self.node, "transB"));
                let rank = shape.len();
                let (row, column) = (index[rank - 2], index[rank - 1]);
                let place = |t: &[usize], r: usize, c: usize| {
                    // Axes before the last two are broadcast.
                    let lead = t.len() - 2;
                    let batch = (0..lead).fold(0, |flat, i| {
                        let own = index[rank - 2 - lead + i];
                        flat * t[i] + if t[i] == 1 { 0 } else { own }
                    });
                    (batch * t[lead] + r) * t[lead + 1] + c
                };
                let at_a = |k| if ta { place(x.shape(), k, row) } else { place(x.shape(), row, k) };
                let at_b = |k| if tb { place(w.shape(), column, k) } else { place(w.shape(), k, column) };
                (0..self.terms).map(|k| (a[at_a(k)], b[at_b(k)])).collect()
            }
        };
        if let Some(Some(bias)) = self.inputs.get(2) {
            let c = bias.as_slice::<f64>().ok()?;
            let value = if self.node.op == "Conv" {
                c[index[1]]
            } else {
                let rank = bias.rank();
                let flat = (0..rank).fold(0, |flat, i| {
                    let n = bias.shape()[i];
                    flat * n + if n == 1 { 0 } else { index[index.len() - rank + i] }
                });
                c[flat]
            };
            factors.push((value, 1.0));
        }
        Some(factors)
    }

    fn convolved(
        &self,
        index: &[usize],
        x: &[usize],
        w: &[usize],
        a: &[f64],
        b: &[f64],
    ) -> Option<Vec<(f64, f64)>> {
        if matches!(self.node.attributes.get("auto_pad"), Some(Attribute::Bytes(p)) if *p != *b"NOTSET") {
            return None;
        }
        let axes = x.len() - 2;
        let ints = |name: &str, default: i64| match self.node.attributes.get(name) {
            Some(Attribute::Ints(v)) if v.len() >= axes => v.clone(),
            _ => vec![default; 2 * axes],
        };
        let (strides, dilations, pads) = (ints("strides", 1), ints("dilations", 1), ints("pads", 0));
        let (channel, inner) = (index[1], w[1]);
        let groups = x[1] / inner;
        let first = channel / (w[0] / groups) * inner;
        let mut factors = Vec::with_capacity(self.terms);
        let taps: usize = w[2..].iter().product();
        for c in 0..inner {
            for k in 0..taps {
                let tap = unravel(k, &w[2..]);
                let place = (0..axes).try_fold(index[0] * x[1] + first + c, |flat, i| {
                    let at = index[2 + i] as i64 * strides[i] + tap[i] as i64 * dilations[i] - pads[i];
                    let at = usize::try_from(at).ok().filter(|&at| at < x[2 + i])?;
                    Some(flat * x[2 + i] + at)
                });
                if let Some(place) = place {
                    factors.push((a[place], b[(channel * inner + c) * taps + k]));
                }
            }
        }
        Some(factors)
    }
}

/// A plain loop over the factors in f32, each step rounded.
pub fn plain_loop(factors: &[(f64, f64)]) -> f64 {
    f64::from(factors.iter().fold(0f32, |sum, &(a, b)| sum + a as f32 * b as f32))
}

/// The same with the sum kept in a narrower type after each step.
pub fn narrow_loop(factors: &[(f64, f64)], round: &dyn Fn(f64) -> f64) -> f64 {
    factors.iter().fold(0.0, |sum, &(a, b)| round(sum + a * b))
}

fn is_set(node: &Node, name: &str) -> bool {
    matches!(node.attributes.get(name), Some(Attribute::Int(i)) if *i != 0)
}

fn map(t: &Tensor, f: impl Fn(f64) -> f64 + Sync) -> Tensor {
    let mapped = t.as_slice::<f64>().map(|x| parallel::map(x.len(), |i| f(x[i])));
    mapped.ok().and_then(|x| Tensor::from_vec(t.shape(), x).ok()).unwrap_or_else(|| t.clone())
}

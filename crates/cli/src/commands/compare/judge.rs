//! Every pair of tensors held against each other, one pass over both.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use isotrace_compare::{Metrics, Rule, Tolerance, judge};
use isotrace_tensor::{DType, Tensor, View, broadcast_shapes};
use isotrace_trace::Source;
use rayon::prelude::*;

use crate::args::{self, Like};
use crate::page;

use super::pairs::Pair;

/// What decides.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub rule: Rule,
    /// Whether a tool was named, which then decides everything as it does.
    pub like: Option<Like>,
    pub rtol: Option<f64>,
    pub atol: Option<f64>,
}

impl Rules {
    pub fn new(args: &args::Compare) -> anyhow::Result<Self> {
        let rule = match args.like {
            None | Some(Like::Torch) => Rule::Torch,
            Some(Like::Numpy) => Rule::Numpy,
            Some(Like::Polygraphy) => Rule::Polygraphy,
        };
        if rule == Rule::Torch && args.rtol.is_some() != args.atol.is_some() {
            let (given, missing) =
                if args.rtol.is_some() { ("--rtol", "--atol") } else { ("--atol", "--rtol") };
            bail!(
                "{given} without {missing}: the defaults of a type belong together, so give both (0 for none)"
            );
        }
        Ok(Self { rule, like: args.like, rtol: args.rtol, atol: args.atol })
    }

    /// The tolerance for two types.
    pub fn tolerance(&self, x: DType, y: DType) -> Tolerance {
        let usual = Tolerance::default_of(self.rule, x, y);
        Tolerance { rtol: self.rtol.unwrap_or(usual.rtol), atol: self.atol.unwrap_or(usual.atol), ..usual }
    }
}

/// What came of a pair, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Bit for bit the same.
    Identical,
    /// Within the tolerance.
    Within,
    /// Elements are beyond it.
    Beyond,
    /// Types or shapes forbid a comparison.
    Incomparable,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Within => "within",
            Self::Beyond => "beyond",
            Self::Incomparable => "incomparable",
        }
    }
}

/// What came of a pair.
#[derive(Debug, Clone)]
pub struct Found {
    pub dtype: [DType; 2],
    pub shape: [Vec<usize>; 2],
    /// The shape to which NumPy's rule repeats both.
    pub broadcast: Option<Vec<usize>>,
    pub status: Status,
    /// Why, where that is not the elements.
    pub reason: Option<String>,
    pub tolerance: Tolerance,
    pub len: u64,
    pub beyond: u64,
    pub metrics: Option<Metrics>,
}

impl Found {
    /// For the order of what differs: the share beyond, and more than all of it where nothing could be compared.
    pub fn badness(&self) -> f64 {
        match &self.metrics {
            None => 3.0,
            // NaN is worse than any number.
            Some(m) if m.max_abs.is_nan() => 2.0,
            Some(_) => self.beyond as f64 / self.len.max(1) as f64,
        }
    }

    /// In words, where it differs.
    pub fn told(&self) -> String {
        match (&self.reason, &self.metrics) {
            (Some(reason), _) => reason.clone(),
            (None, Some(m)) => format!(
                "{} of {} elements beyond tolerance, {}",
                page::count(self.beyond),
                page::count(self.len),
                if m.max_abs.is_nan() {
                    "with NaN among them".to_owned()
                } else {
                    format!("off by up to {}", page::brief(m.max_abs))
                }
            ),
            (None, None) => String::new(),
        }
    }
}

/// Bytes of both sides that are in memory at once, unless a single pair has more. Several pairs at once are quicker than
/// each among all threads: to open a tensor and to let its pages go is the work of one.
const AT_ONCE: usize = 128 << 20;

/// All pairs, in their order.
pub fn all(
    sides: [&Source; 2],
    pairs: &[Pair],
    rules: &Rules,
    show: &(dyn Fn(usize) + Sync),
) -> anyhow::Result<Vec<Found>> {
    let done = AtomicUsize::new(0);
    let one = |pair: &Pair| {
        let [x, y] = both(sides, pair, None)?;
        let found = held(x, y, rules)?;
        show(done.fetch_add(1, Ordering::Relaxed) + 1);
        anyhow::Ok(found)
    };
    let bytes = |side: &Source, name: &str| match side.info(name) {
        Ok(info) => info.shape.iter().fold(info.dtype.size(), |bytes, &n| bytes.saturating_mul(n)),
        Err(_) => AT_ONCE,
    };
    let mut found = Vec::with_capacity(pairs.len());
    let mut rest = pairs;
    while !rest.is_empty() {
        let mut sum = 0usize;
        let fits = |pair: &&Pair| {
            sum = sum.saturating_add(bytes(sides[0], &pair.x)).saturating_add(bytes(sides[1], &pair.y));
            sum <= AT_ONCE
        };
        let (batch, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        found.extend(batch.par_iter().map(one).collect::<anyhow::Result<Vec<_>>>()?);
        rest = later;
    }
    Ok(found)
}

/// The tensors of a pair, both repeated to a shape where there is one.
pub fn both(sides: [&Source; 2], pair: &Pair, shape: Option<&[usize]>) -> anyhow::Result<[Tensor; 2]> {
    let (x, y) = (sides[0].get(&pair.x)?, sides[1].get(&pair.y)?);
    Ok(match shape {
        Some(shape) => [repeated(&x, shape)?, repeated(&y, shape)?],
        None => [x, y],
    })
}

fn held(x: Tensor, y: Tensor, rules: &Rules) -> anyhow::Result<Found> {
    let dtype = [x.dtype(), y.dtype()];
    let shape = [x.shape().to_vec(), y.shape().to_vec()];
    let tolerance = rules.tolerance(dtype[0], dtype[1]);
    let mut found = Found {
        dtype,
        broadcast: None,
        status: Status::Incomparable,
        reason: None,
        tolerance,
        len: x.len() as u64,
        beyond: 0,
        metrics: None,
        shape,
    };
    let [mut x, mut y] = [x, y];
    if found.shape[0] != found.shape[1] {
        match broadcast_shapes(&found.shape[0], &found.shape[1]) {
            Ok(shape) if rules.like == Some(Like::Numpy) => {
                (x, y) = (repeated(&x, &shape)?, repeated(&y, &shape)?);
                found.len = x.len() as u64;
                found.broadcast = Some(shape);
            }
            _ => {
                let [a, b] = found.shape.each_ref().map(|s| page::shape(s));
                found.reason = Some(format!("shapes {a} and {b}"));
                return Ok(found);
            }
        }
    }
    if (dtype[0] == DType::String) != (dtype[1] == DType::String) {
        found.reason = Some(format!("types {} and {}: text only compares with text", dtype[0], dtype[1]));
        return Ok(found);
    }
    let (metrics, judgement) = judge(&x, &y, &tolerance)?;
    found.beyond = judgement.beyond;
    found.status = match (judgement.beyond, metrics.bits_equal) {
        (0, true) => Status::Identical,
        (0, false) => Status::Within,
        _ => Status::Beyond,
    };
    found.metrics = Some(metrics);
    if rules.like == Some(Like::Torch) {
        let narrow = dtype[0].is_float() && dtype[0].size() == 1;
        if dtype[0] != dtype[1] {
            found.reason = Some(format!("types {} and {}, which assert_close refuses", dtype[0], dtype[1]));
        } else if narrow && (tolerance.rtol != 0.0 || tolerance.atol != 0.0) {
            found.reason = Some(format!("a tolerance for {}, which assert_close refuses", dtype[0]));
        }
        if found.reason.is_some() {
            found.status = Status::Incomparable;
        }
    }
    Ok(found)
}

/// A copy with axes repeated; NumPy's rule is the only one that asks for it.
fn repeated(tensor: &Tensor, shape: &[usize]) -> anyhow::Result<Tensor> {
    fn copy<T: bytemuck::Pod + Send + Sync>(tensor: &Tensor, shape: &[usize]) -> anyhow::Result<Tensor> {
        let view = View::<T>::new(bytemuck::cast_slice(tensor.bytes()), tensor.shape()).broadcast(shape)?;
        let data = if view.is_empty() { Vec::new() } else { view.to_vec() };
        Ok(Tensor::from_pods(tensor.dtype(), shape, data)?)
    }
    if tensor.shape() == shape {
        return Ok(tensor.clone());
    }
    match tensor.dtype().size() {
        1 => copy::<u8>(tensor, shape),
        2 => copy::<u16>(tensor, shape),
        4 => copy::<u32>(tensor, shape),
        8 if tensor.dtype() == DType::C64 => copy::<[f32; 2]>(tensor, shape),
        8 => copy::<u64>(tensor, shape),
        16 => copy::<[f64; 2]>(tensor, shape),
        _ => bail!(
            "texts of shapes {} and {} are not repeated",
            page::shape(tensor.shape()),
            page::shape(shape)
        ),
    }
}

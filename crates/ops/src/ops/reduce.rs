//! ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp and
//! ReduceSumSquare.
//!
//! The axes are an attribute or, in newer versions, an input. With none, all are reduced, or with `noop_with_empty_axes`
//! none, and then what a reduction does besides adding up is still done to each element.

use isotrace_graph::Node;
use isotrace_tensor::{Bool, DType, Tensor};

use super::arithmetic::Number;
use crate::budget::{self, Budget, Unit};
use crate::math::{grain, row, vectorise};
use crate::reduction::{Layout, arrange, arrange_rows, fold, reduced_shape};
use crate::{Call, Float, Flow, OpError, Operator, arguments, attributes, for_float, for_int, parallel};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    LogSum,
    LogSumExp,
    SumSquare,
}

#[derive(Debug)]
struct Reduce {
    kind: Kind,
    axes: Option<Vec<i64>>,
    keep: bool,
    /// Whether no axes mean none rather than all.
    none_if_empty: bool,
}

macro_rules! builders {
    ($($name:ident $kind:ident;)*) => { $(
        #[doc = concat!("Parses a node of Reduce", stringify!($kind), ".")]
        pub fn $name(node: &Node) -> Result<Box<dyn Operator>, OpError> {
            Ok(Box::new(Reduce {
                kind: Kind::$kind,
                axes: attributes::ints(node, "axes")?,
                keep: attributes::flag(node, "keepdims", true)?,
                none_if_empty: attributes::flag(node, "noop_with_empty_axes", false)?,
            }))
        }
    )* };
}

builders! {
    sum Sum;
    mean Mean;
    max Max;
    min Min;
    prod Prod;
    l1 L1;
    l2 L2;
    log_sum LogSum;
    log_sum_exp LogSumExp;
    sum_square SumSquare;
}

/// What reductions need of a number beyond arithmetic. Integers are folded as i64 or u64 and cut afterwards, which gives
/// the same bits as wrapping all along.
trait Reducible: Number {
    const ONE: Self;
    const LOWEST: Self;
    const HIGHEST: Self;
    fn magnitude(self) -> Self;
    fn square(self) -> Self;
    fn divided(self, n: usize) -> Self;
    fn root(self) -> Self;
    fn log(self) -> Self;
    /// Folds with vector code for floats, with plain calls for integers.
    fn fold(
        x: &[Self],
        layout: Layout,
        start: Self,
        f: impl Fn(Self) -> Self + Sync,
        join: impl Fn(Self, Self) -> Self + Sync,
    ) -> Result<Vec<Self>, OpError>;
}

macro_rules! float_reducible {
    ($($t:ty),*) => { $(impl Reducible for $t {
        const ONE: Self = 1.0;
        const LOWEST: Self = Self::NEG_INFINITY;
        const HIGHEST: Self = Self::INFINITY;
        #[inline(always)]
        fn magnitude(self) -> Self {
            self.abs()
        }
        #[inline(always)]
        fn square(self) -> Self {
            self * self
        }
        fn divided(self, n: usize) -> Self {
            self / n as Self
        }
        fn root(self) -> Self {
            self.sqrt()
        }
        fn log(self) -> Self {
            Float::ln(self)
        }
        fn fold(
            x: &[Self],
            layout: Layout,
            start: Self,
            f: impl Fn(Self) -> Self + Sync,
            join: impl Fn(Self, Self) -> Self + Sync,
        ) -> Result<Vec<Self>, OpError> {
            fold::<true, _, _>(x, layout, start, f, join)
        }
    })* };
}

macro_rules! int_reducible {
    ($($t:ty: $abs:expr),*) => { $(impl Reducible for $t {
        const ONE: Self = 1;
        const LOWEST: Self = Self::MIN;
        const HIGHEST: Self = Self::MAX;
        fn magnitude(self) -> Self {
            $abs(self)
        }
        fn square(self) -> Self {
            self.wrapping_mul(self)
        }
        fn divided(self, n: usize) -> Self {
            // An empty mean of integers is 0, for want of NaN.
            self.over(n as Self)
        }
        fn root(self) -> Self {
            (self as f64).sqrt() as Self
        }
        fn log(self) -> Self {
            (self as f64).ln() as Self
        }
        fn fold(
            x: &[Self],
            layout: Layout,
            start: Self,
            f: impl Fn(Self) -> Self + Sync,
            join: impl Fn(Self, Self) -> Self + Sync,
        ) -> Result<Vec<Self>, OpError> {
            // Behind references, one copy of the loops serves every reduction.
            let (f, join): (&(dyn Fn(Self) -> Self + Sync), &(dyn Fn(Self, Self) -> Self + Sync)) = (&f, &join);
            fold::<false, _, _>(x, layout, start, f, join)
        }
    })* };
}

float_reducible!(f32, f64);
int_reducible!(i64: i64::wrapping_abs, u64: std::convert::identity);

impl Reduce {
    /// Which axes of a tensor of this rank are folded away.
    fn reduced(&self, call: &Call<'_>, rank: usize) -> Result<Vec<bool>, OpError> {
        let axes = arguments::setting(self.axes.as_deref(), call, 1, "axes")?;
        let mut reduced = vec![false; rank];
        match axes.as_deref() {
            None | Some([]) => reduced.fill(!self.none_if_empty),
            Some(axes) => {
                for axis in arguments::axes(axes, rank)? {
                    reduced[axis] = true;
                }
            }
        }
        Ok(reduced)
    }

    fn apply<T: Reducible>(&self, x: &[T], layout: Layout) -> Result<Vec<T>, OpError> {
        let mut y = match self.kind {
            Kind::Sum | Kind::Mean | Kind::LogSum => T::fold(x, layout, T::default(), same, T::plus),
            Kind::L1 => T::fold(x, layout, T::default(), T::magnitude, T::plus),
            Kind::L2 | Kind::SumSquare => T::fold(x, layout, T::default(), T::square, T::plus),
            Kind::Prod => T::fold(x, layout, T::ONE, same, T::times),
            Kind::Max => T::fold(x, layout, T::LOWEST, same, T::larger),
            Kind::Min => T::fold(x, layout, T::HIGHEST, same, T::smaller),
            Kind::LogSumExp => {
                // Only integers come here: as floats, cut to integers at the end.
                let wide: Vec<f64> = Tensor::from_vec(&[x.len()], x.to_vec())?.to_f64()?.into_owned();
                Ok(rows_log_sum_exp(&wide, layout.len).into_iter().map(T::of_f64).collect())
            }
        }?;
        match self.kind {
            Kind::Mean => y.iter_mut().for_each(|y| *y = y.divided(layout.len)),
            Kind::L2 => y.iter_mut().for_each(|y| *y = y.root()),
            Kind::LogSum => y.iter_mut().for_each(|y| *y = y.log()),
            _ => {}
        }
        Ok(y)
    }

    /// The fold of a tensor that is neither text nor truth.
    fn fold(&self, x: &Tensor, reduced: &[bool]) -> Result<Tensor, OpError> {
        let shape = reduced_shape(x.shape(), reduced, self.keep);
        let rows_only = self.kind == Kind::LogSumExp;
        let (data, layout) = if rows_only { arrange_rows(x, reduced) } else { arrange(x, reduced) }?;
        match x.dtype() {
            DType::F32 | DType::F64 => for_float!(x.dtype(), "data", T => {
                let data = data.as_slice::<T>()?;
                let y = match (rows_only, layout.len) {
                    (false, _) => self.apply(data, layout)?,
                    (true, 0) => vec![-T::INFINITY; layout.outer],
                    (true, len) => rows_log_sum_exp(data, len),
                };
                Ok(Tensor::from_vec(&shape, y)?)
            }),
            found @ (DType::U64 | DType::U32 | DType::U16 | DType::U8) => {
                let y = self.apply(data.cast(DType::U64)?.as_slice::<u64>()?, layout)?;
                cut(&shape, y.into_iter().map(|y| y as i64), layout.len, found)
            }
            found @ (DType::I64 | DType::I32 | DType::I16 | DType::I8) => {
                let y = self.apply(data.cast(DType::I64)?.as_slice::<i64>()?, layout)?;
                cut(&shape, y.into_iter(), layout.len, found)
            }
            found => {
                let supported = "f16, bf16, f32, f64, integers of 8 to 64 bits, truth for Max and Min";
                Err(OpError::DType { what: "data", found, supported })
            }
        }
    }
}

/// Cuts whole numbers to the low bits of a type; where nothing was folded, the limits of 64 bits become those of the type.
fn cut(shape: &[usize], y: impl Iterator<Item = i64>, len: usize, dtype: DType) -> Result<Tensor, OpError> {
    for_int!(dtype, "data", T => {
        let limit = |y: i64| match y {
            i64::MIN if len == 0 => T::MIN,
            i64::MAX if len == 0 => T::MAX,
            y => y as T,
        };
        Ok(Tensor::from_vec(shape, y.map(limit).collect())?)
    })
}

#[inline(always)]
fn same<T>(x: T) -> T {
    x
}

/// ln(sum(exp(x))) of rows, the maximum taken off first unless it is infinite. `len` is not 0.
fn rows_log_sum_exp<T: Float>(x: &[T], len: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len() / len.max(1)];
    let rows = grain(x.len()).div_ceil(len.max(1));
    parallel::chunks(&mut out, rows, &|i, out| {
        let x = &x[i * rows * len..];
        vectorise(
            #[inline(always)]
            || {
                for (out, x) in out.iter_mut().zip(x.chunks(len)) {
                    let max = row::max(x);
                    let shift = if max.abs() == T::INFINITY { T::ZERO } else { max };
                    let sum = row::sum(
                        x,
                        #[inline(always)]
                        |x| (x - shift).exp(),
                    );
                    *out = sum.ln() + shift;
                }
            },
        );
    });
    out
}

impl Operator for Reduce {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "data")?;
        let reduced = self.reduced(call, x.rank())?;
        if x.dtype() == DType::Bool && matches!(self.kind, Kind::Max | Kind::Min) {
            let truth: Vec<u8> = x.as_slice::<Bool>()?.iter().map(|b| u8::from(b.0 != 0)).collect();
            let y = self.fold(&Tensor::from_vec(x.shape(), truth)?, &reduced)?;
            let truth = y.as_slice::<u8>()?.iter().map(|&y| Bool(u8::from(y != 0))).collect();
            return Ok(vec![Tensor::from_vec(y.shape(), truth)?]);
        }
        Ok(vec![self.fold(x, &reduced)?])
    }

    fn flow(&self) -> Flow {
        match self.kind {
            Kind::Sum | Kind::Mean => Flow::Linear,
            _ => Flow::General,
        }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let x = call.need(0, "data")?;
        let reduced = self.reduced(call, x.rank())?;
        let (rows, layout) = arrange(x, &reduced)?;
        let terms = layout.len as f64;
        let data = rows.to_f64()?;
        let folded =
            |f: &(dyn Fn(f64) -> f64 + Sync)| fold::<false, _, _>(&data, layout, 0.0, f, |a, b| a + b);
        match self.kind {
            Kind::Max | Kind::Min => Ok(budget::exact(output.len())),
            Kind::Sum | Kind::L1 => budget::sum(output, &folded(&f64::abs)?, terms, unit),
            Kind::Mean => {
                let magnitude: Vec<f64> = folded(&f64::abs)?.iter().map(|m| m / terms).collect();
                budget::sum(output, &magnitude, terms, unit)
            }
            Kind::SumSquare => budget::sum(output, &folded(&|x| x * x)?, terms, unit),
            Kind::L2 => budget::rms_norm(output, layout.len, unit),
            // A product of K factors rounds K times, each time by its own size.
            Kind::Prod => budget::sum(output, &absolute(output)?, terms, unit),
            Kind::LogSum => {
                // d ln(s) = ds / s, and the logarithm itself.
                let (sums, magnitudes) = (folded(&|x| x)?, folded(&f64::abs)?);
                let ratio =
                    magnitudes.iter().zip(&sums).map(|(m, s)| if *m == 0.0 { 0.0 } else { m / s.abs() });
                budget::sum(output, &ratio.map(|r| r.max(1.0)).collect::<Vec<_>>(), terms, unit)
            }
            Kind::LogSumExp => {
                let (rows, layout) = arrange_rows(x, &reduced)?;
                budget::log_sum_exp(&rows.reshape(&[layout.outer, layout.len])?, output, unit)
            }
        }
    }

    /// A maximum moves to what the elements that come near it may become; one that hides far below it, however large,
    /// moves nothing.
    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        match (self.kind, errors.first().and_then(Option::as_ref)) {
            (Kind::Max | Kind::Min, Some(e)) if outputs[0].dtype().is_float() && !outputs[0].is_empty() => {
                let (x, e, y) = (call.need(0, "data")?.to_f64()?, e.to_f64()?, outputs[0].to_f64()?);
                let outwards = if self.kind == Kind::Max { 1.0 } else { -1.0 };
                let moved = |(x, e): (&f64, &f64)| if e.is_finite() { x + outwards * e } else { *x };
                let reached = Tensor::from_vec(
                    call.need(0, "data")?.shape(),
                    x.iter().zip(e.iter()).map(moved).collect(),
                )?;
                let reached =
                    self.fold(&reached, &self.reduced(call, reached.rank())?)?.to_f64()?.into_owned();
                let by = |(far, y): (f64, &f64)| (far - y).abs();
                let known = |e: f64| if e.is_finite() { e } else { 0.0 };
                let most = reached.into_iter().zip(y.iter()).map(by).map(known).collect();
                Ok(vec![Tensor::from_vec(outputs[0].shape(), most)?])
            }
            _ => crate::flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors),
        }
    }
}

fn absolute(tensor: &Tensor) -> Result<Vec<f64>, OpError> {
    Ok(tensor.to_f64()?.iter().map(|x| x.abs()).collect())
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;
    use isotrace_tensor::DType;

    use crate::testing::{errors, first, ints, node, run, tensor};

    /// What each reduction of a row is, in f64.
    fn defined(op: &str, x: &[f64]) -> f64 {
        let sum = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>();
        match op {
            "ReduceSum" => sum(&|x| x),
            "ReduceMean" => sum(&|x| x) / x.len() as f64,
            "ReduceMax" => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "ReduceMin" => x.iter().copied().fold(f64::INFINITY, f64::min),
            "ReduceProd" => x.iter().product(),
            "ReduceL1" => sum(&f64::abs),
            "ReduceL2" => sum(&|x| x * x).sqrt(),
            "ReduceLogSum" => sum(&|x| x).ln(),
            "ReduceLogSumExp" => sum(&f64::exp).ln(),
            _ => sum(&|x| x * x),
        }
    }

    const OPS: [&str; 10] = [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
    ];

    #[test]
    fn every_reduction_over_every_axis() {
        let shape = [3, 4, 5];
        let data: Vec<f64> = (0..60).map(|i| 0.2 + f64::from(i * 37 % 60) / 40.0).collect();
        let x = tensor(&shape, &data);
        for op in OPS {
            for axis in 0..3usize {
                let (outer, inner) =
                    (shape[..axis].iter().product(), shape[axis + 1..].iter().product::<usize>());
                let mut expected = Vec::new();
                for o in 0..outer {
                    for i in 0..inner {
                        let row: Vec<f64> =
                            (0..shape[axis]).map(|k| data[(o * shape[axis] + k) * inner + i]).collect();
                        expected.push(defined(op, &row));
                    }
                }
                // The axis once as an attribute, once as an input, counted from either end.
                let old = node(op, 11, &[("axes", Attribute::Ints(vec![axis as i64]))]);
                let new = node(op, 18, &[("keepdims", Attribute::Int(0))]);
                let got = [first(&old, &[&x]), first(&new, &[&x, &ints(&[axis as i64 - 3])])];
                assert_eq!(got[0].rank(), 3);
                assert_eq!(got[1].rank(), 2);
                for got in got {
                    for (y, e) in got.to_f64().unwrap().iter().zip(&expected) {
                        assert!((y - e).abs() <= 1e-13 * e.abs().max(1.0), "{op} over {axis}: {y}, not {e}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_axes_mean_all_or_none() {
        let x = tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        for op in OPS {
            let all = first(&node(op, 18, &[("keepdims", Attribute::Int(0))]), &[&x]);
            assert_eq!(all.rank(), 0);
            let expected = defined(op, &[1.0, 2.0, 3.0, 4.0]);
            assert!((all.to_f64().unwrap()[0] - expected).abs() < 1e-13, "{op}");
            let none =
                first(&node(op, 18, &[("noop_with_empty_axes", Attribute::Int(1))]), &[&x, &ints(&[])]);
            assert_eq!(none.shape(), [2, 2]);
            for (y, x) in none.to_f64().unwrap().iter().zip([1.0, 2.0, 3.0, 4.0]) {
                assert!((y - defined(op, &[x])).abs() < 1e-14, "{op}");
            }
        }
    }

    #[test]
    fn nothing_to_reduce_gives_the_neutral_element() {
        let inf = f32::INFINITY;
        let expected = [0.0, f32::NAN, -inf, inf, 1.0, 0.0, 0.0, -inf, -inf, 0.0];
        let x = tensor::<f32>(&[2, 0], &[]);
        for (op, expected) in OPS.into_iter().zip(expected) {
            let y = first(&node(op, 18, &[]), &[&x, &ints(&[1])]);
            assert_eq!(y.shape(), [2, 1]);
            for &y in y.as_slice::<f32>().unwrap() {
                assert!(y == expected || y.is_nan() && expected.is_nan(), "{op}: {y}");
            }
        }
    }

    #[test]
    fn integers_truth_and_nan() {
        let x = tensor(&[4], &[-7i32, 3, 0, 2]);
        let cases =
            [("ReduceSum", -2), ("ReduceMean", 0), ("ReduceMax", 3), ("ReduceMin", -7), ("ReduceL1", 12)];
        for (op, expected) in cases {
            assert_eq!(first(&node(op, 13, &[]), &[&x]).as_slice::<i32>().unwrap(), [expected], "{op}");
        }
        let x = tensor(&[3], &[0u8, 1, 0]).cast(DType::Bool).unwrap();
        let truth = first(&node("ReduceMax", 20, &[]), &[&x]);
        assert_eq!(truth.to_i64().unwrap()[..], [1]);
        assert!(run(&node("ReduceSum", 20, &[]), &[&x]).is_err());
        let x = tensor(&[3], &[1.0, f64::NAN, 3.0]);
        for op in ["ReduceMax", "ReduceMin", "ReduceSum"] {
            assert!(first(&node(op, 20, &[]), &[&x]).to_f64().unwrap()[0].is_nan(), "{op}");
        }
        let inf = tensor(&[2], &[f64::INFINITY, 1.0]);
        assert_eq!(first(&node("ReduceLogSumExp", 20, &[]), &[&inf]).to_f64().unwrap()[0], f64::INFINITY);
    }

    #[test]
    fn a_maximum_moves_by_what_comes_near_it() {
        let x = tensor(&[2, 3], &[3.0, -1e9, 2.9, -1e9, -1e9, 5.0]);
        let e = tensor(&[2, 3], &[0.1, 32.0, 0.5, 32.0, 32.0, 0.25]);
        let rows = [("axes", Attribute::Ints(vec![-1]))];
        for (op, sign) in [("ReduceMax", 1.0), ("ReduceMin", -1.0)] {
            let x = tensor(&[2, 3], &x.to_f64().unwrap().iter().map(|v| sign * v).collect::<Vec<f64>>());
            let moved = errors(&node(op, 13, &rows), &[&x], &[Some(e.clone())]);
            assert!((moved[0] - 0.4).abs() < 1e-12 && (moved[1] - 0.25).abs() < 1e-12, "{op}: {moved:?}");
        }
    }
}

//! Gemm: alpha op(A) op(B) + beta C, op a transpose where asked; and com.microsoft's `FusedGemm`, which puts an
//! activation on top.
//!
//! A is m by k, B is k by n after their transposes; C broadcasts into m by n and may be left out from version 11 on.
//! Versions below 7 allow the broadcast only where attribute `broadcast` asks for it: what it yields is the same.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, View};

use super::matmul::matmul_whole;
use crate::activation::Activation;
use crate::budget::{self, Budget, Unit};
use crate::magnitude::magnitude;
use crate::parallel::{self, GRAIN};
use crate::product::{Loose, Matrix, product, product_of_loose};
use crate::room::zeros;
use crate::{Call, Float, Flow, OpError, Operator, attributes, flow, for_float};

#[derive(Debug, Clone, Copy)]
struct Gemm {
    alpha: f64,
    beta: f64,
    trans_a: bool,
    trans_b: bool,
    activation: Activation,
}

fn parse(node: &Node, activation: Activation) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Gemm {
        alpha: attributes::float_or(node, "alpha", 1.0)?.into(),
        beta: attributes::float_or(node, "beta", 1.0)?.into(),
        trans_a: attributes::flag(node, "transA", false)?,
        trans_b: attributes::flag(node, "transB", false)?,
        activation,
    }))
}

/// Parses a Gemm.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    parse(node, Activation::Identity)
}

/// Parses a `FusedGemm`: `activation` with parameters `activation_alpha`, `activation_beta`, `activation_gamma`.
pub fn build_fused(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let name = attributes::text_or(node, "activation", "")?;
    let mut parameters = Vec::new();
    for parameter in ["activation_alpha", "activation_beta", "activation_gamma"] {
        parameters.extend(attributes::float(node, parameter)?);
    }
    parse(node, Activation::named(&name, &parameters)?)
}

impl Gemm {
    /// The same without activation, on absolute values if its scales are taken so too.
    fn linear(self, absolute: bool) -> Self {
        let sign = |x: f64| if absolute { x.abs() } else { x };
        Self { alpha: sign(self.alpha), beta: sign(self.beta), activation: Activation::Identity, ..self }
    }

    fn sizes(self, call: &Call<'_>) -> Result<Tensor, OpError> {
        let absolute = self.linear(true);
        magnitude(call, |c| Ok(absolute.run(c)?.remove(0)))
    }
}

/// The rows and columns of op(A), checked to be a matrix.
fn sizes(shape: &[usize], transpose: bool, name: &str) -> Result<[usize; 2], OpError> {
    let [rows, columns] = *shape else {
        return Err(OpError::Input(format!("{name} has shape {shape:?}; Gemm takes matrices (two axes)")));
    };
    Ok(if transpose { [columns, rows] } else { [rows, columns] })
}

/// op(A), checked to be a matrix.
fn oriented<'a, T: Copy + Send + Sync>(
    x: &View<'a, T>,
    transpose: bool,
    name: &str,
) -> Result<View<'a, T>, OpError> {
    sizes(x.shape(), transpose, name)?;
    Ok(if transpose { x.permute(&[1, 0]) } else { x.clone() })
}

fn check_inner(a: &[usize], b: &[usize]) -> Result<(), OpError> {
    if a[1] == b[0] {
        return Ok(());
    }
    Err(OpError::Input(format!("after transposes A is {a:?} and B {b:?}; A's columns must equal B's rows")))
}

fn gemm<T: Float>(
    a: &View<'_, T>,
    b: &Tensor,
    c: Option<&View<'_, T>>,
    settings: Gemm,
) -> Result<(Vec<usize>, Vec<T>), OpError> {
    let a = oriented(a, settings.trans_a, "A")?;
    let [k, n] = sizes(b.shape(), settings.trans_b, "B")?;
    check_inner(a.shape(), &[k, n])?;
    let m = a.shape()[0];
    let shape = vec![m, n];
    let mut out = zeros::<T>(&shape)?;
    let steps = |x: &View<'_, T>| (x.strides()[0], x.strides()[1]);
    let left = Matrix { data: a.data(), row: steps(&a).0, column: steps(&a).1 };
    if let Some(bytes) = b.loose_bytes().filter(|_| b.dtype() == T::DTYPE) {
        product_of_loose(m, k, n, left, Loose { bytes, transposed: settings.trans_b }, &mut out, true)?;
    } else {
        let b = oriented(&b.view::<T>()?, settings.trans_b, "B")?;
        let right = Matrix { data: b.data(), row: steps(&b).0, column: steps(&b).1 };
        product(m, k, n, left, right, &mut out, true);
    }
    let alpha = T::of(settings.alpha);
    let c = match c.filter(|_| settings.beta != 0.0) {
        Some(c) => Some((c.broadcast(&shape)?, T::of(settings.beta))),
        None => None,
    };
    let rows = GRAIN.div_ceil(4 * n.max(1));
    parallel::chunks(&mut out, (rows * n).max(1), &|i, out| {
        if settings.alpha != 1.0 {
            for x in &mut *out {
                *x = alpha * *x;
            }
        }
        if let Some((c, beta)) = &c {
            let (row, column) = steps(c);
            for (j, out) in out.chunks_mut(n).enumerate() {
                let c = &c.data()[(i * rows + j) * row..];
                match column {
                    1 => out.iter_mut().zip(c).for_each(|(out, c)| *out += *beta * *c),
                    _ => out.iter_mut().enumerate().for_each(|(k, out)| *out += *beta * c[k * column]),
                }
            }
        }
        settings.activation.apply(out);
    });
    Ok((shape, out))
}

/// Integer Gemm: scales must be whole numbers.
fn whole<T: super::matmul::Whole>(
    call: &Call<'_>,
    g: Gemm,
    of: impl Fn(f64) -> T,
) -> Result<Tensor, OpError> {
    let (a, b) = (call.need(0, "A")?.view::<T>()?, call.need(1, "B")?.view::<T>()?);
    let (a, b) = (oriented(&a, g.trans_a, "A")?, oriented(&b, g.trans_b, "B")?);
    check_inner(a.shape(), b.shape())?;
    if g.alpha.fract() != 0.0 || g.beta.fract() != 0.0 {
        return Err(OpError::Setting(format!(
            "alpha {} and beta {} must be whole numbers for integer inputs",
            g.alpha, g.beta
        )));
    }
    let (shape, mut out) = matmul_whole(&a, &b)?;
    let (zero, alpha, beta) = (T::zeroed(), of(g.alpha), of(g.beta));
    for x in &mut out {
        *x = zero.plus(alpha, *x);
    }
    if let Some(c) = call.get(2) {
        let c = c.view::<T>()?.broadcast(&shape)?;
        out.iter_mut().zip(c.to_vec()).for_each(|(x, c)| *x = x.plus(beta, c));
    }
    Ok(Tensor::from_vec(&shape, out)?)
}

impl Operator for Gemm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (call.need(0, "A")?, call.need(1, "B")?);
        let out = match a.dtype() {
            DType::I32 => whole(call, *self, |x| x as i32)?,
            DType::I64 => whole(call, *self, |x| x as i64)?,
            DType::U32 => whole(call, *self, |x| x as i64 as u32)?,
            DType::U64 => whole(call, *self, |x| x as i64 as u64)?,
            dtype => for_float!(dtype, "A", T => {
                let c = call.get(2).map(Tensor::view::<T>).transpose()?;
                let (shape, data) = gemm(&a.view::<T>()?, b, c.as_ref(), *self)?;
                Ok(Tensor::from_vec(&shape, data)?)
            })?,
        };
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        // With an activation `propagate` below sees to it.
        Flow::Linear
    }

    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        if self.activation != Activation::Identity || !call.need(0, "A")?.dtype().is_float() {
            return Ok(None);
        }
        self.sizes(call).map(Some)
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if !output.dtype().is_float() {
            return Ok(budget::exact(output.len()));
        }
        let terms = call.need(0, "A")?.shape().get(usize::from(!self.trans_a)).copied().unwrap_or(1);
        let terms = (terms + usize::from(call.get(2).is_some())) as f64;
        let magnitude = self.sizes(call)?;
        if self.activation == Activation::Identity {
            return budget::sum_of(output, &magnitude, terms, unit);
        }
        let before = self.linear(false).run(call)?.remove(0);
        let budget = budget::sum_of(&before, &magnitude, terms, unit)?;
        Ok(self.activation.budget(budget, &before.to_f64()?, unit))
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let absolute = self.linear(true);
        let mut changes = flow::propagate(Flow::Linear, &|c| absolute.run(c), call, outputs, errors)?;
        if self.activation != Activation::Identity {
            let before = self.linear(false).run(call)?.remove(0);
            changes[0] = self.activation.propagate(&before, &changes[0])?;
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::loosened;

    const BASE: Gemm =
        Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false, activation: Activation::Identity };

    /// The definition, element by element.
    fn naive(a: &Tensor, b: &Tensor, c: Option<&Tensor>, g: Gemm) -> Vec<f64> {
        let at = |t: &Tensor, i: usize, j: usize, transpose: bool| {
            let (i, j) = if transpose { (j, i) } else { (i, j) };
            t.as_slice::<f64>().unwrap()[i * t.shape()[1] + j]
        };
        let m = a.shape()[usize::from(g.trans_a)];
        let k = a.shape()[usize::from(!g.trans_a)];
        let n = b.shape()[usize::from(!g.trans_b)];
        let c = c.map(|c| c.view::<f64>().unwrap().broadcast(&[m, n]).unwrap().to_vec());
        let mut out = Vec::new();
        for i in 0..m {
            for j in 0..n {
                let s: f64 = (0..k).map(|l| at(a, i, l, g.trans_a) * at(b, l, j, g.trans_b)).sum();
                let c = c.as_ref().map_or(0.0, |c| c[i * n + j]);
                out.push(g.activation.at(g.alpha * s + g.beta * c));
            }
        }
        out
    }

    fn filled(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        let x = (0..n).map(|i| ((i * 37 + seed * 101) % 17) as f64 / 8.0 - 1.0).collect();
        Tensor::from_vec(shape, x).unwrap()
    }

    #[test]
    fn against_the_definition() {
        let c_shapes: [Option<&[usize]>; 6] =
            [None, Some(&[]), Some(&[5]), Some(&[3, 1]), Some(&[1, 5]), Some(&[3, 5])];
        for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
            for k in [0, 1, 4] {
                for c_shape in c_shapes {
                    let g = Gemm {
                        trans_a,
                        trans_b,
                        alpha: -0.5,
                        beta: 2.0,
                        activation: Activation::LeakyRelu(0.25),
                    };
                    let a = filled(&if trans_a { [k, 3] } else { [3, k] }, 1);
                    let b = filled(&if trans_b { [5, k] } else { [k, 5] }, 2);
                    let c = c_shape.map(|s| filled(s, 3));
                    let inputs = [Some(&a), Some(&b), c.as_ref()];
                    let got = g.run(&Call::new(&inputs)).unwrap().remove(0);
                    assert_eq!(got.shape(), [3, 5]);
                    assert_eq!(*got.to_f64().unwrap(), naive(&a, &b, c.as_ref(), g), "{g:?} {k} {c_shape:?}");
                    let loose = loosened(&b);
                    let inputs = [Some(&a), Some(&loose), c.as_ref()];
                    assert!(g.run(&Call::new(&inputs)).unwrap()[0].bit_eq(&got), "{g:?} {k} in a file");
                }
            }
        }
    }

    #[test]
    fn errors_do_not_cancel_between_scales_of_opposite_signs() {
        let g = Gemm { alpha: -1.0, ..BASE };
        let (a, b, c) = (filled(&[1, 1], 0), filled(&[1, 1], 0), filled(&[1, 1], 0));
        let e = Tensor::full(&[1, 1], 1e-7).unwrap();
        let inputs = [Some(&a), Some(&b), Some(&c)];
        let call = Call::new(&inputs);
        let outputs = g.run(&call).unwrap();
        let got = g.propagate(&call, &outputs, &[Some(e.clone()), None, Some(e)]).unwrap();
        // |b| e + e, with b = -1.
        assert!((got[0].to_f64().unwrap()[0] - 2e-7).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn integers_and_refusals() {
        let a = Tensor::from_vec(&[1, 2], vec![2i32, 3]).unwrap();
        let b = Tensor::from_vec(&[2, 1], vec![5i32, 7]).unwrap();
        let inputs = [Some(&a), Some(&b)];
        let out = Gemm { alpha: 2.0, ..BASE }.run(&Call::new(&inputs)).unwrap();
        assert_eq!(out[0].as_slice::<i32>().unwrap(), [62]);
        assert!(Gemm { alpha: 0.5, ..BASE }.run(&Call::new(&inputs)).is_err());
        assert!(Gemm { trans_b: true, ..BASE }.run(&Call::new(&inputs)).is_err());
    }
}

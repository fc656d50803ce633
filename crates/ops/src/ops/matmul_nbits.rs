//! com.microsoft's MatMulNBits: a product with a weight stored in 2, 4 or 8 bits, in blocks along K that each have a scale
//! and a zero point.
//!
//! B is (N, blocks, bytes of a block), low bits first; `zero_points` is packed likewise, row by row, or a float for each
//! block; left out it is the middle of the range. `accuracy_level` says how a runtime may round A and is not followed:
//! what is computed is what the weights mean.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, View};

use super::matmul::matmul;
use crate::budget::{self, Budget, Unit};
use crate::magnitude::magnitude;
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct MatMulNBits {
    n: usize,
    k: usize,
    bits: usize,
    block: usize,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let size = |name: &str, default: i64| -> Result<usize, OpError> {
        let i = attributes::int_or(node, name, default)?;
        let positive = usize::try_from(i).ok().filter(|&i| i > 0);
        positive.ok_or_else(|| OpError::Setting(format!("{name} is {i}, expected a positive number")))
    };
    if attributes::int_or(node, "weight_prepacked", 0)? != 0 {
        return Err(OpError::Setting("weight_prepacked is not supported; expected 0".into()));
    }
    let bits = size("bits", 4)?;
    if ![2, 4, 8].contains(&bits) {
        return Err(OpError::Setting(format!("bits is {bits}, expected 2, 4 or 8")));
    }
    Ok(Box::new(MatMulNBits { n: size("N", 0)?, k: size("K", 0)?, bits, block: size("block_size", 0)? }))
}

impl MatMulNBits {
    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// Number `i` of a row of packed ones.
    fn unpack(&self, row: &[u8], i: usize) -> u8 {
        let each = 8 / self.bits;
        let shift = i % each * self.bits;
        (u16::from(row[i / each]) >> shift & ((1 << self.bits) - 1)) as u8
    }

    /// The weight as (N, K).
    fn weight<T: Float>(&self, call: &Call<'_>, zeros: Option<&Tensor>) -> Result<Vec<T>, OpError> {
        let (packed, scales) = (call.need(1, "B")?, call.need(2, "scales")?);
        if call.get(4).is_some() {
            return Err(OpError::Setting("g_idx is not supported; it was dropped from the operator".into()));
        }
        let blocks = self.blocks();
        let bytes = (self.block * self.bits).div_ceil(8);
        let expected = self.n.checked_mul(blocks).and_then(|n| n.checked_mul(bytes));
        if packed.dtype() != DType::U8 || Some(packed.len()) != expected || scales.len() != self.n * blocks {
            return Err(OpError::Input(format!(
                "B {}{:?} and scales {:?} do not hold [{}, {blocks}, {bytes}] bytes and [{}, {blocks}] numbers",
                packed.dtype(),
                packed.shape(),
                scales.shape(),
                self.n,
                self.n
            )));
        }
        let (packed, scales) = (packed.as_slice::<u8>()?, scales.as_slice::<T>()?);
        let middle = f64::from(1u32 << (self.bits - 1));
        let zeros: Vec<T> = match zeros {
            None => vec![T::of(middle); self.n * blocks],
            Some(z) if z.dtype() == DType::U8 => {
                let width = (blocks * self.bits).div_ceil(8);
                if z.len() != self.n * width {
                    return Err(OpError::Input(format!(
                        "zero_points has shape {:?}, expected [{}, {width}] bytes",
                        z.shape(),
                        self.n
                    )));
                }
                let rows = z.as_slice::<u8>()?.chunks(width);
                rows.flat_map(|row| (0..blocks).map(|b| T::of(self.unpack(row, b).into()))).collect()
            }
            Some(z) if z.len() == self.n * blocks => z.cast(T::DTYPE)?.as_slice::<T>()?.to_vec(),
            Some(z) => {
                return Err(OpError::Input(format!(
                    "zero_points has shape {:?}, expected [{}, {blocks}]",
                    z.shape(),
                    self.n
                )));
            }
        };
        let mut weight = Vec::with_capacity(isotrace_tensor::element_count(&[self.n, self.k])?);
        for row in 0..self.n {
            for i in 0..self.k {
                let block = row * blocks + i / self.block;
                let q = self.unpack(&packed[block * bytes..(block + 1) * bytes], i % self.block);
                weight.push((T::of(q.into()) - zeros[block]) * scales[block]);
            }
        }
        Ok(weight)
    }

    /// The product; with `signed` (the call whose zero points keep their signs) the sum of absolute products.
    fn compute<T: Float>(&self, call: &Call<'_>, signed: Option<&Call<'_>>) -> Result<Tensor, OpError> {
        let a = call.need(0, "A")?;
        let mut weight = self.weight::<T>(call, signed.unwrap_or(call).get(3))?;
        if signed.is_some() {
            for w in &mut weight {
                *w = w.abs();
            }
        }
        let weight = View::new(&weight, &[self.n, self.k]).permute(&[1, 0]);
        let (shape, mut out) = matmul(&a.view::<T>()?, &weight)?;
        if let Some(bias) = call.get(5) {
            let bias = bias.as_slice::<T>()?;
            if bias.len() != self.n {
                return Err(OpError::Input(format!(
                    "bias holds {} numbers, expected {}",
                    bias.len(),
                    self.n
                )));
            }
            for row in out.chunks_mut(self.n) {
                row.iter_mut().zip(bias).for_each(|(y, &b)| *y += b);
            }
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }
}

impl Operator for MatMulNBits {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = call.need(0, "A")?;
        Ok(vec![for_float!(a.dtype(), "A", T => self.compute::<T>(call, None))?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        // A zero point and a scale for each weight: two more roundings a term.
        let terms = (self.k + 2 + usize::from(call.get(5).is_some())) as f64;
        let sizes = magnitude(call, |c| {
            let a = c.need(0, "A")?;
            for_float!(a.dtype(), "A", T => self.compute::<T>(c, Some(call)))
        })?;
        budget::sum_of(output, &sizes, terms, unit)
    }
}

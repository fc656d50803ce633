//! Operators that move elements without looking at them work on any type through one generic kernel.

use bytemuck::Pod;
use isotrace_tensor::{DType, Tensor, TensorError, element_count};

/// A kernel that fills an output with elements of one or more inputs of the same type.
pub trait Move {
    /// Appends the output's elements in C order to `out`, which is empty and has room for all of them.
    /// `data[i]` are the elements of input `i`; `zero` is the number 0, false or the empty string.
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], zero: T, out: &mut Vec<T>);
}

/// Copies runs of `run` elements from these offsets.
pub struct Runs {
    /// Where each run starts in input 0.
    pub starts: Vec<usize>,
    /// Elements in a run.
    pub run: usize,
}

impl Move for Runs {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], _: T, out: &mut Vec<T>) {
        if self.run == 1 {
            out.extend(self.starts.iter().map(|&at| data[0][at]));
        } else {
            for &at in &self.starts {
                out.extend_from_slice(&data[0][at..at + self.run]);
            }
        }
    }
}

/// Room for the elements of `shape`; an error where the machine has not that much, so that a hostile size does
/// not end the process.
pub fn room<T>(shape: &[usize]) -> Result<Vec<T>, TensorError> {
    let mut out = Vec::new();
    out.try_reserve_exact(element_count(shape)?)
        .map_err(|_| TensorError::TooLarge { shape: shape.to_vec() })?;
    Ok(out)
}

/// Runs a kernel on tensors of one element type and wraps the result, which has `shape`.
pub fn move_elements(inputs: &[&Tensor], shape: &[usize], kernel: &impl Move) -> Result<Tensor, TensorError> {
    let first = inputs.first().map_or(DType::F32, |t| t.dtype());
    if let Some(other) = inputs.iter().find(|t| t.dtype() != first) {
        return Err(TensorError::DType { found: other.dtype(), expected: first });
    }
    match first {
        DType::String => {
            let mut pool = vec![String::new()];
            let mut places: Vec<Vec<usize>> = Vec::new();
            for tensor in inputs {
                let start = pool.len();
                pool.extend_from_slice(tensor.as_strings()?);
                places.push((start..pool.len()).collect());
            }
            let places: Vec<&[usize]> = places.iter().map(Vec::as_slice).collect();
            let mut picked = room(shape)?;
            kernel.run(&places, 0, &mut picked);
            Tensor::from_strings(shape, picked.into_iter().map(|i| pool[i].clone()).collect())
        }
        // C64 is two floats aligned to 4 bytes, every other type of 8 bytes is aligned to 8.
        DType::C64 => typed::<[u32; 2]>(inputs, shape, first, kernel),
        dtype => match dtype.size() {
            1 => typed::<u8>(inputs, shape, first, kernel),
            2 => typed::<u16>(inputs, shape, first, kernel),
            4 => typed::<u32>(inputs, shape, first, kernel),
            8 => typed::<u64>(inputs, shape, first, kernel),
            _ => typed::<[u64; 2]>(inputs, shape, first, kernel),
        },
    }
}

fn typed<T: Pod + Send + Sync>(
    inputs: &[&Tensor],
    shape: &[usize],
    dtype: DType,
    kernel: &impl Move,
) -> Result<Tensor, TensorError> {
    let data: Vec<&[T]> = inputs.iter().map(|t| bytemuck::cast_slice(t.bytes())).collect();
    let mut out = room(shape)?;
    kernel.run(&data, T::zeroed(), &mut out);
    Tensor::from_pods(dtype, shape, out)
}

//! Four letters that stand for a tensor's elements, as onnx-array-api writes them.

use isotrace_tensor::{DType, Tensor};

use crate::number;

/// The elements in C order as f64, up to four as they are and more in four consecutive sums of equal length (the
/// last ones of fewer elements), each as a letter: the whole part modulo 26, `?` from 1e10 on and for NaN.
///
/// Text has `????`; of complex numbers the real parts are taken. Letters agree by chance one time in 26 each:
/// they are for the eye and prove nothing.
pub fn four_letters(tensor: &Tensor) -> String {
    const LETTERS: usize = 4;
    if tensor.dtype() == DType::String {
        return "?".repeat(LETTERS);
    }
    let read = number::reals(tensor);
    let block = tensor.len().div_ceil(LETTERS).max(1);
    (0..LETTERS)
        .map(|k| {
            let range = (k * block).min(tensor.len())..((k + 1) * block).min(tensor.len());
            let sum: f64 = range.map(|i| read(i)[0]).sum();
            if sum.abs() < 1e10 { char::from(b'A' + (sum.trunc() as i64).rem_euclid(26) as u8) } else { '?' }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected letters are onnx-array-api 0.3.3's (`make_summary`).
    #[test]
    fn letters_are_those_of_onnx_array_api() {
        let range = |n: u8| (0..n).map(f32::from).collect::<Vec<_>>();
        let cases: [(Tensor, &str); 8] = [
            (Tensor::vector(range(12)), "DMVE"),
            (Tensor::vector(vec![-1.0, -0.5, -26.0, -27.0]), "ZAAZ"),
            (Tensor::vector(vec![1.0, f64::INFINITY, 3.0, 4.0]), "B?DE"),
            (Tensor::vector(range(6)), "BFJA"),
            (Tensor::vector(range(5)), "BFEA"),
            (Tensor::vector(range(2)), "ABAA"),
            (Tensor::scalar(0.5f32), "AAAA"),
            (Tensor::vector(vec![3i64, -30, 1 << 40, 0, 7]), "Z?HA"),
        ];
        for (tensor, letters) in cases {
            assert_eq!(four_letters(&tensor), letters, "{tensor:?}");
        }
    }
}

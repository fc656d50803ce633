//! Single elements, for showing: no digit of them is lost.

use isotrace_tensor::{DType, Tensor};

use crate::number;

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A float.
    Real(f64),
    /// An integer; a truth value is 0 or 1.
    Integer(i128),
    /// A complex number: its real and its imaginary part.
    Complex([f64; 2]),
    /// A text.
    Text(String),
}

/// The first elements in C order, up to `count` of them.
pub fn first(tensor: &Tensor, count: usize) -> Vec<Scalar> {
    let count = count.min(tensor.len());
    if let Ok(texts) = tensor.as_strings() {
        return texts[..count].iter().map(|t| Scalar::Text(t.clone())).collect();
    }
    let read = reader(tensor);
    (0..count).map(read).collect()
}

/// Reads element `i` of a tensor that holds no texts.
pub(crate) fn reader(tensor: &Tensor) -> impl Fn(usize) -> Scalar + '_ {
    let whole = number::integers(tensor);
    let reals = whole.is_none().then(|| number::reals(tensor));
    let complex = number::is_complex(tensor.dtype());
    debug_assert!(tensor.dtype() != DType::String, "texts are no numbers");
    move |i| match (&whole, &reals) {
        (Some(read), _) => Scalar::Integer(read(i)),
        (None, Some(read)) if complex => Scalar::Complex(read(i)),
        (None, Some(read)) => Scalar::Real(read(i)[0]),
        (None, None) => unreachable!("one of both was made"),
    }
}

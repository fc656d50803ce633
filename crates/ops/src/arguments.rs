//! Reading what ONNX moved from attributes to inputs over the years: shapes, axes, counts, indices.

use std::borrow::Cow;

use isotrace_tensor::{Tensor, normalise_axis};

use crate::{Call, OpError};

/// Optional integer input `index`, called `name` in messages, in C order.
pub fn ints<'a>(
    call: &Call<'a>,
    index: usize,
    name: &'static str,
) -> Result<Option<Cow<'a, [i64]>>, OpError> {
    let Some(tensor) = call.get(index) else { return Ok(None) };
    let found = tensor.dtype();
    if found.is_int() {
        Ok(Some(tensor.to_i64()?))
    } else {
        Err(OpError::DType { what: name, found, supported: "integers" })
    }
}

/// Required integer input `index`.
pub fn need_ints<'a>(call: &Call<'a>, index: usize, name: &'static str) -> Result<Cow<'a, [i64]>, OpError> {
    ints(call, index, name)?.ok_or(OpError::Missing(index, name))
}

/// A setting that older versions give as an attribute and newer ones as input `index`.
pub fn setting<'a>(
    attribute: Option<&'a [i64]>,
    call: &Call<'a>,
    index: usize,
    name: &'static str,
) -> Result<Option<Cow<'a, [i64]>>, OpError> {
    match attribute {
        Some(list) => Ok(Some(Cow::Borrowed(list))),
        None => ints(call, index, name),
    }
}

/// The one element of integer input `index`.
pub fn one_int(call: &Call<'_>, index: usize, name: &'static str) -> Result<Option<i64>, OpError> {
    match ints(call, index, name)?.as_deref() {
        None => Ok(None),
        Some(&[one]) => Ok(Some(one)),
        Some(many) => {
            Err(OpError::Input(format!("{name} holds {} elements, one number is expected", many.len())))
        }
    }
}

/// A number that counts something.
pub fn count(number: i64, name: &str) -> Result<usize, OpError> {
    usize::try_from(number).map_err(|_| OpError::Input(format!("{name} is {number}, it must be 0 or more")))
}

/// Numbers that are sizes of axes.
pub fn sizes(numbers: &[i64], name: &str) -> Result<Vec<usize>, OpError> {
    numbers
        .iter()
        .map(|&n| {
            usize::try_from(n)
                .map_err(|_| OpError::Input(format!("{name} {numbers:?} holds {n}, sizes must be 0 or more")))
        })
        .collect()
}

/// Axes counted from either end, each at most once, as indices below `rank`, in the order given.
pub fn axes(numbers: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut seen = vec![false; rank];
    let mut axes = Vec::with_capacity(numbers.len().min(rank));
    for &number in numbers {
        let axis = normalise_axis(number, rank)?;
        if std::mem::replace(&mut seen[axis], true) {
            return Err(OpError::Input(format!("axes {numbers:?} name axis {axis} of {rank} twice")));
        }
        axes.push(axis);
    }
    Ok(axes)
}

/// An index that may count from the end, checked against the size of its axis.
pub fn index(number: i64, size: usize, axis: usize) -> Result<usize, OpError> {
    let from_start = if number < 0 { number.saturating_add(size as i64) } else { number };
    usize::try_from(from_start).ok().filter(|&i| i < size).ok_or_else(|| {
        OpError::Input(if size == 0 {
            format!("index {number} points into axis {axis}, which is empty")
        } else {
            format!(
                "index {number} is outside axis {axis} of size {size}, it must lie in -{size}..={}",
                size - 1
            )
        })
    })
}

/// Every index of a tensor, checked.
pub fn indices(tensor: &Tensor, size: usize, axis: usize) -> Result<Vec<usize>, OpError> {
    tensor.to_i64()?.iter().map(|&i| index(i, size, axis)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_either_end_and_say_what_is_wrong() {
        let cases = [(0, 3, Some(0)), (-1, 3, Some(2)), (-3, 3, Some(0)), (3, 3, None), (-4, 3, None)];
        for (number, size, expected) in cases {
            assert_eq!(index(number, size, 1).ok(), expected, "{number} of {size}");
        }
        assert_eq!(index(i64::MIN, 3, 0).ok(), None);
        let message = index(7, 3, 1).unwrap_err().to_string();
        assert!(["7", "axis 1", "size 3"].iter().all(|part| message.contains(part)), "{message}");
        assert!(index(0, 0, 2).unwrap_err().to_string().contains("axis 2, which is empty"));
    }

    #[test]
    fn axes_are_named_once() {
        assert_eq!(axes(&[-1, 0], 3).unwrap(), [2, 0]);
        assert!(axes(&[0, -3], 3).is_err());
        assert!(axes(&[3], 3).is_err());
        assert_eq!(axes(&[], 0).unwrap(), [0; 0]);
    }
}

//! Sparse tensors, made dense: nothing downstream knows any other kind.

use isotrace_tensor::{DType, Tensor, element_count};

use crate::OnnxError;
use crate::external::External;
use crate::generated::onnx::SparseTensorProto;
use crate::tensor::decode;

/// Largest dense form, in bytes: a few sparse bytes must not be able to ask for all memory.
const LARGEST: usize = 1 << 31;

/// The dense form of a sparse tensor; elements not listed are zero (empty, for text).
///
/// Indices are `[count]` positions in C order or `[count, rank]` coordinates, ascending and without repetition.
pub fn densify(sparse: &SparseTensorProto, external: &External) -> Result<Tensor, OnnxError> {
    let name = sparse.values.as_ref().map_or("", |v| v.name()).to_owned();
    let fail = |problem: String| OnnxError::Sparse {
        tensor: name.clone(),
        problem,
        remedy: "export the model again, or with dense initializers",
    };
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(fail("values or indices are missing".into()));
    };
    let values = decode(values, external)?;
    let indices = decode(indices, external)?;
    let shape: Vec<usize> = sparse
        .dims
        .iter()
        .map(|&d| {
            usize::try_from(d).map_err(|_| fail(format!("dims {:?} hold a negative size", sparse.dims)))
        })
        .collect::<Result<_, _>>()?;
    let width = values.dtype().size().max(size_of::<String>() * usize::from(values.dtype() == DType::String));
    let total = element_count(&shape).ok().filter(|&n| n <= LARGEST / width).ok_or_else(|| {
        fail(format!("dims {:?} would take more than {LARGEST} bytes when dense", sparse.dims))
    })?;
    let numbers = indices
        .as_slice::<i64>()
        .map_err(|_| fail(format!("indices are {}, expected i64", indices.dtype())))?;
    let count = values.len();
    let positions: Vec<usize> = if indices.shape() == [count] {
        numbers
            .iter()
            .map(|&i| usize::try_from(i).ok().filter(|&i| i < total))
            .collect::<Option<_>>()
            .ok_or_else(|| fail(format!("an index is outside the {total} elements")))?
    } else if indices.shape() == [count, shape.len()] {
        let coordinates = numbers.chunks(shape.len().max(1));
        coordinates
            .map(|c| {
                c.iter().zip(&shape).try_fold(0usize, |at, (&i, &d)| {
                    usize::try_from(i).ok().filter(|&i| i < d).map(|i| at * d + i)
                })
            })
            .collect::<Option<_>>()
            .ok_or_else(|| fail(format!("an index is outside the shape {shape:?}")))?
    } else {
        let found = indices.shape();
        return Err(fail(format!(
            "indices have shape {found:?}, expected [{count}] or [{count}, {}]",
            shape.len()
        )));
    };
    if positions.len() != count || !positions.is_sorted_by(|a, b| a < b) {
        return Err(fail("indices are not ascending without repetition".into()));
    }
    let dense = if let Ok(texts) = values.as_strings() {
        let mut dense = vec![String::new(); total];
        for (&at, text) in positions.iter().zip(texts) {
            dense[at].clone_from(text);
        }
        Tensor::from_strings(&shape, dense)
    } else {
        let width = values.dtype().size();
        let mut dense = vec![0u8; total * width];
        for (&at, element) in positions.iter().zip(values.bytes().chunks_exact(width)) {
            dense[at * width..][..width].copy_from_slice(element);
        }
        Tensor::from_bytes(values.dtype(), &shape, dense.into())
    };
    dense.map_err(|cause| OnnxError::Tensor { tensor: name, cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::tensor_to_proto;

    fn sparse(dims: &[i64], indices: &Tensor, values: &Tensor) -> Result<Tensor, OnnxError> {
        let proto = SparseTensorProto {
            values: Some(tensor_to_proto("s", values)),
            indices: Some(tensor_to_proto("", indices)),
            dims: dims.to_vec(),
        };
        densify(&proto, &External::default())
    }

    #[test]
    fn both_kinds_of_indices_place_values() {
        let values = Tensor::vector(vec![1f32, 2.0]);
        let dense = Tensor::from_vec(&[2, 3], vec![0f32, 0.0, 1.0, 0.0, 2.0, 0.0]).unwrap();
        let flat = Tensor::vector(vec![2i64, 4]);
        assert!(sparse(&[2, 3], &flat, &values).unwrap().bit_eq(&dense));
        let pairs = Tensor::from_vec(&[2, 2], vec![0i64, 2, 1, 1]).unwrap();
        assert!(sparse(&[2, 3], &pairs, &values).unwrap().bit_eq(&dense));
        let texts = Tensor::from_strings(&[1], vec!["x".into()]).unwrap();
        let dense = sparse(&[2], &Tensor::vector(vec![1i64]), &texts).unwrap();
        assert_eq!(dense.as_strings().unwrap(), ["", "x"]);
        let none =
            sparse(&[2], &Tensor::vector(Vec::<i64>::new()), &Tensor::vector(Vec::<f32>::new())).unwrap();
        assert_eq!(none.as_slice::<f32>().unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn hostile_ones_are_refused() {
        let values = Tensor::vector(vec![1f32, 2.0]);
        let v = |i: [i64; 2]| Tensor::vector(i.to_vec());
        let grid = |i: [i64; 4]| Tensor::from_vec(&[2, 2], i.to_vec()).unwrap();
        let cases = [
            (vec![2, 3], v([2, 6]), "outside the 6"),
            (vec![2, 3], v([-1, 2]), "outside the 6"),
            (vec![2, 3], v([2, 2]), "ascending"),
            (vec![2, 3], v([3, 2]), "ascending"),
            (vec![2, 3], grid([0, 3, 1, 0]), "outside the shape"),
            (vec![2, 3, 1], grid([0, 0, 1, 0]), "expected [2] or [2, 3]"),
            (vec![2, 3], Tensor::vector(vec![0i32, 1]), "expected i64"),
            (vec![-2, 3], v([0, 1]), "negative"),
            (vec![1 << 40, 1 << 40], v([0, 1]), "when dense"),
            (vec![1 << 30], v([0, 1]), "when dense"),
        ];
        for (dims, indices, expected) in cases {
            let found = sparse(&dims, &indices, &values).unwrap_err().to_string();
            assert!(found.contains(expected), "{dims:?} {indices:?}: {found}");
        }
        assert!(densify(&SparseTensorProto::default(), &External::default()).is_err());
    }
}

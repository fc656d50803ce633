//! ArrayFeatureExtractor: some features of each row. FeatureVectorizer: features of several inputs side by side.
//! OneHotEncoder: a 1 at the place of each category.

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, element_count};

use super::{answer, numbers};
use crate::budget::{self, Budget, Unit};
use crate::moves::{Runs, move_elements, room};
use crate::{Call, Decision, Flow, OpError, Operator, arguments, attributes};

#[derive(Debug)]
struct Extractor;

/// Parses a node of ArrayFeatureExtractor.
pub fn extractor(_: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Extractor))
}

impl Operator for Extractor {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, places) = (call.need(0, "X")?, call.need(1, "Y")?);
        let Some((&width, rows)) = x.shape().split_last() else {
            return Err(OpError::Input("X is one number, it needs an axis of features".into()));
        };
        let places = arguments::indices(places, width, x.rank() - 1)?;
        // One row is still a row.
        let rows = if rows.is_empty() { &[1] } else { rows };
        let shape = [rows, &[places.len()]].concat();
        let mut starts = room(&shape)?;
        if element_count(&shape)? > 0 {
            for row in 0..rows.iter().product() {
                starts.extend(places.iter().map(|place| row * width + place));
            }
        }
        Ok(vec![move_elements(&[x], &shape, &Runs { starts, run: 1 })?])
    }

    fn flow(&self) -> Flow {
        Flow::Moves
    }
}

#[derive(Debug)]
struct Vectorizer {
    /// How many features each input gives, where the node says it.
    widths: Vec<usize>,
}

/// Parses a node of FeatureVectorizer.
pub fn vectorizer(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let widths = attributes::ints(node, "inputdimensions")?.unwrap_or_default();
    Ok(Box::new(Vectorizer { widths: arguments::sizes(&widths, "inputdimensions")? }))
}

impl Vectorizer {
    /// The inputs side by side, in f64. An input with fewer features than announced is filled up with zeros.
    fn joined(&self, inputs: &[Option<Tensor>]) -> Result<(Vec<f64>, [usize; 2]), OpError> {
        let mut parts = Vec::new();
        let mut total = 0usize;
        for (i, x) in inputs.iter().enumerate() {
            let x = x.as_ref().ok_or(OpError::Missing(i, "X"))?;
            let rows = if x.rank() < 2 { 1 } else { x.shape()[0] };
            let found = x.len().checked_div(rows).unwrap_or(0);
            let width = self.widths.get(i).copied().unwrap_or(found);
            total = total.checked_add(width).ok_or_else(|| OpError::Input("too many features".into()))?;
            parts.push((x.to_f64()?, rows, found, width));
        }
        let rows = parts.first().map_or(0, |p| p.1);
        if let Some(other) = parts.iter().find(|p| p.1 != rows) {
            return Err(OpError::Input(format!("inputs have {rows} and {} rows", other.1)));
        }
        let mut out: Vec<f64> = room(&[rows, total])?;
        for row in 0..rows {
            for (x, _, found, width) in &parts {
                let kept = (*found).min(*width);
                out.extend_from_slice(&x[row * found..row * found + kept]);
                out.extend(std::iter::repeat_n(0.0, width - kept));
            }
        }
        Ok((out, [rows, total]))
    }
}

impl Operator for Vectorizer {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let inputs: Vec<Option<Tensor>> =
            call.inputs.iter().map(|x| x.map(numbers::<f64>).transpose()).collect::<Result<_, _>>()?;
        let (joined, shape) = self.joined(&inputs)?;
        Ok(vec![Tensor::from_vec(&shape, joined)?.cast(answer(call.precision))?])
    }

    fn budget(&self, _: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        budget::correctly_rounded(output, unit)
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        _: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let error = |(i, x): (usize, Option<&Tensor>)| match (errors.get(i).and_then(Option::as_ref), x) {
            (Some(error), _) => Ok(Some(error.clone())),
            (None, Some(x)) => Ok(Some(Tensor::full(x.shape(), 0f64)?)),
            (None, None) => Ok(None),
        };
        let errors =
            call.inputs.iter().copied().enumerate().map(error).collect::<Result<Vec<_>, OpError>>()?;
        let (joined, shape) = self.joined(&errors)?;
        Ok(vec![Tensor::from_vec(&shape, joined)?])
    }
}

#[derive(Debug)]
enum Categories {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

#[derive(Debug)]
struct OneHotEncoder {
    categories: Categories,
    /// Whether a category that is not known gets zeros; it is an error else.
    zeros: bool,
}

/// Parses a node of OneHotEncoder.
pub fn one_hot_encoder(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let texts = attributes::texts(node, "cats_strings")?.filter(|t| !t.is_empty());
    let found = attributes::ints(node, "cats_int64s")?.filter(|n| !n.is_empty());
    let categories = match (texts, found) {
        (Some(texts), None) => Categories::Texts(texts),
        (None, Some(numbers)) => Categories::Numbers(numbers),
        _ => {
            return Err(OpError::Setting(
                "one of cats_int64s and cats_strings has to name the categories".into(),
            ));
        }
    };
    Ok(Box::new(OneHotEncoder { categories, zeros: attributes::flag(node, "zeros", true)? }))
}

impl Operator for OneHotEncoder {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let (places, count): (Vec<Option<usize>>, usize) = match &self.categories {
            Categories::Texts(texts) => {
                let place = |x: &String| texts.iter().position(|t| t == x);
                (x.as_strings()?.iter().map(place).collect(), texts.len())
            }
            Categories::Numbers(known) => {
                let place = |x: &i64| known.iter().position(|k| k == x);
                let whole = if x.dtype() == DType::String { x.clone() } else { x.cast(DType::I64)? };
                (whole.as_slice::<i64>()?.iter().map(place).collect(), known.len())
            }
        };
        if let Some(at) = places.iter().position(Option::is_none).filter(|_| !self.zeros) {
            return Err(OpError::Input(format!("element {at} of X is none of the {count} categories")));
        }
        let shape = [x.shape(), &[count]].concat();
        let mut out = crate::room::zeros::<f32>(&shape)?;
        for (i, place) in places.iter().enumerate() {
            if let Some(place) = place {
                out[i * count + place] = 1.0;
            }
        }
        Ok(vec![Tensor::from_vec(&shape, out)?.cast(answer(call.precision))?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::super::testing::{ints, node, texts};
    use crate::testing::{counting, errors, first, ints as tensor_of, run, tensor};

    #[test]
    fn features_are_picked_from_the_last_axis() {
        let pick = node("ArrayFeatureExtractor", 1, &[]);
        let y = first(&pick, &[&counting(&[2, 2, 3]), &tensor_of(&[2, 0])]);
        assert_eq!(
            (y.shape(), y.as_slice::<f32>().unwrap()),
            (&[2, 2, 2][..], &[2., 0., 5., 3., 8., 6., 11., 9.][..])
        );
        assert_eq!(first(&pick, &[&counting(&[3]), &tensor_of(&[1])]).shape(), [1, 1]);
        assert_eq!(first(&pick, &[&counting(&[0, 3]), &tensor_of(&[1])]).shape(), [0, 1]);
        assert!(run(&pick, &[&counting(&[3]), &tensor_of(&[3])]).is_err());
    }

    #[test]
    fn features_stand_side_by_side() {
        let (a, b) = (counting(&[2, 2]), tensor(&[2, 1], &[7i64, 8]));
        let join = node("FeatureVectorizer", 1, &[("inputdimensions", ints(&[3, 1]))]);
        let y = first(&join, &[&a, &b]);
        assert_eq!(y.as_slice::<f32>().unwrap(), [0., 1., 0., 7., 2., 3., 0., 8.]);
        let error = Some(tensor(&[2, 2], &[1f64, 2., 3., 4.]));
        assert_eq!(errors(&join, &[&a, &b], &[error, None]), [1., 2., 0., 0., 3., 4., 0., 0.]);
        assert!(run(&join, &[&a, &counting(&[3, 1])]).is_err());
        let wide = node("FeatureVectorizer", 1, &[("inputdimensions", ints(&[1 << 60]))]);
        assert!(run(&wide, &[&a]).is_err());
    }

    #[test]
    fn categories_are_marked() {
        let numbers = node("OneHotEncoder", 1, &[("cats_int64s", ints(&[1, 2]))]);
        let y = first(&numbers, &[&tensor(&[1, 3], &[1.7f32, 2.0, 9.0])]);
        assert_eq!(
            (y.shape(), y.as_slice::<f32>().unwrap()),
            (&[1, 3, 2][..], &[1., 0., 0., 1., 0., 0.][..])
        );
        let strict = [("cats_strings", texts(&["a", "b"])), ("zeros", Attribute::Int(0))];
        let strict = node("OneHotEncoder", 1, &strict);
        let words = |list: &[&str]| {
            isotrace_tensor::Tensor::from_strings(&[1], list.iter().map(|&w| w.into()).collect()).unwrap()
        };
        assert_eq!(first(&strict, &[&words(&["b"])]).as_slice::<f32>().unwrap(), [0., 1.]);
        assert!(run(&strict, &[&words(&["z"])]).is_err());
    }
}

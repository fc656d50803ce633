//! LinearRegressor and LinearClassifier: scores x W^T + b, and of a classifier the label of the largest.
//!
//! W and b are settings of the node. Two classes may share one score: the second has it, the first what is left to 1.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::scores::{First, Label, Labels, Transform, largest};
use super::{Rows, answer, computing};
use crate::budget::{Budget, Unit};
use crate::spread::{self, Number, Spread};
use crate::{Call, Float, OpError, Operator, attributes, budget};

#[derive(Debug)]
struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    transform: Transform,
    /// Of a classifier.
    labels: Option<Labels>,
}

/// Parses a node of LinearRegressor.
pub fn regressor(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let targets = attributes::int_or(node, "targets", 1)?;
    let intercepts = attributes::floats(node, "intercepts")?.unwrap_or_default();
    let intercepts = match usize::try_from(targets) {
        Ok(n) if n > 0 && intercepts.len() == n => intercepts,
        // Coefficients are at hand for as many targets as there may be.
        Ok(n) if n > 0 && n <= coefficients(node)?.len() && intercepts.is_empty() => vec![0.0; n],
        _ => {
            let found = intercepts.len();
            return Err(OpError::Setting(format!("targets is {targets}, and there are {found} intercepts")));
        }
    };
    build(node, intercepts, None)
}

/// Parses a node of LinearClassifier.
pub fn classifier(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let labels = Labels::of(node, "classlabels_ints")?;
    let mut intercepts = attributes::floats(node, "intercepts")?.unwrap_or_default();
    if intercepts.is_empty() {
        intercepts = vec![0.0; labels.len()];
    }
    let (scores, classes) = (intercepts.len(), labels.len());
    if scores != classes && (scores, classes) != (1, 2) {
        return Err(OpError::Setting(format!(
            "{classes} classes are named, and there are {scores} intercepts"
        )));
    }
    build(node, intercepts, Some(labels))
}

fn coefficients(node: &Node) -> Result<Vec<f32>, OpError> {
    Ok(attributes::floats(node, "coefficients")?.unwrap_or_default())
}

fn build(node: &Node, intercepts: Vec<f32>, labels: Option<Labels>) -> Result<Box<dyn Operator>, OpError> {
    let (coefficients, transform) = (coefficients(node)?, Transform::of(node)?);
    Ok(Box::new(Linear { coefficients, intercepts, transform, labels }))
}

impl Linear {
    /// Scores as they are written, how many in a row, and each row's label.
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<(Vec<N>, usize, Vec<Label>), OpError> {
        let rows = Rows::<N::Weight>::of(call)?;
        let targets = self.intercepts.len();
        if rows.width.checked_mul(targets) != Some(self.coefficients.len()) {
            return Err(OpError::Input(format!(
                "X has {} features, and there are {} coefficients for {targets} scores",
                rows.width,
                self.coefficients.len()
            )));
        }
        let of = |x: &f32| <N::Weight as Float>::of(f64::from(*x));
        let weights: Vec<N::Weight> = self.coefficients.iter().map(of).collect();
        let mut raw = Vec::new();
        N::product(&rows.exact(), &weights, (rows.count, rows.width, targets), &mut raw);
        let first = match &self.labels {
            Some(labels) if targets == 1 && labels.len() == 2 => Some(First::Rest),
            _ => None,
        };
        let mut written = Vec::with_capacity(raw.len());
        let mut chosen = Vec::with_capacity(rows.count);
        for row in raw.chunks(targets) {
            let mut row: Vec<N> =
                row.iter().zip(&self.intercepts).map(|(s, b)| s.plus(N::exact(of(b)))).collect();
            chosen.push(match (row.as_slice(), first) {
                (&[score], Some(_)) => Label::Class(usize::from(score.value() > N::Weight::ZERO)),
                (&[score], None) => Label::Sign(score.value() > N::Weight::ZERO),
                (row, _) => Label::Class(largest(row.iter().copied()).unwrap_or(0)),
            });
            self.transform.write(&mut row, first);
            written.extend(row);
        }
        Ok((written, if first.is_some() { 2 } else { targets }, chosen))
    }
}

impl Operator for Linear {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        computing!(call, T => {
            let (scores, width, chosen) = self.compute::<T>(call)?;
            let scores = Tensor::from_vec(&[chosen.len(), width], scores)?.cast(answer(call.precision))?;
            Ok(match &self.labels {
                Some(labels) => vec![labels.tensor(&chosen)?, scores],
                None => vec![scores],
            })
        })
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if self.labels.is_some() && index == 0 {
            return Ok(budget::exact(output.len()));
        }
        Ok(spread::budget(&self.compute::<Spread>(call)?.0, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, floats, ints, node, noise, share, text, texts};
    use crate::testing::{first, run, tensor};

    /// What ONNX Runtime 1.31 answers.
    #[test]
    fn scores_and_labels_as_a_table() {
        let x = tensor(&[2, 2], &[0.1f32, 0.2, -1.0, 0.3]);
        type Case = (&'static str, &'static [f32], &'static [f32], &'static [i64], &'static [f64]);
        let one = (&[0.5f32, 0.25][..], &[0.1f32][..]);
        let two = (&[0.5f32, 0.25, 1.0, 0.2][..], &[0.1f32, 0.2][..]);
        let cases: [Case; 6] = [
            ("NONE", one.0, one.1, &[4, 3], &[0.8, 0.2, 1.325, -0.325]),
            ("LOGISTIC", one.0, one.1, &[4, 3], &[0.450_166, 0.549_834, 0.580_542_3, 0.419_457_7]),
            ("SOFTMAX", one.0, one.1, &[4, 3], &[0.8, 0.2, 1.325, -0.325]),
            ("NONE", two.0, two.1, &[4, 3], &[0.2, 0.34, -0.325, -0.74]),
            ("SOFTMAX", two.0, two.1, &[4, 3], &[0.465_057_05, 0.534_942_9, 0.602_286_16, 0.397_713_84]),
            ("LOGISTIC", two.0, &[], &[4, 3], &[0.524_979_2, 0.534_942_9, 0.395_320_92, 0.280_900_36]),
        ];
        for (transform, coefficients, intercepts, labels, expected) in cases {
            let settings = [
                ("coefficients", floats(coefficients)),
                ("intercepts", floats(intercepts)),
                ("classlabels_ints", ints(&[3, 4])),
                ("post_transform", text(transform)),
            ];
            let y = run(&node("LinearClassifier", 1, &settings), &[&x]).unwrap();
            assert_eq!(y[0].as_slice::<i64>().unwrap(), labels, "{transform}");
            assert!(close(&y[1], expected), "{transform}: {:?}", y[1]);
        }
        let settings = [
            ("coefficients", floats(&[0.5, 0.25])),
            ("intercepts", floats(&[0.1])),
            ("post_transform", text("LOGISTIC")),
        ];
        let y = first(&node("LinearRegressor", 1, &settings), &[&x]);
        assert_eq!(y.shape(), [2, 1]);
        assert!(close(&y, &[0.549_834, 0.419_457_7]));
    }

    #[test]
    fn texts_and_mistakes() {
        let x = tensor(&[2], &[1.0f32, -1.0]);
        let three = floats(&[1.0, 0.0, 0.0, -3.0, 0.0, 1.0]);
        let labels = ("classlabels_strings", texts(&["a", "b", "c"]));
        let y = run(&node("LinearClassifier", 1, &[("coefficients", three), labels.clone()]), &[&x]).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["b"]);
        assert_eq!(y[1].shape(), [1, 3]);
        let short = [("coefficients", floats(&[1.0])), labels];
        assert!(run(&node("LinearClassifier", 1, &short), &[&x]).is_err());
        assert!(run(&node("LinearClassifier", 1, &[("coefficients", floats(&[1.0]))]), &[&x]).is_err());
        let many = [("coefficients", floats(&[1.0])), ("targets", isotrace_graph::Attribute::Int(1 << 60))];
        assert!(run(&node("LinearRegressor", 1, &many), &[&x]).is_err());
    }

    #[test]
    fn rounding_stays_inside() {
        let weights = noise(&[4, 64], 3);
        for transform in ["NONE", "SOFTMAX", "LOGISTIC"] {
            let settings = [
                ("coefficients", floats(weights.as_slice().unwrap())),
                ("classlabels_ints", ints(&[0, 1, 2, 3])),
                ("post_transform", text(transform)),
            ];
            let used = share(&node("LinearClassifier", 1, &settings), &[&noise(&[50, 64], 5)], 1);
            assert!(used > 0.0 && used < 1.0, "{transform}: {used}");
        }
    }
}

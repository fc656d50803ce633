//! What becomes of the scores of a row: the transform after them, the second class of two that share one score, labels.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::activation::Activation;
use crate::spread::Number;
use crate::{Float, OpError, attributes};

/// What is done to the scores of a row at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    None,
    Softmax,
    Logistic,
    /// Softmax over the scores that are not 0; a score of 0 stays.
    SoftmaxZero,
}

/// A score whose size is below this counts as 0 for [`Transform::SoftmaxZero`].
const ZERO: f64 = 1e-7;

/// Where one score stands for two classes: what the first of them gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// 1 less the score.
    Rest,
    /// The score with the other sign.
    Opposite,
}

impl Transform {
    /// The attribute `post_transform`, as text.
    pub fn of(node: &Node) -> Result<Self, OpError> {
        Self::named(&attributes::text_or(node, "post_transform", "NONE")?)
    }

    fn named(name: &str) -> Result<Self, OpError> {
        match name {
            "NONE" => Ok(Self::None),
            "SOFTMAX" => Ok(Self::Softmax),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            other => Err(OpError::Setting(format!(
                "post_transform is {other:?}; NONE, SOFTMAX, LOGISTIC and SOFTMAX_ZERO are supported (PROBIT has no \
                 definition to compute by: ONNX names it, and runtimes approximate it)"
            ))),
        }
    }

    /// The attribute `post_transform`, as TreeEnsemble's number.
    pub fn numbered(node: &Node) -> Result<Self, OpError> {
        let names = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"];
        let number = attributes::int_or(node, "post_transform", 0)?;
        let name = usize::try_from(number).ok().and_then(|n| names.get(n));
        Self::named(name.ok_or_else(|| {
            OpError::Setting(format!("post_transform is {number}, ONNX defines 0 to {}", names.len() - 1))
        })?)
    }

    /// A row's scores as they are written. One score stands for two classes where `first` says what the other gets.
    pub fn write<N: Number>(self, scores: &mut Vec<N>, first: Option<First>) {
        if let (&[score], Some(first)) = (scores.as_slice(), first) {
            let pair = match (self, first) {
                (Self::Logistic, _) => [negated(score), score].map(logistic),
                (_, First::Rest) => [score.complement(), score],
                (_, First::Opposite) => [negated(score), score],
            };
            *scores = pair.to_vec();
            return;
        }
        match self {
            Self::Logistic => {
                for score in scores.iter_mut() {
                    *score = logistic(*score);
                }
            }
            // A single score is no distribution: it stays.
            Self::Softmax if scores.len() > 1 => N::softmax(scores, None),
            Self::SoftmaxZero if scores.len() > 1 => softmax_but_zeros(scores),
            Self::None | Self::Softmax | Self::SoftmaxZero => {}
        }
    }

    /// The most by which a written score changes where each score of its row changes by at most `change`.
    pub fn change(self, change: f64) -> f64 {
        match self {
            Self::None => change,
            // Slopes of at most 1/4, and of at most 1/4 for each of two scores that go opposite ways.
            Self::Logistic => (change / 4.0).min(1.0),
            Self::Softmax => (change / 2.0).min(1.0),
            // A score that leaves 0 gets a share.
            Self::SoftmaxZero if change > 0.0 => 1.0,
            Self::SoftmaxZero => 0.0,
        }
    }
}

fn negated<N: Number>(x: N) -> N {
    x.times(N::exact(-<N::Weight as Float>::ONE))
}

fn logistic<N: Number>(x: N) -> N {
    x.activate(Activation::Sigmoid)
}

/// Each e^(x - max) over their sum, but for scores of 0.
fn softmax_but_zeros<N: Number>(scores: &mut [N]) {
    let zero = |x: &N| x.value().wide().abs() <= ZERO;
    let mut others: Vec<N> = scores.iter().copied().filter(|s| !zero(s)).collect();
    N::softmax(&mut others, None);
    let mut others = others.into_iter();
    for score in scores.iter_mut().filter(|s| !zero(s)) {
        *score = others.next().unwrap_or(*score);
    }
}

/// The classes' names, which label a row.
#[derive(Debug)]
pub enum Labels {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

/// Which label a row gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// That of a class.
    Class(usize),
    /// The number 1 or 0, where classes are numbers; else that of the second or the first class.
    Sign(bool),
}

impl Labels {
    /// The attributes that name classes: `numbers`, or `classlabels_strings`.
    pub fn of(node: &Node, numbers: &str) -> Result<Self, OpError> {
        let texts = attributes::texts(node, "classlabels_strings")?.unwrap_or_default();
        let found = attributes::ints(node, numbers)?.unwrap_or_default();
        match (texts.is_empty(), found.is_empty()) {
            (false, true) => Ok(Self::Texts(texts)),
            (true, false) => Ok(Self::Numbers(found)),
            (all, _) => Err(OpError::Setting(format!(
                "{} of {numbers} and classlabels_strings {}; one of them names the classes",
                if all { "neither" } else { "each" },
                if all { "is given" } else { "names classes" },
            ))),
        }
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(n) => n.len(),
            Self::Texts(t) => t.len(),
        }
    }

    /// The labels of all rows.
    pub fn tensor(&self, chosen: &[Label]) -> Result<Tensor, OpError> {
        let missing =
            |i: usize| OpError::Setting(format!("class {i} has no label, {} are named", self.len()));
        match self {
            Self::Numbers(numbers) => {
                let found = chosen.iter().map(|&label| match label {
                    Label::Class(i) => numbers.get(i).copied().ok_or_else(|| missing(i)),
                    Label::Sign(positive) => Ok(i64::from(positive)),
                });
                Ok(Tensor::vector(found.collect::<Result<Vec<i64>, _>>()?))
            }
            Self::Texts(texts) => {
                let found = chosen.iter().map(|&label| {
                    let i = match label {
                        Label::Class(i) => i,
                        Label::Sign(positive) => usize::from(positive),
                    };
                    texts.get(i).cloned().ok_or_else(|| missing(i))
                });
                Ok(Tensor::from_strings(&[chosen.len()], found.collect::<Result<_, _>>()?)?)
            }
        }
    }
}

/// The first place of the largest score.
pub fn largest<N: Number>(scores: impl IntoIterator<Item = N>) -> Option<usize> {
    let mut best: Option<(usize, N::Weight)> = None;
    for (i, score) in scores.into_iter().enumerate() {
        let score = score.value();
        if best.is_none_or(|(_, b)| score > b) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_scores_as_a_table() {
        use First::{Opposite, Rest};
        type Case = (Transform, &'static [f64], Option<First>, &'static [f64]);
        let cases: [Case; 10] = [
            (Transform::None, &[0.25], Some(Rest), &[0.75, 0.25]),
            (Transform::None, &[0.25], Some(Opposite), &[-0.25, 0.25]),
            (Transform::None, &[0.25], None, &[0.25]),
            (Transform::Softmax, &[0.25], None, &[0.25]),
            (Transform::Softmax, &[0.25], Some(Rest), &[0.75, 0.25]),
            (Transform::Logistic, &[0.0], Some(Rest), &[0.5, 0.5]),
            (Transform::Logistic, &[1.0, 0.0], None, &[0.731_058_578_630_004_9, 0.5]),
            (Transform::Softmax, &[2.0, 2.0], None, &[0.5, 0.5]),
            (Transform::SoftmaxZero, &[0.0, 2.0, 2.0], None, &[0.0, 0.5, 0.5]),
            (Transform::SoftmaxZero, &[0.0, 0.0], None, &[0.0, 0.0]),
        ];
        for (transform, scores, first, expected) in cases {
            let mut found = scores.to_vec();
            transform.write(&mut found, first);
            let close = found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15);
            assert!(close, "{transform:?} {scores:?}: {found:?}");
        }
    }

    #[test]
    fn no_step_is_larger_than_told() {
        let row = |transform: Transform, x: [f64; 3]| {
            let mut y = x.to_vec();
            transform.write(&mut y, None);
            y
        };
        for transform in [Transform::None, Transform::Softmax, Transform::Logistic, Transform::SoftmaxZero] {
            for step in [1e-3, 0.5, 40.0] {
                let before = row(transform, [0.0, -0.5, 0.3]);
                let after = row(transform, [step, -0.5 - step, 0.3 + step]);
                let most = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(most <= transform.change(step) + 1e-15, "{transform:?} {step}: {most}");
            }
        }
    }
}

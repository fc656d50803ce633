//! TreeEnsembleRegressor, TreeEnsembleClassifier and TreeEnsemble: each row goes down every tree, and the leaves that it
//! reaches vote.
//!
//! Which way a row goes at a split is a decision, which belongs to the declared precision: where splits are stored in f32,
//! a float64 evaluation rounds the feature to f32 before it compares, as the run that it shadows has it. The votes are added
//! up in the precision of the evaluation. Where features are off by some rounding, every leaf that they may lead to counts:
//! a split near by allows the whole step between its leaves, and one further away nothing at all.

use std::ops::Range;

use isotrace_graph::Node;
use isotrace_tensor::{DType, Tensor, element_count};

use super::scores::{First, Label, Labels, Transform, largest};
use super::tree_parse as parse;
use super::{answer, sizes};
use crate::budget::{self, Budget, Unit};
use crate::spread::{self, Number, Spread};
use crate::{Call, Decision, Float, OpError, Operator, Precision, attributes, flow, moves};

/// What a split asks of its feature.
#[derive(Debug, Clone)]
pub(super) enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Equal(f64),
    Other(f64),
    /// One of these members of [`Forest::members`].
    Member(Range<usize>),
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Split(usize),
    Leaf(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Split {
    pub feature: usize,
    pub test: Test,
    pub yes: Next,
    pub no: Next,
    /// Whether NaN goes the way of yes.
    pub missing: bool,
}

/// How the votes of all trees for one target become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// Trees: no split is reached in two ways.
#[derive(Debug)]
pub(super) struct Forest {
    pub splits: Vec<Split>,
    /// Which of the votes each leaf has.
    pub leaves: Vec<Range<usize>>,
    /// A target and what it gets.
    pub votes: Vec<(usize, f64)>,
    pub members: Vec<f64>,
    pub roots: Vec<Next>,
    pub targets: usize,
    /// One more than the last feature that is asked for.
    pub features: usize,
    /// Whether splits and votes are stored in f64.
    pub wide: bool,
}

impl Forest {
    fn asks(&self, split: &Split, x: f64) -> bool {
        let yes = match split.test {
            Test::AtMost(t) => x <= t,
            Test::Below(t) => x < t,
            Test::AtLeast(t) => x >= t,
            Test::Above(t) => x > t,
            Test::Equal(t) => x == t,
            Test::Other(t) => x != t,
            Test::Member(ref members) => self.members[members.clone()].contains(&x),
        };
        yes || split.missing && x.is_nan()
    }

    /// Whether a feature that is off by up to `error` may be answered otherwise.
    fn doubtful(&self, split: &Split, x: f64, error: f64) -> bool {
        let near = |t: f64| error > 0.0 && (x - t).abs() <= error;
        match split.test {
            Test::AtMost(t)
            | Test::Below(t)
            | Test::AtLeast(t)
            | Test::Above(t)
            | Test::Equal(t)
            | Test::Other(t) => near(t),
            Test::Member(ref members) => self.members[members.clone()].iter().any(|&t| near(t)),
        }
    }

    /// The votes of the leaf that a row reaches from `at`.
    fn votes(&self, mut at: Next, row: &[f64]) -> &[(usize, f64)] {
        loop {
            match at {
                Next::Leaf(leaf) => return &self.votes[self.leaves[leaf].clone()],
                Next::Split(split) => {
                    let split = &self.splits[split];
                    at = if self.asks(split, row[split.feature]) { split.yes } else { split.no };
                }
            }
        }
    }

    /// What each target gets; nothing for those that no leaf voted for.
    fn scores<N: Number>(&self, row: &[f64], aggregate: Aggregate) -> Vec<Option<N>> {
        let mut scores: Vec<Option<N>> = vec![None; self.targets];
        for &root in &self.roots {
            for &(target, vote) in self.votes(root, row) {
                let vote = number::<N>(vote);
                scores[target] = Some(match scores[target] {
                    None => vote,
                    Some(score) => {
                        let smaller = vote.value() < score.value();
                        match aggregate {
                            Aggregate::Sum | Aggregate::Average => score.plus(vote),
                            Aggregate::Min => {
                                if smaller {
                                    vote
                                } else {
                                    score
                                }
                            }
                            Aggregate::Max => {
                                if smaller {
                                    score
                                } else {
                                    vote
                                }
                            }
                        }
                    }
                });
            }
        }
        if aggregate == Aggregate::Average {
            let trees = number::<N>(self.roots.len() as f64);
            for score in scores.iter_mut().flatten() {
                *score = score.over(trees);
            }
        }
        scores
    }

    /// The most by which what each target gets may change where features are off by up to `errors`.
    fn steps(&self, row: &[f64], errors: &[f64], aggregate: Aggregate) -> Vec<f64> {
        let mut total = vec![0f64; self.targets];
        if errors.iter().all(|&e| e <= 0.0) {
            return total;
        }
        let of_leaf = |votes: &[(usize, f64)]| {
            let mut dense = vec![0f64; self.targets];
            for &(target, vote) in votes {
                dense[target] += vote;
            }
            dense
        };
        for &root in &self.roots {
            let mut reached = Vec::new();
            let mut open = vec![root];
            while let Some(at) = open.pop() {
                match at {
                    Next::Leaf(leaf) => reached.push(leaf),
                    Next::Split(split) => {
                        let split = &self.splits[split];
                        let x = row[split.feature];
                        if self.doubtful(split, x, errors[split.feature]) {
                            open.extend([split.yes, split.no]);
                        } else {
                            open.push(if self.asks(split, x) { split.yes } else { split.no });
                        }
                    }
                }
            }
            if reached.len() < 2 {
                continue;
            }
            let own = of_leaf(self.votes(root, row));
            let mut step = vec![0f64; self.targets];
            for leaf in reached {
                let other = of_leaf(&self.votes[self.leaves[leaf].clone()]);
                for ((step, a), b) in step.iter_mut().zip(&own).zip(other) {
                    *step = step.max((a - b).abs());
                }
            }
            for (total, step) in total.iter_mut().zip(step) {
                *total = match aggregate {
                    Aggregate::Sum => *total + step,
                    Aggregate::Average => *total + step / self.roots.len() as f64,
                    Aggregate::Min | Aggregate::Max => total.max(step),
                };
            }
        }
        total
    }
}

fn number<N: Number>(x: f64) -> N {
    N::exact(<N::Weight as Float>::of(x))
}

/// What stands beside the trees.
#[derive(Debug)]
enum Kind {
    /// Targets, each with a number added at the end.
    Targets,
    Classes {
        labels: Labels,
        /// Whether all votes are for one of two classes.
        shared: bool,
        /// Whether no vote is negative.
        positive: bool,
    },
}

#[derive(Debug)]
struct Ensemble {
    forest: Forest,
    aggregate: Aggregate,
    base: Vec<f64>,
    transform: Transform,
    kind: Kind,
    /// Whether the answer has the type of X, and not f32.
    keeps_type: bool,
}

/// Parses a node of TreeEnsembleRegressor.
pub fn regressor(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let aggregate = match attributes::text_or(node, "aggregate_function", "SUM")?.as_str() {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => {
            let known = "ONNX defines SUM, AVERAGE, MIN and MAX";
            return Err(OpError::Setting(format!("aggregate_function is {other:?}, {known}")));
        }
    };
    let targets = parse::targets(node)?;
    let base = parse::numbers(node, "base_values")?.0;
    if !base.is_empty() && base.len() != targets {
        let found = base.len();
        return Err(OpError::Setting(format!("base_values holds {found} numbers for {targets} targets")));
    }
    Ok(Box::new(Ensemble {
        forest: parse::by_ids(node, "target", targets)?,
        aggregate,
        base,
        transform: Transform::of(node)?,
        kind: Kind::Targets,
        keeps_type: false,
    }))
}

/// Parses a node of TreeEnsembleClassifier.
pub fn classifier(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let labels = Labels::of(node, "classlabels_int64s")?;
    let classes = labels.len();
    let forest = parse::by_ids(node, "class", classes)?;
    let base = parse::numbers(node, "base_values")?.0;
    if !base.is_empty() && base.len() != classes && (base.len(), classes) != (1, 2) {
        let found = base.len();
        return Err(OpError::Setting(format!("base_values holds {found} numbers for {classes} classes")));
    }
    let one = forest.votes.first().map(|v| v.0);
    let shared = classes == 2 && forest.votes.iter().all(|v| Some(v.0) == one);
    let positive = forest.votes.iter().all(|v| v.1 >= 0.0);
    Ok(Box::new(Ensemble {
        forest,
        aggregate: Aggregate::Sum,
        base,
        transform: Transform::of(node)?,
        kind: Kind::Classes { labels, shared, positive },
        keeps_type: false,
    }))
}

/// Parses a node of TreeEnsemble.
pub fn ensemble(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let aggregate = match attributes::int_or(node, "aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => {
            return Err(OpError::Setting(format!("aggregate_function is {other}, ONNX defines 0 to 3")));
        }
    };
    Ok(Box::new(Ensemble {
        forest: parse::by_places(node)?,
        aggregate,
        base: Vec::new(),
        transform: Transform::numbered(node)?,
        kind: Kind::Targets,
        keeps_type: true,
    }))
}

/// A row's two scores become one where nobody voted for the second class.
fn pair<N: Number>(
    scores: &[Option<N>],
    base: &[f64],
    shared: bool,
    positive: bool,
) -> (Vec<N>, Option<First>, Label) {
    let zero = || number::<N>(0.0);
    let (mut low, mut high) = (scores[0], scores[1]);
    let mut first = None;
    let mut single = false;
    match *base {
        [_, of_high] if high.is_some() => {
            let score = low.unwrap_or_else(zero).plus(number(of_high));
            high = Some(score);
            low = low.map(|_| score.times(number(-1.0)));
        }
        [of_low, _] => low = low.map(|s| s.plus(number(of_low))),
        [of_both] => {
            low = low.map(|s| s.plus(number(of_both)));
            single = high.is_none();
        }
        _ => {
            first = Some(First::Opposite);
            single = high.is_none();
        }
    }
    let score = high.or(low).map_or(0.0, |s| s.value().wide());
    let label = if shared {
        first = Some(if positive { First::Rest } else { First::Opposite });
        Label::Class(usize::from(score > if positive { 0.5 } else { 0.0 }))
    } else {
        Label::Sign(score > 0.0)
    };
    let mut scores = vec![low.unwrap_or_else(zero)];
    if !single || first.is_none() {
        scores.push(high.unwrap_or_else(zero));
    }
    (scores, first, label)
}

impl Ensemble {
    /// How many numbers are written for a row.
    fn width(&self) -> usize {
        self.forest.targets
    }

    /// The rows of X as they are compared.
    fn rows(&self, call: &Call<'_>) -> Result<(Vec<f64>, usize, usize), OpError> {
        let x = call.need(0, "X")?;
        let (count, width) = sizes(x)?;
        if width < self.forest.features {
            let asked = self.forest.features;
            return Err(OpError::Input(format!("X has {width} features, the trees ask for {asked}")));
        }
        let numbers = super::numbers::<f64>(x)?;
        let mut rows = numbers.as_slice::<f64>()?.to_vec();
        if call.precision == Precision::Float64 && x.dtype().is_float() && !self.forest.wide {
            for x in &mut rows {
                *x = f64::from(*x as f32);
            }
        }
        Ok((rows, count, width))
    }

    /// Scores as they are written, and each row's label.
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<(Vec<N>, Vec<Label>), OpError> {
        let (rows, count, width) = self.rows(call)?;
        let mut written: Vec<N> = moves::room(&[count, self.width()])?;
        let mut labels = Vec::new();
        for i in 0..count {
            let mut scores = self.forest.scores::<N>(&rows[i * width..(i + 1) * width], self.aggregate);
            let (mut row, first) = match &self.kind {
                Kind::Classes { shared, positive, .. } if scores.len() == 2 => {
                    let (row, first, label) = pair(&scores, &self.base, *shared, *positive);
                    labels.push(label);
                    (row, first)
                }
                kind => {
                    for (score, &base) in scores.iter_mut().zip(&self.base) {
                        *score = Some(score.map_or(number(base), |s| s.plus(number(base))));
                    }
                    let voted = scores.iter().enumerate().filter_map(|(i, s)| s.map(|s| (i, s)));
                    if let Kind::Classes { .. } = kind {
                        let voted: Vec<(usize, N)> = voted.collect();
                        labels.push(match (largest(voted.iter().map(|v| v.1)), &*scores) {
                            (_, [only]) => Label::Sign(only.is_some_and(|s| s.value() > N::Weight::ZERO)),
                            (Some(best), _) => Label::Class(voted[best].0),
                            (None, _) => Label::Class(0),
                        });
                    }
                    (scores.into_iter().map(|s| s.unwrap_or_else(|| number(0.0))).collect(), None)
                }
            };
            // One target is handed on as it is.
            if self.width() > 1 {
                self.transform.write(&mut row, first);
            }
            written.extend(row);
        }
        Ok((written, labels))
    }

    fn outputs<T: Float + Number<Weight = T>>(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (scores, chosen) = self.compute::<T>(call)?;
        let x = call.need(0, "X")?;
        let (count, _) = sizes(x)?;
        let dtype = match (self.keeps_type, x.dtype()) {
            (true, found @ (DType::F32 | DType::F64)) => found,
            _ => answer(call.precision),
        };
        let scores = Tensor::from_vec(&[count, self.width()], scores)?.cast(dtype)?;
        Ok(match &self.kind {
            Kind::Classes { labels, .. } => vec![labels.tensor(&chosen)?, scores],
            Kind::Targets => vec![scores],
        })
    }

    /// The output that holds scores.
    fn scored(&self) -> usize {
        usize::from(matches!(self.kind, Kind::Classes { .. }))
    }
}

impl Operator for Ensemble {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        if call.precision == Precision::Float64 || self.forest.wide {
            self.outputs::<f64>(call)
        } else {
            self.outputs::<f32>(call)
        }
    }

    fn decision(&self) -> Decision {
        Decision::Inside
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if index != self.scored() {
            return Ok(budget::exact(output.len()));
        }
        Ok(spread::budget(&self.compute::<Spread>(call)?.0, unit))
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut changes = flow::none(outputs)?;
        let (Some(Some(errors)), Some(place)) = (errors.first(), changes.get_mut(self.scored())) else {
            return Ok(changes);
        };
        let (rows, count, width) = self.rows(call)?;
        let errors = errors.to_f64()?;
        let mut out = Vec::with_capacity(element_count(&[count, self.width()])?);
        for i in 0..count {
            let row = i * width..(i + 1) * width;
            let mut steps = self.forest.steps(&rows[row.clone()], &errors[row], self.aggregate);
            let most = steps.iter().copied().fold(0.0, f64::max);
            if self.transform != Transform::None && self.width() > 1 {
                steps.fill(self.transform.change(most));
            } else if let Kind::Classes { .. } = self.kind {
                // Classes may share one score.
                steps.fill(most);
            }
            out.extend(steps);
        }
        *place = Tensor::from_vec(place.shape(), out)?;
        Ok(changes)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

//! SVMRegressor and SVMClassifier: sums of a kernel between each row and each support vector.
//!
//! A classifier holds each class against each other. A pair's score is the sum of both classes' kernels, each times its
//! coefficient for that pair, plus the pair's offset (Chang and Lin 2011, LIBSVM); the class that wins most pairs is the
//! label. With `prob_a` and `prob_b` a pair's score becomes a probability by a logistic function (Platt 1999), and those of
//! all pairs become one for each class by the iteration of Wu, Lin and Weng 2004. Without support vectors there is a product
//! for each class.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use super::scores::{First, Label, Labels, Transform, largest};
use super::{Rows, answer, computing};
use crate::activation::Activation;
use crate::budget::{Budget, Unit};
use crate::spread::{self, Number, Spread};
use crate::{Call, Decision, Float, OpError, Operator, attributes, budget};

/// The largest degree of a polynomial kernel.
const MOST: f32 = 64.0;

/// Rounds of the iteration that makes probabilities of classes.
const ROUNDS: usize = 100;

/// A pair's probability stays this far from 0 and 1.
const MARGIN: f64 = 1e-7;

#[derive(Debug, Clone, Copy)]
enum Shape {
    Linear,
    Polynomial(usize),
    Radial,
    Sigmoid,
}

#[derive(Debug)]
struct Kernel {
    shape: Shape,
    gamma: f32,
    offset: f32,
}

impl Kernel {
    fn of(node: &Node) -> Result<Self, OpError> {
        let parameters = attributes::floats(node, "kernel_params")?.unwrap_or_default();
        let at = |i: usize| parameters.get(i).copied().unwrap_or(0.0);
        let shape = match attributes::text_or(node, "kernel_type", "LINEAR")?.as_str() {
            "LINEAR" => Shape::Linear,
            "POLY" if at(2).fract() == 0.0 && (0.0..=MOST).contains(&at(2)) => {
                Shape::Polynomial(at(2) as usize)
            }
            "POLY" => {
                let found = at(2);
                return Err(OpError::Setting(format!(
                    "the polynomial's degree is {found}, whole numbers from 0 to {MOST} are supported"
                )));
            }
            "RBF" => Shape::Radial,
            "SIGMOID" => Shape::Sigmoid,
            other => {
                return Err(OpError::Setting(format!(
                    "kernel_type is {other:?}, ONNX defines LINEAR, POLY, RBF and SIGMOID"
                )));
            }
        };
        Ok(Self { shape, gamma: at(0), offset: at(1) })
    }

    /// The kernel between each row and each vector, row by row.
    fn apply<N: Number>(&self, rows: &Rows<N::Weight>, vectors: &[f32]) -> Vec<N> {
        let vectors: Vec<N::Weight> = vectors.iter().map(|&v| float::<N>(v)).collect();
        let (exact, width) = (rows.exact::<N>(), rows.width.max(1));
        let gamma = N::exact(float::<N>(self.gamma));
        if let Shape::Radial = self.shape {
            let minus = N::exact(-<N::Weight as Float>::ONE);
            let mut out = Vec::with_capacity(rows.count * (vectors.len() / width));
            for row in exact.chunks(width) {
                for vector in vectors.chunks(width) {
                    let far = row.iter().zip(vector).fold(zero::<N>(), |sum, (x, &v)| {
                        let apart = x.plus(N::exact(-v));
                        sum.plus(apart.times(apart))
                    });
                    out.push(gamma.times(far).times(minus).exponential());
                }
            }
            return out;
        }
        let mut out = Vec::new();
        N::product(&exact, &vectors, (rows.count, rows.width, vectors.len() / width), &mut out);
        for x in &mut out {
            let inner = |x: N| gamma.times(x).plus(N::exact(float::<N>(self.offset)));
            *x = match self.shape {
                Shape::Linear | Shape::Radial => *x,
                Shape::Sigmoid => inner(*x).activate(Activation::Tanh),
                Shape::Polynomial(degree) => {
                    let base = inner(*x);
                    (1..degree)
                        .fold(if degree == 0 { one::<N>() } else { base }, |power, _| power.times(base))
                }
            };
        }
        out
    }
}

fn float<N: Number>(x: f32) -> N::Weight {
    <N::Weight as Float>::of(x.into())
}

fn zero<N: Number>() -> N {
    N::exact(<N::Weight as Float>::ZERO)
}

fn one<N: Number>() -> N {
    N::exact(<N::Weight as Float>::ONE)
}

/// The sum of products of numbers with coefficients.
fn weighed<'n, N: Number + 'n>(start: N, terms: impl Iterator<Item = (&'n N, &'n f32)>) -> N {
    terms.fold(start, |sum, (&x, &c)| sum.plus(x.times(N::exact(float::<N>(c)))))
}

/// Support vectors of as many features as a row has.
fn check(vectors: &[f32], count: usize, width: usize) -> Result<(), OpError> {
    if count.checked_mul(width) == Some(vectors.len()) {
        return Ok(());
    }
    let found = vectors.len();
    Err(OpError::Input(format!("X has {width} features, and {count} vectors hold {found} numbers")))
}

#[derive(Debug)]
struct Regressor {
    kernel: Kernel,
    vectors: Vec<f32>,
    coefficients: Vec<f32>,
    rho: f32,
    supported: bool,
    /// Whether the answer is 1 or -1, inside or outside of one class.
    one_class: bool,
}

/// Parses a node of SVMRegressor.
pub fn regressor(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let supports = attributes::int_or(node, "n_supports", 0)?;
    let list = |name| Ok::<_, OpError>(attributes::floats(node, name)?.unwrap_or_default());
    let (kernel, coefficients, rho) = (Kernel::of(node)?, list("coefficients")?, list("rho")?);
    let &[rho] = rho.as_slice() else {
        return Err(OpError::Setting(format!("rho holds {} numbers, 1 is expected", rho.len())));
    };
    if Transform::of(node)? != Transform::None {
        return Err(OpError::Setting("post_transform of SVMRegressor is not supported".into()));
    }
    let supported = supports > 0;
    if supported && usize::try_from(supports).ok() != Some(coefficients.len()) {
        let found = coefficients.len();
        return Err(OpError::Setting(format!(
            "n_supports is {supports}, and there are {found} coefficients"
        )));
    }
    Ok(Box::new(Regressor {
        kernel: if supported { kernel } else { Kernel { shape: Shape::Linear, ..kernel } },
        vectors: list("support_vectors")?,
        coefficients,
        rho,
        supported,
        one_class: attributes::flag(node, "one_class", false)?,
    }))
}

impl Regressor {
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<Vec<N>, OpError> {
        let rows = Rows::<N::Weight>::of(call)?;
        let rho = N::exact(float::<N>(self.rho));
        if !self.supported {
            check(&self.coefficients, 1, rows.width)?;
            let products = self.kernel.apply::<N>(&rows, &self.coefficients);
            return Ok(products.into_iter().map(|x| x.plus(rho)).collect());
        }
        let count = self.coefficients.len();
        check(&self.vectors, count, rows.width)?;
        let kernels = self.kernel.apply::<N>(&rows, &self.vectors);
        let sums = kernels.chunks(count);
        Ok(sums.map(|row| weighed(zero(), row.iter().zip(&self.coefficients)).plus(rho)).collect())
    }
}

impl Operator for Regressor {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        computing!(call, T => {
            let mut y = self.compute::<T>(call)?;
            if self.one_class {
                for y in &mut y {
                    *y = if *y > 0.0 { 1.0 } else { -1.0 };
                }
            }
            Ok(vec![Tensor::from_vec(&[y.len(), 1], y)?])
        })
    }

    fn decision(&self) -> Decision {
        if self.one_class { Decision::Outputs } else { Decision::None }
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if self.one_class {
            return Ok(budget::exact(output.len()));
        }
        Ok(spread::budget(&self.compute::<Spread>(call)?, unit))
    }
}

#[derive(Debug)]
struct Classifier {
    kernel: Kernel,
    vectors: Vec<f32>,
    /// How many support vectors each class has; none where there is a product for each class.
    per_class: Vec<usize>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Both numbers of each pair's logistic function.
    probabilities: Option<Vec<(f32, f32)>>,
    transform: Transform,
    labels: Labels,
}

/// Parses a node of SVMClassifier.
pub fn classifier(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let list = |name| Ok::<_, OpError>(attributes::floats(node, name)?.unwrap_or_default());
    let labels = Labels::of(node, "classlabels_ints")?;
    let (coefficients, rho, vectors) = (list("coefficients")?, list("rho")?, list("support_vectors")?);
    let (a, b) = (list("prob_a")?, list("prob_b")?);
    let per_class = attributes::ints(node, "vectors_per_class")?.unwrap_or_default();
    let per_class = crate::arguments::sizes(&per_class, "vectors_per_class")?;
    let supports = per_class.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    let classes = labels.len();
    let pairs = classes * (classes - 1) / 2;
    let fits = if supports == Some(0) {
        rho.len() == 1
    } else {
        per_class.len() == classes
            && supports.and_then(|n| n.checked_mul(classes - 1)) == Some(coefficients.len())
            && rho.len() == pairs
    };
    if !fits || a.len() != b.len() || !(a.is_empty() || a.len() == pairs) {
        return Err(OpError::Setting(format!(
            "{classes} classes with {per_class:?} support vectors do not fit {} coefficients, {} numbers of rho, {} of \
             prob_a and {} of prob_b",
            coefficients.len(),
            rho.len(),
            a.len(),
            b.len()
        )));
    }
    let kernel = Kernel::of(node)?;
    let supported = supports != Some(0);
    Ok(Box::new(Classifier {
        kernel: if supported { kernel } else { Kernel { shape: Shape::Linear, ..kernel } },
        vectors,
        per_class: if supported { per_class } else { Vec::new() },
        coefficients,
        rho,
        probabilities: (supported && !a.is_empty()).then(|| a.into_iter().zip(b).collect()),
        transform: Transform::of(node)?,
        labels,
    }))
}

impl Classifier {
    /// Scores as they are written, how many in a row, and each row's label.
    fn compute<N: Number>(&self, call: &Call<'_>) -> Result<(Vec<N>, usize, Vec<Label>), OpError> {
        let rows = Rows::<N::Weight>::of(call)?;
        let classes = self.labels.len();
        if self.per_class.is_empty() {
            check(&self.coefficients, classes, rows.width)?;
            return Ok(self.products(&self.kernel.apply::<N>(&rows, &self.coefficients), classes));
        }
        let supports: usize = self.per_class.iter().sum();
        check(&self.vectors, supports, rows.width)?;
        let kernels = self.kernel.apply::<N>(&rows, &self.vectors);
        let (mut written, mut chosen) = (Vec::new(), Vec::with_capacity(rows.count));
        for kernels in kernels.chunks(supports) {
            let pairs = self.pairs(kernels, classes);
            let mut votes = vec![0usize; classes];
            let between = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j)));
            for ((i, j), score) in between.zip(&pairs) {
                votes[if score.value() > N::Weight::ZERO { i } else { j }] += 1;
            }
            let most = votes.iter().max().copied();
            chosen.push(Label::Class(votes.iter().position(|&v| Some(v) == most).unwrap_or(0)));
            let mut scores = match &self.probabilities {
                Some(of_pairs) => coupled(&pairs, of_pairs, classes),
                None => pairs,
            };
            let first = match self.transform {
                _ if scores.len() > 1 => None,
                Transform::None => Some(First::Opposite),
                _ => Some(First::Rest),
            };
            self.transform.write(&mut scores, first);
            written.extend(scores);
        }
        let width = if self.probabilities.is_some() || classes == 2 { classes } else { self.rho.len() };
        Ok((written, width, chosen))
    }

    /// A score for each class, of its own product.
    fn products<N: Number>(&self, products: &[N], classes: usize) -> (Vec<N>, usize, Vec<Label>) {
        let rho = N::exact(float::<N>(self.rho[0]));
        let positive = self.coefficients.iter().all(|&c| c >= 0.0);
        let threshold = <N::Weight as Float>::of(if positive { 0.5 } else { 0.0 });
        let (mut written, mut chosen) = (Vec::new(), Vec::new());
        for row in products.chunks(classes) {
            let mut row: Vec<N> = row.iter().map(|x| x.plus(rho)).collect();
            let best = largest(row.iter().copied()).unwrap_or(0);
            let score = row[best].value();
            // Of two classes, the second where the larger score says yes at all.
            let yes = score > threshold || positive && score >= threshold;
            chosen.push(Label::Class(if classes == 2 && yes { 1 } else { best }));
            self.transform.write(&mut row, None);
            written.extend(row);
        }
        (written, classes, chosen)
    }

    /// The score of each pair of classes.
    fn pairs<N: Number>(&self, kernels: &[N], classes: usize) -> Vec<N> {
        let supports = kernels.len();
        let start = |class: usize| self.per_class[..class].iter().sum::<usize>();
        // Rows of coefficients are the other classes, without the vector's own.
        let against = |class: usize, row: usize| {
            let (from, count) = (start(class), self.per_class[class]);
            let coefficients = &self.coefficients[row * supports + from..][..count];
            kernels[from..from + count].iter().zip(coefficients)
        };
        let mut rho = self.rho.iter();
        let mut scores = Vec::with_capacity(self.rho.len());
        for i in 0..classes {
            for j in i + 1..classes {
                let sum = weighed(weighed(zero(), against(i, j - 1)), against(j, i));
                scores.push(sum.plus(N::exact(float::<N>(rho.next().copied().unwrap_or(0.0)))));
            }
        }
        scores
    }
}

/// Probabilities of classes from the scores of pairs.
///
/// They minimise the sum over pairs of (r_ji p_i - r_ij p_j)^2; the iteration stops where no condition of the minimum is
/// missed by more than 0.005 over the number of classes. How often it goes round is a decision of the numbers.
fn coupled<N: Number>(scores: &[N], of_pairs: &[(f32, f32)], classes: usize) -> Vec<N> {
    let k = classes;
    let mut r = vec![zero::<N>(); k * k];
    let mut at = 0;
    for i in 0..k {
        for j in i + 1..k {
            let (a, b) = of_pairs[at];
            let z = scores[at].times(N::exact(float::<N>(a))).plus(N::exact(float::<N>(b)));
            let p = z.activate(Activation::Sigmoid).complement();
            let p = p.activate(Activation::Clip(MARGIN, 1.0 - MARGIN));
            (r[i * k + j], r[j * k + i]) = (p, p.complement());
            at += 1;
        }
    }
    let minus = N::exact(-<N::Weight as Float>::ONE);
    let negated = |x: N| x.times(minus);
    let mut q = vec![zero::<N>(); k * k];
    for i in 0..k {
        for j in (0..k).filter(|&j| j != i) {
            let (own, other) = (r[j * k + i], r[i * k + j]);
            q[i * k + i] = q[i * k + i].plus(own.times(own));
            q[i * k + j] = negated(own.times(other));
        }
    }
    let of = |x: f64| <N::Weight as Float>::of(x);
    let mut p = vec![N::exact(of(1.0 / k as f64)); k];
    for _ in 0..ROUNDS {
        let mut qp: Vec<N> =
            (0..k).map(|i| (0..k).fold(zero(), |sum: N, j| sum.plus(q[i * k + j].times(p[j])))).collect();
        let mut pqp = p.iter().zip(&qp).fold(zero(), |sum: N, (p, q)| sum.plus(p.times(*q)));
        let missed = qp.iter().map(|q| (q.value() - pqp.value()).abs());
        if missed.fold(<N::Weight as Float>::ZERO, |a, b| if b > a { b } else { a }) < of(0.005 / k as f64) {
            break;
        }
        for i in 0..k {
            let own = q[i * k + i];
            let step = pqp.plus(negated(qp[i])).over(own);
            p[i] = p[i].plus(step);
            let grown = one::<N>().plus(step);
            let more = step.times(own).plus(qp[i]).plus(qp[i]);
            pqp = pqp.plus(step.times(more)).over(grown).over(grown);
            for j in 0..k {
                qp[j] = qp[j].plus(step.times(q[i * k + j])).over(grown);
                p[j] = p[j].over(grown);
            }
        }
    }
    p
}

impl Operator for Classifier {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        computing!(call, T => {
            let (scores, width, chosen) = self.compute::<T>(call)?;
            let scores = Tensor::from_vec(&[chosen.len(), width], scores)?.cast(answer(call.precision))?;
            Ok(vec![self.labels.tensor(&chosen)?, scores])
        })
    }

    fn budget(&self, call: &Call<'_>, index: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        if index == 0 {
            return Ok(budget::exact(output.len()));
        }
        Ok(spread::budget(&self.compute::<Spread>(call)?.0, unit))
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::super::testing::{close, floats, ints, node, noise, share, text};
    use crate::testing::{first, run, tensor};

    type Settings = Vec<(&'static str, Attribute)>;

    fn three(kernel: &str) -> Settings {
        vec![
            ("coefficients", floats(&[1.0, -0.5, 0.25, 0.75, -1.0, 0.5, -0.25, 2.0])),
            ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.5, 0.25, 0.25])),
            ("vectors_per_class", ints(&[1, 2, 1])),
            ("rho", floats(&[0.1, -0.2, 0.3])),
            ("classlabels_ints", ints(&[7, 8, 9])),
            ("kernel_params", floats(&[0.5, 0.25, 3.0])),
            ("kernel_type", text(kernel)),
        ]
    }

    fn two(transform: &str) -> Settings {
        vec![
            ("coefficients", floats(&[1.0, -0.5, 0.25])),
            ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.5])),
            ("vectors_per_class", ints(&[1, 2])),
            ("rho", floats(&[0.1])),
            ("classlabels_ints", ints(&[7, 8])),
            ("kernel_params", floats(&[0.5, 0.25, 3.0])),
            ("kernel_type", text("RBF")),
            ("post_transform", text(transform)),
        ]
    }

    /// Without support vectors.
    fn products(coefficients: &[f32], labels: &[i64], transform: &str) -> Settings {
        vec![
            ("coefficients", floats(coefficients)),
            ("rho", floats(&[0.1])),
            ("classlabels_ints", ints(labels)),
            ("post_transform", text(transform)),
        ]
    }

    fn and(mut settings: Settings, more: Settings) -> Settings {
        settings.extend(more);
        settings
    }

    /// What ONNX Runtime 1.31 answers.
    #[test]
    fn classes_as_a_table() {
        let probabilities = |a: &[f32], b: &[f32]| vec![("prob_a", floats(a)), ("prob_b", floats(b))];
        let x = tensor(&[2, 2], &[0.5f32, -0.25, -1.0, 0.75]);
        let cases: [(Settings, [i64; 2], &[f64]); 12] = [
            (three("LINEAR"), [7, 8], &[0.568_75, -0.653_125, 0.456_25, -0.931_25, 0.753_125, 0.206_25]),
            (
                three("POLY"),
                [7, 7],
                &[0.223_962_4, -0.308_314_5, 0.345_532_24, 0.168_298_33, -0.176_524_36, 0.237_011_73],
            ),
            (
                three("RBF"),
                [7, 7],
                &[0.814_592_2, -0.413_836_3, 2.151_443_7, 0.150_529_92, 0.000_870_958, 1.159_699_6],
            ),
            (
                three("SIGMOID"),
                [7, 8],
                &[0.484_336, -0.456_570_98, 0.925_904_4, -0.238_700_6, 0.206_413_39, 0.824_434_6],
            ),
            (two("NONE"), [7, 7], &[-0.814_592_2, 0.814_592_2, -0.150_529_92, 0.150_529_92]),
            (two("LOGISTIC"), [7, 7], &[0.306_912_78, 0.693_087_2, 0.462_438_4, 0.537_561_6]),
            (two("SOFTMAX"), [7, 7], &[0.185_407_82, 0.814_592_2, 0.849_470_1, 0.150_529_92]),
            (
                and(three("RBF"), probabilities(&[-1.0, -2.0, -1.5], &[0.1, 0.2, -0.1])),
                [7, 7],
                &[0.369_997_9, 0.435_411_04, 0.194_591_05, 0.350_342_27, 0.472_362_3, 0.177_295_42],
            ),
            (
                and(two("NONE"), probabilities(&[-1.0], &[0.1])),
                [7, 7],
                &[0.667_987_2, 0.332_012_8, 0.512_629_57, 0.487_370_5],
            ),
            (products(&[1.0, 0.5, 0.25, 0.5], &[7, 8], "NONE"), [7, 8], &[0.475, 0.1, -0.525, 0.225]),
            (products(&[1.0, -0.5, 0.25, 0.5], &[7, 8], "NONE"), [8, 8], &[0.725, 0.1, -1.275, 0.225]),
            (
                products(&[1.0, 0.5, 0.25, 0.5, -1.0, 1.0], &[7, 8, 9], "SOFTMAX"),
                [7, 9],
                &[0.497_032_3, 0.341_605, 0.161_362_77, 0.072_108_38, 0.152_653_44, 0.775_238_16],
            ),
        ];
        for (settings, labels, scores) in cases {
            let y = run(&node("SVMClassifier", 1, &settings), &[&x]).unwrap();
            assert_eq!(y[0].as_slice::<i64>().unwrap(), labels, "{settings:?}");
            assert!(close(&y[1], scores), "{settings:?}: {:?}", y[1]);
        }
    }

    #[test]
    fn one_number_a_row() {
        let x = tensor(&[2, 2], &[0.5f32, -0.25, -1.0, 0.75]);
        let of = |kernel: &str, more: Settings| {
            let settings = vec![
                ("coefficients", floats(&[1.0, -0.5])),
                ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0])),
                ("rho", floats(&[0.1])),
                ("n_supports", Attribute::Int(2)),
                ("kernel_params", floats(&[0.5, 0.25, 3.0])),
                ("kernel_type", text(kernel)),
            ];
            first(&node("SVMRegressor", 1, &and(settings, more)), &[&x])
        };
        let (near, far) = (0.5f64, -1.0f64);
        let linear = [near + 0.125 + 0.1, far - 0.375 + 0.1];
        assert!(close(&of("LINEAR", vec![]), &linear));
        let cubes = |a: f64, b: f64| (0.5 * a + 0.25).powi(3) - 0.5 * (0.5 * b + 0.25).powi(3) + 0.1;
        assert!(close(&of("POLY", vec![]), &[cubes(near, -0.25), cubes(far, 0.75)]));
        let radial = |a: f64, b: f64| (-0.5 * a).exp() - 0.5 * (-0.5 * b).exp() + 0.1;
        let radial = [radial(0.312_5, 1.812_5), radial(4.562_5, 1.062_5)];
        assert!(close(&of("RBF", vec![]), &radial));
        assert!(close(&of("RBF", vec![("one_class", Attribute::Int(1))]), &radial.map(f64::signum)));
        let plain = [("coefficients", floats(&[1.0, -0.5])), ("rho", floats(&[0.1]))];
        assert!(close(&first(&node("SVMRegressor", 1, &plain), &[&x]), &linear));
    }

    #[test]
    fn lists_that_do_not_fit() {
        let x = tensor(&[1, 2], &[0.5f32, -0.25]);
        let changed = |name: &'static str, value: Attribute| {
            let mut settings = three("RBF");
            settings.retain(|s| s.0 != name);
            settings.push((name, value));
            run(&node("SVMClassifier", 1, &settings), &[&x])
        };
        for (name, value) in [
            ("rho", floats(&[0.1])),
            ("coefficients", floats(&[0.1])),
            ("vectors_per_class", ints(&[1, 3])),
            ("vectors_per_class", ints(&[1, -2, 5])),
            ("support_vectors", floats(&[0.1])),
            ("prob_a", floats(&[0.1])),
            ("kernel_type", text("COSINE")),
        ] {
            assert!(changed(name, value.clone()).is_err(), "{name} {value:?}");
        }
        let half = changed("kernel_params", floats(&[1.0, 0.0, 2.5]));
        assert!(half.is_ok(), "the degree counts for polynomials alone");
    }

    #[test]
    fn rounding_stays_inside() {
        let vectors = noise(&[30, 16], 1);
        let coefficients = noise(&[30], 2);
        for kernel in ["LINEAR", "POLY", "RBF", "SIGMOID"] {
            let settings = [
                ("support_vectors", floats(vectors.as_slice().unwrap())),
                ("coefficients", floats(coefficients.as_slice().unwrap())),
                ("vectors_per_class", ints(&[14, 16])),
                ("rho", floats(&[0.1])),
                ("classlabels_ints", ints(&[0, 1])),
                ("kernel_params", floats(&[0.5, 0.25, 3.0])),
                ("kernel_type", text(kernel)),
                ("prob_a", floats(&[-1.0])),
                ("prob_b", floats(&[0.1])),
            ];
            let used = share(&node("SVMClassifier", 1, &settings), &[&noise(&[50, 16], 5)], 1);
            assert!(used > 0.0 && used < 1.0, "{kernel}: {used}");
        }
    }
}

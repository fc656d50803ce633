//! The report: what every form shows, in the order in which a reader asks.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Listing;

/// The schema that [`Report`] writes. The number changes when a reader of the old one would misread the new one;
/// fields may be added under the same number.
pub const SCHEMA: &str = "isotrace.report/1";

fn schema() -> String {
    SCHEMA.to_owned()
}

/// Everything a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The answer.
    pub verdict: Verdict,
    /// Why this is the answer, in one sentence.
    pub reason: String,
    /// The first model (the reference, by habit; it is judged like the other).
    pub a: Side,
    /// The second model.
    pub b: Side,
    /// What was fed to both, one entry an input, in the order of A's.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// The seed of made inputs and of random trials.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Values held against each other, in the order in which A computes them, then B's unmatched ones.
    pub pairs: Vec<Pair>,
    /// Where the two part, worst first.
    pub culprits: Vec<Culprit>,
    /// What limits the conclusion, or will matter with other inputs.
    pub warnings: Vec<Warning>,
    /// Both runs value by value, for [`sbs`](crate::sbs); not part of the JSON.
    #[serde(skip)]
    pub listing: Listing,
}

impl Report {
    /// A report without findings.
    pub fn new(verdict: Verdict, reason: impl Into<String>, a: Side, b: Side) -> Self {
        Self {
            schema: schema(),
            verdict,
            reason: reason.into(),
            a,
            b,
            inputs: Vec::new(),
            seed: None,
            pairs: Vec::new(),
            culprits: Vec::new(),
            warnings: Vec::new(),
            listing: Listing::default(),
        }
    }
}

/// The answer of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Bit for bit the same.
    Identical,
    /// Every difference is explained by rounding.
    Equivalent,
    /// At least one culprit.
    Divergent,
    /// The comparison cannot support a conclusion.
    Invalid,
    /// The evidence is too weak; the reason says what would settle it.
    Inconclusive,
}

impl Verdict {
    /// The exit status of a program that reports this verdict. 2 is left to errors.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Identical | Self::Equivalent => 0,
            Self::Divergent => 1,
            Self::Invalid | Self::Inconclusive => 3,
        }
    }

    /// The word used in every form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Equivalent => "equivalent",
            Self::Divergent => "divergent",
            Self::Invalid => "invalid",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something told of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Both<T> {
    /// Of the first model.
    pub a: T,
    /// Of the second.
    pub b: T,
}

impl<T> Both<T> {
    /// Of A and of B.
    pub const fn new(a: T, b: T) -> Self {
        Self { a, b }
    }
}

/// One of the two that are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The path as the user gave it.
    pub source: String,
    /// What that is.
    pub kind: Source,
    /// Calls of operators, functions inlined.
    pub nodes: usize,
    /// Values computed or recorded.
    pub values: usize,
    /// Who ran it, where that was not the built-in evaluator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// A run by somebody else, whose values were taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `onnxruntime`.
    pub backend: String,
    /// Its version.
    pub version: String,
    /// How much it rewrote the model before: `disable`, `basic`, `extended` or `all`.
    pub optimisation: String,
    /// Threads it ran on.
    pub threads: usize,
    /// Values taken over.
    pub recorded: usize,
    /// Values that could not be taken over, those inside bodies among them.
    pub left_out: usize,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, version, optimisation, threads, recorded, left_out } = self;
        let s = |n: usize| if n == 1 { "" } else { "s" };
        write!(f, "{backend} {version}, optimisation {optimisation}, {threads} thread{}; ", s(*threads))?;
        write!(f, "{recorded} value{} recorded", s(*recorded))?;
        if *left_out > 0 { write!(f, ", {left_out} left out") } else { Ok(()) }
    }
}

/// What a side was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An ONNX model, run here.
    Onnx,
    /// A recorded run.
    Trace,
    /// A file of named tensors.
    Tensors,
}

/// What an input was fed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The input's name in each model.
    #[serde(flatten)]
    pub name: Both<Option<String>>,
    /// Its element type.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its numbers come from: `from inputs.npz`, `normal(0, 1)`, `all ones: an attention mask`.
    pub made: String,
}

/// The part a pair plays at the border of the graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Given by the caller.
    Input,
    /// What the caller gets.
    Output,
}

/// A value of A and the value of B that plays the same part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pair {
    /// A's name for it; none where B's value has no partner.
    pub a: Option<String>,
    /// B's name for it; none where A's value has no partner.
    pub b: Option<String>,
    /// How B's elements are found in A's.
    pub relation: Relation,
    /// The relation's particulars, such as `{"perm": [0, 2, 1]}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
    /// What was found.
    pub status: Status,
    /// Whether this is an input or a final output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The operators that write it.
    #[serde(default)]
    pub op: Both<Option<String>>,
    /// Its element types.
    pub dtype: Both<Option<String>>,
    /// Its shapes.
    pub shape: Both<Option<Vec<usize>>>,
    /// How far apart the values are.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Where the difference comes from; none where it was not split.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// What rounding may do here, where nothing more of the budget was worked out; not part of the JSON.
    #[serde(skip)]
    pub allowed: Option<f64>,
}

/// How B's elements are found in A's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Element by element.
    #[default]
    Same,
    /// Axes in another order.
    Permuted,
    /// The same elements under another shape.
    Reshaped,
    /// A part of the other.
    Sliced,
    /// Several values of the other side put together.
    Stacked,
    /// Repeated along an axis.
    Expanded,
    /// Something a newer isotrace knows, or none of the above: the detail says what.
    #[serde(other)]
    Other,
}

impl Relation {
    /// The word used in every form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Permuted => "permuted",
            Self::Reshaped => "reshaped",
            Self::Sliced => "sliced",
            Self::Stacked => "stacked",
            Self::Expanded => "expanded",
            Self::Other => "other",
        }
    }
}

/// What was found of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Bit for bit the same.
    Identical,
    /// Apart by no more than rounding explains.
    Rounding,
    /// Apart because its inputs are.
    Inherited,
    /// Here the two part.
    Culprit,
    /// No partner was found.
    #[default]
    Unmatched,
    /// There are no numbers for it: a run stopped before it, or it only carries somebody else's NaN.
    NotEvaluated,
}

impl Status {
    /// The words used in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Rounding => "rounding",
            Self::Inherited => "inherited",
            Self::Culprit => "culprit",
            Self::Unmatched => "unmatched",
            Self::NotEvaluated => "not evaluated",
        }
    }
}

/// How far a pair's values are apart, B carried into A's layout; each number is none where nothing was compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// The largest absolute difference; NaN where a NaN stands against a number.
    #[serde(default, with = "crate::number::option")]
    pub max_abs: Option<f64>,
    /// The mean absolute difference.
    #[serde(default, with = "crate::number::option")]
    pub mean_abs: Option<f64>,
    /// The largest |a - b| / |a|.
    #[serde(default, with = "crate::number::option")]
    pub max_rel: Option<f64>,
    /// |a - b| / |a|, norms over all elements.
    #[serde(default, with = "crate::number::option")]
    pub rel_l2: Option<f64>,
    /// The cosine of the angle between the two.
    #[serde(default, with = "crate::number::option")]
    pub cosine: Option<f64>,
    /// The largest distance in steps between neighbouring floats of the narrower type; none also where a NaN
    /// stands against a number.
    #[serde(default)]
    pub max_ulp: Option<u64>,
    /// Where in A's layout the largest absolute difference is.
    #[serde(default)]
    pub argmax: Option<Vec<usize>>,
    /// NaN elements on each side.
    #[serde(default)]
    pub nan: Both<u64>,
    /// Infinite elements on each side.
    #[serde(default)]
    pub inf: Both<u64>,
}

/// The four parts of a pair's difference and what is allowed: each the largest over the elements, absolute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// A's own rounding, or A not doing what its graph says.
    #[serde(with = "crate::number")]
    pub fresh_a: f64,
    /// B's own rounding, or B not doing what its graph says.
    #[serde(with = "crate::number")]
    pub fresh_b: f64,
    /// What came in with the inputs.
    #[serde(with = "crate::number")]
    pub inherited: f64,
    /// The two do not compute the same function.
    #[serde(with = "crate::number")]
    pub semantic: f64,
    /// What rounding may do here.
    #[serde(with = "crate::number")]
    pub allowed: f64,
    /// The largest share of the allowance that an element's difference takes, B computed from A's own values.
    #[serde(default = "nothing", with = "crate::number")]
    pub share: f64,
}

fn nothing() -> f64 {
    0.0
}

/// Which side does not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CulpritSide {
    /// The first model.
    A,
    /// The second model.
    B,
    /// Both, each on its own.
    Both,
    /// Each does what its own graph says; the graphs differ.
    Neither,
}

/// A place where the two part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// 1 for the worst.
    pub rank: usize,
    /// Which side does not do what it should.
    pub side: CulpritSide,
    /// Its nodes in A.
    pub a: Region,
    /// Its nodes in B.
    pub b: Region,
    /// Why.
    pub cause: Cause,
}

/// The nodes of one side between paired values: the fewer the better.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Region {
    /// The nodes' names in the user's file.
    pub nodes: Vec<String>,
    /// Their operators, in the order of the nodes.
    pub ops: Vec<String>,
    /// The values the region hands on.
    pub outputs: Vec<String>,
}

/// The reason of a culprit, accepted only when undoing it makes the difference go away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// A word for programs: `scale`, `epsilon`, `weight_layout`, ...; `unknown` where nothing undoes the difference.
    pub class: String,
    /// One sentence with the numbers.
    pub summary: String,
    /// What supports it, a sentence each.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// The proof.
    #[serde(default)]
    pub counterfactual: Option<Counterfactual>,
    /// For `unknown`: what came nearest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Nearest>,
}

/// The change undone on one side, and the largest difference before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counterfactual {
    /// What was changed.
    pub change: String,
    /// The largest absolute difference as the models are.
    #[serde(with = "crate::number")]
    pub before: f64,
    /// The largest absolute difference with the change.
    #[serde(with = "crate::number")]
    pub after: f64,
}

/// A cause that was tried and explains only a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// Its class.
    pub class: String,
    /// What was changed.
    pub change: String,
    /// The largest absolute difference that is left.
    #[serde(with = "crate::number")]
    pub left: f64,
}

/// Something that limits the conclusion, or that other inputs would show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A word for programs: `vacuous`, `latent`, `environment`, ...
    pub class: String,
    /// One sentence.
    pub summary: String,
    /// The nodes or values it is about.
    #[serde(rename = "where", default)]
    pub place: Vec<String>,
}

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Finds the first operation where two neural networks really part, and says why.
#[derive(Debug, Parser)]
#[command(name = "isotrace", version, max_term_width = 110, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Whether to write colours. `auto` does on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isotrace diff a.onnx b.onnx                       compare on inputs made from a seed
  isotrace diff a.onnx b.onnx --inputs inputs.npz   compare on these
  isotrace diff a.onnx b.onnx --json report.json    also write the report for programs
  isotrace run a.onnx -o outputs.npz                run one model
  isotrace compare x.safetensors y.npz              compare tensors on disk

Exit status of diff: 0 the same up to rounding, 1 different, 2 an error, 3 no conclusion.";

/// When to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare two models, and name what makes them differ
    #[command(after_help = DIFF)]
    Diff(Diff),
    /// Run one model
    #[command(after_help = RUN)]
    Run(Run),
    /// Compare the tensors of two files, folders or traces
    #[command(after_help = COMPARE)]
    Compare(Compare),
    /// Tell what tensors hold
    #[command(after_help = STATS)]
    Stats(Stats),
    /// Write the tensors of a file, folder or trace in another format
    #[command(after_help = CONVERT)]
    Convert(Convert),
    /// List the supported operators
    Ops {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a completion script for a shell
    #[command(
        after_help = "Example:\n  isotrace completions bash > ~/.local/share/bash-completion/completions/isotrace"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const DIFF: &str = "\
Examples:
  isotrace diff a.onnx b.onnx
  isotrace diff a.onnx b.onnx --dim batch=1 --dim sequence=128 --seed 7
  isotrace diff a.onnx b.onnx --inputs inputs.safetensors --set use_cache=0
  isotrace diff a.onnx b.onnx --json - | jq .culprits
  isotrace diff a.onnx a.onnx --backend-b onnxruntime      is the runtime right about this model?

Exit status: 0 identical or equivalent, 1 divergent, 2 an error, 3 invalid or inconclusive.";

/// Compare two models.
#[derive(Debug, Args)]
pub struct Diff {
    /// The first ONNX model: the reference, by habit; it is judged like the other
    pub a: PathBuf,
    /// The second ONNX model
    pub b: PathBuf,
    #[command(flatten)]
    pub inputs: Inputs,
    /// Write the report as JSON to this file; `-` writes it to the standard output instead of text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The form of the text: for reading, or rows side by side as onnx-array-api's `compare` writes them
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub format: Format,
    /// Width of a cell of `--format sbs`
    #[arg(long, value_name = "N", default_value_t = isotrace_report::sbs::CELL)]
    pub column_size: usize,
    /// Show every culprit and every pair of values
    #[arg(long)]
    pub all: bool,
    /// Compare on this many sets of made inputs, seeds counting up, and report the first that diverges
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "inputs",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub trials: u64,
    /// A narrower type to which one side alone may round; may be repeated
    #[arg(long, value_name = "TYPE")]
    pub allow: Vec<Narrow>,
    #[command(flatten)]
    pub backend: Backend,
    /// Who runs A, if not as `--backend` says
    #[arg(long, value_name = "BACKEND")]
    pub backend_a: Option<Runner>,
    /// Who runs B, if not as `--backend` says
    #[arg(long, value_name = "BACKEND")]
    pub backend_b: Option<Runner>,
    /// The level for A, if not as `--optimisation` says
    #[arg(long, value_name = "LEVEL")]
    pub optimisation_a: Option<Level>,
    /// The level for B, if not as `--optimisation` says
    #[arg(long, value_name = "LEVEL")]
    pub optimisation_b: Option<Level>,
}

const RUN: &str = "\
Examples:
  isotrace run model.onnx
  isotrace run model.onnx --inputs inputs.npz -o outputs.npz
  isotrace run model.onnx --precision f64 --outputs all -o values.safetensors
  isotrace run model.onnx --backend onnxruntime --optimisation extended -o outputs.npz";

/// Run one model.
#[derive(Debug, Args)]
pub struct Run {
    /// The ONNX model
    pub model: PathBuf,
    #[command(flatten)]
    pub inputs: Inputs,
    /// Write the outputs to this file, `.npz` or `.safetensors`
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which values: `all`, or names with commas between them; the model's outputs by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub outputs: Vec<String>,
    /// `f32` computes in the types the model declares, `f64` every float in 64 bits
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub precision: Precision,
    #[command(flatten)]
    pub backend: Backend,
}

/// Who runs the models.
#[derive(Debug, Args)]
pub struct Backend {
    /// Who runs the models: `onnxruntime` is found through ORT_DYLIB_PATH or as a Python package, and runs on the CPU
    #[arg(long, value_name = "BACKEND", default_value = "embedded")]
    pub backend: Runner,
    /// How much ONNX Runtime rewrites a model before it runs it; `all` by default, which is its own default
    #[arg(long, value_name = "LEVEL")]
    pub optimisation: Option<Level>,
}

/// Who runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runner {
    /// The built-in evaluator
    Embedded,
    /// ONNX Runtime
    Onnxruntime,
}

/// How much ONNX Runtime rewrites a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Only what it cannot run otherwise
    Disable,
    /// Constants folded, superfluous nodes removed
    Basic,
    /// Operators fused as well
    Extended,
    /// Layouts changed as well
    All,
}

const CONVERT: &str = "\
Examples:
  isotrace convert weights.npz weights.safetensors
  isotrace convert recording/ values.npz --only logits,loss
  isotrace convert values.safetensors arrays --to npy      a folder with a .npy file for each
  isotrace convert half.safetensors full.npz --widen       bf16 as f32, which .npz can hold

Nothing is left half written: OUT is replaced when all of it is there.";

/// Write tensors in another format.
#[derive(Debug, Args)]
pub struct Convert {
    /// A file or folder of tensors, or a trace
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Where to write: a file is replaced, a folder must be new or empty
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The format to write; by default what the ending of OUT says
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<Target>,
    /// Only these tensors, with commas between them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Write floats narrower than f32 as f32, which holds each of their values exactly
    #[arg(long)]
    pub widen: bool,
}

/// A format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// One .safetensors file
    Safetensors,
    /// One checkpoint of PyTorch (.pt, .pth): a dictionary of tensors
    Pt,
    /// One .npz archive
    Npz,
    /// A .npy file, or a folder with one for each tensor
    Npy,
    /// An ONNX TensorProto, or a folder with one for each tensor
    Pb,
    /// Outputs as Polygraphy saves them (.json)
    Polygraphy,
    /// Raw bytes (.bin), with a .json beside them that says what they are
    Raw,
    /// A trace
    Trace,
    /// A trace of statistics and signatures without the elements
    Digest,
}

/// The inputs of a run.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Take the inputs from this file (.npz, .npy, .safetensors, .pt, .pb, ..., or a folder of them) instead of making
    /// them
    #[arg(long = "inputs", value_name = "FILE", id = "inputs")]
    pub file: Option<PathBuf>,
    /// Fill an input with one value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = named_value)]
    pub set: Vec<(String, String)>,
    /// The size of a named dimension of made inputs; may be repeated
    #[arg(long = "dim", value_name = "NAME=N", value_parser = named_size)]
    pub dim: Vec<(String, usize)>,
    /// The seed of made inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

const COMPARE: &str = "\
Examples:
  isotrace compare expected.npz got.npz
  isotrace compare run-a.trace run-b.trace --map h.0.attn=layers.0.attention
  isotrace compare x.safetensors y.safetensors --like numpy --rtol 1e-3
  isotrace compare x.npy y.npy --json - | jq '.tensors[] | select(.status == \"beyond\")'

Without --like, types are judged by the tolerances of torch.testing.assert_close, and may differ. NaN is never
close to anything. Relative tolerances are relative to Y, relative differences in the table to X.

Exit status: 0 within tolerance, 1 beyond, 2 an error, 3 nothing was compared.";

/// Compare tensors.
#[derive(Debug, Args)]
pub struct Compare {
    /// A file or folder of tensors, or a trace
    pub x: PathBuf,
    /// What to hold it against
    pub y: PathBuf,
    /// Pair a tensor of X with one of Y: names with `=` between them, or a JSON file {"name in X": "name in Y"}; may
    /// be repeated. Others are paired by equal names
    #[arg(long, value_name = "X=Y")]
    pub map: Vec<String>,
    /// Decide exactly as this tool would
    #[arg(long, value_name = "TOOL")]
    pub like: Option<Like>,
    /// The relative tolerance, in place of the type's or the tool's
    #[arg(long, value_name = "R", value_parser = tolerance)]
    pub rtol: Option<f64>,
    /// The absolute tolerance, in place of the type's or the tool's
    #[arg(long, value_name = "A", value_parser = tolerance)]
    pub atol: Option<f64>,
    /// Write what was found as JSON to this file; `-` writes it to the standard output instead of text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show every tensor, and look closely at each that differs
    #[arg(long)]
    pub all: bool,
}

/// A tool whose judgement is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Like {
    /// `torch.testing.assert_close(x, y)`
    Torch,
    /// `numpy.allclose(x, y)`
    Numpy,
    /// Polygraphy's `CompareFunc.simple()`
    Polygraphy,
}

const STATS: &str = "\
Examples:
  isotrace stats weights.safetensors
  isotrace stats run.trace h.0.attn h.1.attn
  isotrace stats weights.gguf --json - | jq '.tensors[] | select(.warnings != [])'";

/// Tell what tensors hold.
#[derive(Debug, Args)]
pub struct Stats {
    /// A file or folder of tensors, or a trace
    pub file: PathBuf,
    /// Only these tensors, and all there is to tell of them; `*` stands for any text
    pub names: Vec<String>,
    /// Write what was found as JSON to this file; `-` writes it to the standard output instead of text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Sbs,
}

/// A type to which a side may round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Narrow {
    F16,
    Bf16,
}

/// The precision of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F64,
}

/// A tolerance: not negative, not NaN.
fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x >= 0.0 && x.is_finite() => Ok(x),
        _ => Err("expected a number from 0 on, such as 1e-5".to_owned()),
    }
}

/// `NAME=VALUE`; a name may hold `=`, a value does not.
fn named_value(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE, such as use_cache=0".to_owned()),
    }
}

fn named_size(text: &str) -> Result<(String, usize), String> {
    let (name, value) = named_value(text).map_err(|_| "expected NAME=N, such as batch=2".to_owned())?;
    let size =
        value.parse().map_err(|_| format!("{value:?} is no size; expected a whole number such as 2"))?;
    Ok((name, size))
}

//! Files into graphs and tensors, and back.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use isotrace_graph::{Graph, ValueId};
use isotrace_inputs::{Request, Tensors};
use isotrace_onnx::Model;
use isotrace_report::Warning;
use isotrace_tensor::Tensor;
use isotrace_trace::trace::record::Note;
use rustc_hash::FxHashMap;

use crate::args;
use crate::interrupt;
use crate::modules::{self, View};

/// The graph of an ONNX file.
pub fn graph(path: &Path) -> anyhow::Result<Graph> {
    let model = Model::read(path)?;
    // Errors of the file name it themselves, those of its content do not.
    let mut graph = model.graph().with_context(|| path.display().to_string())?;
    // The runtime's blocked layout does not say how wide its blocks are; all of a file's operators together do.
    isotrace_ops::nchwc::annotate(&mut graph).with_context(|| path.display().to_string())?;
    Ok(graph)
}

/// A model: an ONNX file, or a recording of what somebody ran.
pub fn model(path: &Path) -> anyhow::Result<(Graph, Option<Recording>)> {
    if !path.join(isotrace_trace::trace::LOG).is_file() {
        return Ok((graph(path)?, None));
    }
    let named = || path.display().to_string();
    let trace = isotrace_trace::Trace::open(path)?;
    let told = trace.told();
    let isotrace_aten::Recorded { graph, inputs, values, opaque } =
        isotrace_aten::recorded(&trace).map_err(|error| noted(error, &told)).with_context(named)?;
    let given = inputs.into_iter().map(|(v, t)| (graph.value(v).name.clone(), t)).collect();
    let opaque = opaque.into_iter().collect();
    Ok((graph, Some(Recording { given, values, opaque, told })))
}

/// An error, with what the recording itself tells that may be why.
fn noted(error: isotrace_aten::AtenError, told: &[Note]) -> anyhow::Error {
    let told: Vec<String> = told.iter().filter(|note| note.limits()).map(Note::to_string).collect();
    if told.is_empty() { error.into() } else { anyhow!("{error} (it is noted there: {})", told.join("; ")) }
}

/// A recording of modules alone: a graph of nothing but its inputs, and what was seen.
pub fn modules(path: &Path) -> anyhow::Result<Option<(Graph, Recording, View)>> {
    if !path.join(isotrace_trace::trace::LOG).is_file() {
        return Ok(None);
    }
    let trace = isotrace_trace::Trace::open(path)?;
    if !trace.nodes().is_empty() || trace.calls().is_empty() {
        return Ok(None);
    }
    let (graph, given) = modules::border(&trace)?;
    let recording = Recording { given, values: FxHashMap::default(), opaque: vec![], told: trace.told() };
    Ok(Some((graph, recording, View::recorded(&trace)?)))
}

/// What a recording holds besides its graph.
pub struct Recording {
    /// The inputs by name.
    pub given: Tensors,
    /// What was recorded of computed values.
    pub values: FxHashMap<ValueId, Tensor>,
    /// Operators that nobody here knows, and how many calls of each were taken as they were recorded.
    pub opaque: Vec<(String, usize)>,
    /// What is missing, and what the recorder noted.
    pub told: Vec<Note>,
}

impl Recording {
    /// Warnings where not all of a recording could be judged, or not all that ran was recorded.
    pub fn warnings(&self, path: &str) -> Vec<Warning> {
        let calls: usize = self.opaque.iter().map(|(_, n)| n).sum();
        let latent = (calls > 0).then(|| Warning {
            class: "latent".to_owned(),
            summary: format!(
                "{path}: {calls} calls of {} operators that isotrace does not know were taken as they were recorded; \
                 what they compute was not judged",
                self.opaque.len()
            ),
            place: self.opaque.iter().map(|(name, n)| format!("{name} ({n})")).collect(),
        });
        let told = self.told.iter().filter(|note| note.limits()).map(|note| Warning {
            class: "recording".to_owned(),
            summary: format!("{path}: {note}"),
            place: note.places.clone(),
        });
        latent.into_iter().chain(told).collect()
    }
}

/// The inputs that recordings among the sides bring along; both must have been fed the same, or one what the other's
/// is in a narrower type: then the wider one counts, and each side gets it in its own type.
pub fn brought(sides: [(&str, Option<&Recording>); 2]) -> anyhow::Result<Option<(String, Tensors)>> {
    let mut all: Option<(String, Tensors)> = None;
    for (path, recording) in sides {
        let Some(recording) = recording else { continue };
        match &mut all {
            None => all = Some((path.to_owned(), recording.given.clone())),
            Some((first, tensors)) => {
                for (name, tensor) in &recording.given {
                    let Some(known) = tensors.get(name) else {
                        tensors.insert(name.clone(), tensor.clone());
                        continue;
                    };
                    let rounds_to = |wide: &Tensor, narrow: &Tensor| {
                        let both = wide.dtype().is_float() && narrow.dtype().is_float();
                        both && wide.cast(narrow.dtype()).is_ok_and(|t| t.bit_eq(narrow))
                    };
                    if !known.bit_eq(tensor) && rounds_to(tensor, known) {
                        tensors.insert(name.clone(), tensor.clone());
                    } else if !known.bit_eq(tensor) && !rounds_to(known, tensor) {
                        bail!(
                            "{first} and {path} were recorded on different inputs (see {name:?}); record both on the \
                             same"
                        );
                    }
                }
            }
        }
    }
    Ok(all)
}

/// The tensors of `--inputs`, where it is given.
pub fn given(inputs: &args::Inputs) -> anyhow::Result<Option<(String, Tensors)>> {
    let Some(path) = &inputs.file else { return Ok(None) };
    let tensors: Tensors = isotrace_trace::read_tensors(path)?.into_iter().collect();
    if tensors.is_empty() {
        bail!("{} holds no tensors; expected one for each input of the model", path.display());
    }
    Ok(Some((path.display().to_string(), tensors)))
}

/// What the command line says about the inputs.
pub fn request<'a>(inputs: &'a args::Inputs, given: Option<&'a (String, Tensors)>) -> Request<'a> {
    Request {
        given: given.map(|(file, tensors)| (file.as_str(), tensors)),
        set: &inputs.set,
        dims: &inputs.dim,
        seed: inputs.seed,
    }
}

/// Writes a file whole, or leaves what was there.
pub fn write_text(path: &Path, text: &str) -> anyhow::Result<()> {
    let _whole = interrupt::writing();
    isotrace_onnx::replace_file(path, |file| std::io::Write::write_all(file, text.as_bytes()))?;
    Ok(())
}

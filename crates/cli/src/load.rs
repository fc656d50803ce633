//! Files into graphs and tensors, and back.

use std::path::Path;

use anyhow::{Context as _, bail};
use isotrace_graph::Graph;
use isotrace_inputs::{Request, Tensors};
use isotrace_onnx::Model;

use crate::args;
use crate::interrupt;

/// The graph of an ONNX file.
pub fn graph(path: &Path) -> anyhow::Result<Graph> {
    let model = Model::read(path)?;
    // Errors of the file name it themselves, those of its content do not.
    let mut graph = model.graph().with_context(|| path.display().to_string())?;
    // The runtime's blocked layout does not say how wide its blocks are; all of a file's operators together do.
    isotrace_ops::nchwc::annotate(&mut graph).with_context(|| path.display().to_string())?;
    Ok(graph)
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

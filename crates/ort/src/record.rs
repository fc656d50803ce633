//! One model and its runs.

use std::path::{Path, PathBuf};

use isotrace_graph::{Graph, ValueId};
use isotrace_onnx::Model;
use isotrace_ops::nchwc::{self, Channels, unblock};
use isotrace_tensor::Tensor;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::bisect::responsible;
use crate::folder::Folder;
use crate::runtime::{Level, Runtime, run};
use crate::{OrtError, emit, layout, names};

/// A model as ONNX Runtime runs it.
pub struct Prepared {
    runtime: &'static Runtime,
    path: PathBuf,
    /// The file that runs in place of the user's, where the runtime refuses its names.
    renamed: Option<PathBuf>,
    level: Level,
    folder: Folder,
    model: Model,
    graph: Graph,
    blocked: Vec<bool>,
    channels: Channels,
    emitted: Vec<String>,
}

/// What a run computed.
pub struct Recording {
    /// By value of [`Prepared::graph`]: everything that its nodes wrote and that could be brought back.
    pub values: FxHashMap<ValueId, Tensor>,
    /// The final outputs of the user's model, run untouched.
    pub outputs: Vec<(String, Tensor)>,
    /// Where looking changed what was seen.
    pub effect: Option<Effect>,
    /// How many values are missing: sequences, optionals and types that the interface does not hand over, and what
    /// nodes inside bodies write.
    pub left_out: usize,
}

/// Why the final outputs of the observed run are not, bit for bit, those of the user's model run untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Giving out these values changes them.
    Values(Vec<String>),
    /// No value is to blame: the optimised model computes something else when it is loaded from its file.
    Loading,
    /// The user's model itself gives other outputs from run to run.
    Unsteady,
}

impl Prepared {
    /// Lets the runtime optimise the model at `path`, and reads what it made of it.
    pub fn new(runtime: &'static Runtime, path: &Path, level: Level) -> Result<Self, OrtError> {
        let folder = Folder::new()?;
        let file = folder.path().join("optimised.onnx");
        let mut renamed = None;
        if let Err(refused) = runtime.optimise(path, level, path, &file) {
            let other = names::of_its_own(&refused).then(|| Model::read(path).ok()).flatten();
            let Some(other) = other.and_then(|model| names::renamed(&model)) else { return Err(refused) };
            let to = folder.path().join("renamed.onnx");
            // Constants that lie in files of their own are copied: the runtime reads none outside the model's folder.
            other.write(&to).map_err(OrtError::optimised(path))?;
            runtime.optimise(&to, level, path, &file)?;
            renamed = Some(to);
        }
        let model = Model::read(&file).map_err(OrtError::optimised(path))?;
        let mut graph = model.graph().map_err(OrtError::optimised(path))?;
        if layout::has_blocks(&graph)
            && let Some(block) = runtime.block()
        {
            layout::annotate(&mut graph, block);
        }
        let emitted = model.proto().graph.as_ref().map(emit::inner_values).unwrap_or_default();
        let blocked = layout::blocked(&graph);
        let channels = nchwc::plain(&mut graph)
            .map_err(|cause| OrtError::Layout { name: path.display().to_string(), cause })?;
        let path = path.to_path_buf();
        Ok(Self { runtime, path, renamed, level, folder, model, graph, blocked, channels, emitted })
    }

    /// What really runs: the user's model as the optimiser rewrote it.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The runtime that runs it.
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// The level it was optimised at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Runs the user's model, untouched, on inputs by name: its final outputs.
    pub fn run(&self, inputs: &FxHashMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, OrtError> {
        let file = self.renamed.as_ref().unwrap_or(&self.path);
        let mut session = self.runtime.session(file, self.level, &self.path)?;
        run(&mut session, inputs, &self.path)
    }

    /// Runs the model untouched and observed.
    pub fn record(&self, inputs: &FxHashMap<String, Tensor>) -> Result<Recording, OrtError> {
        let outputs = self.run(inputs)?;
        let all: Vec<usize> = (0..self.emitted.len()).collect();
        let observed = self.observe(inputs, &all)?;
        let effect = if agree(&outputs, &observed) { None } else { Some(self.explain(inputs, &outputs)?) };
        let names = self.graph.names();
        let written: FxHashSet<ValueId> = self.graph.nodes.iter().flat_map(|n| n.writes()).collect();
        let mut values = FxHashMap::default();
        for (name, tensor) in observed {
            if let Some(&v) = names.get(name.as_str()).filter(|v| written.contains(v)) {
                values.insert(v, self.plain(v, &name, tensor)?);
            }
        }
        let in_bodies = self.model.proto().graph.as_ref().map_or(0, emit::values_in_bodies);
        let left_out = written.len() - values.len() + in_bodies;
        Ok(Recording { values, outputs, effect, left_out })
    }

    /// Runs the optimised model as it is, with some of its values as further outputs.
    fn observe(
        &self,
        inputs: &FxHashMap<String, Tensor>,
        values: &[usize],
    ) -> Result<Vec<(String, Tensor)>, OrtError> {
        // In the folder of the optimised model, whose weights it shares.
        let file = self.folder.path().join("observed.onnx");
        let names = values.iter().map(|&i| self.emitted[i].as_str());
        emit::with_outputs(&self.model, names).write(&file).map_err(OrtError::optimised(&self.path))?;
        let mut session = self.runtime.session(&file, Level::Disable, &self.path)?;
        run(&mut session, inputs, &self.path)
    }

    /// Finds what makes the observed run's outputs differ from `outputs`.
    fn explain(
        &self,
        inputs: &FxHashMap<String, Tensor>,
        outputs: &[(String, Tensor)],
    ) -> Result<Effect, OrtError> {
        if !agree(outputs, &self.run(inputs)?) {
            return Ok(Effect::Unsteady);
        }
        let mut differs = |values: &[usize]| Ok(!agree(outputs, &self.observe(inputs, values)?));
        if differs(&[])? {
            return Ok(Effect::Loading);
        }
        let found = responsible(self.emitted.len(), &mut differs)?;
        if found.is_empty() {
            // It differed once and never again.
            return Ok(Effect::Unsteady);
        }
        Ok(Effect::Values(found.into_iter().map(|i| self.emitted[i].clone()).collect()))
    }

    /// A value in plain order of channels, without those that fill the last block up.
    fn plain(&self, v: ValueId, name: &str, tensor: Tensor) -> Result<Tensor, OrtError> {
        let named = |cause| OrtError::Layout { name: name.to_owned(), cause };
        let Some(block) = layout::block(&self.graph) else { return Ok(tensor) };
        if !layout::is_blocked(&self.blocked, v) || !layout::fits(tensor.shape(), block) {
            return Ok(tensor);
        }
        let plain = unblock(&tensor, block).map_err(named)?;
        match self.channels.get(v.index()).copied().flatten() {
            Some(channels) if channels < plain.shape()[1] => {
                plain.slice(1, 0, channels).map_err(|cause| named(cause.into()))
            }
            _ => Ok(plain),
        }
    }
}

/// Whether every output is the same, to the bit, among the others.
fn agree(outputs: &[(String, Tensor)], others: &[(String, Tensor)]) -> bool {
    outputs.iter().all(|(name, tensor)| {
        others.iter().find(|(n, _)| n == name).is_some_and(|(_, other)| tensor.bit_eq(other))
    })
}

//! A model and who runs it.

use std::path::Path;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use isotrace_graph::{Graph, ValueId};
use isotrace_ort::{Effect, Prepared, Recording, Runtime, THREADS};
use isotrace_report::{Run, Warning};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use crate::args::{Level, Runner};
use crate::load::{self, Recording as Taken};
use crate::modules::View;

/// Inputs or values of a graph.
pub type Values = FxHashMap<ValueId, Tensor>;

/// A model, read and, where somebody else runs it, made ready there.
pub struct Loaded {
    /// The graph of the user's file.
    user: Graph,
    ran: Option<Prepared>,
    recorded: Option<Taken>,
    /// What was seen, where the side is a recording of modules, without a graph.
    modules: Option<View>,
    /// Where a model that was given in memory lies as a file.
    _file: Option<tempfile::TempDir>,
}

impl Loaded {
    /// Reads a model for a backend.
    pub fn new(path: &Path, runner: Runner, level: Option<Level>) -> anyhow::Result<Self> {
        match (runner, level) {
            (Runner::Embedded, Some(_)) => bail!(
                "--optimisation is about ONNX Runtime, and {} is run by the embedded backend, which rewrites nothing; \
                 add --backend onnxruntime",
                path.display()
            ),
            (Runner::Embedded, None) => {
                if let Some((user, recorded, view)) = load::modules(path)? {
                    return Ok(Self { modules: Some(view), ..Self::plain(user, Some(recorded)) });
                }
                let (user, recorded) = load::model(path)?;
                Ok(Self::plain(user, recorded))
            }
            (Runner::Onnxruntime, level) => {
                // Read here first: what is damaged or hostile is refused before the runtime sees it.
                let user = load::graph(path)?;
                let runtime = Runtime::load().map_err(|e| anyhow!("{e}"))?;
                let ran = Prepared::new(runtime, path, setting(level.unwrap_or(Level::All)))?;
                Ok(Self { ran: Some(ran), ..Self::plain(user, None) })
            }
        }
    }

    fn plain(user: Graph, recorded: Option<Taken>) -> Self {
        Self { user, ran: None, recorded, modules: None, _file: None }
    }

    /// A model in memory.
    pub fn decode(bytes: Bytes, runner: Runner, level: Option<Level>) -> anyhow::Result<Self> {
        if runner == Runner::Onnxruntime {
            // The runtime's optimiser reads and writes files.
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("model.onnx");
            std::fs::write(&path, &bytes)?;
            return Ok(Self { _file: Some(folder), ..Self::new(&path, runner, level)? });
        }
        if level.is_some() {
            bail!(
                "the embedded backend rewrites nothing, so an optimisation level has no effect on it; leave it out"
            );
        }
        let mut user = isotrace_onnx::Model::decode(bytes, None)?.graph()?;
        isotrace_ops::nchwc::annotate(&mut user)?;
        Ok(Self::plain(user, None))
    }

    /// Lets constants that another model holds as well be that model's.
    fn share_constants(&mut self, other: &Self) {
        if self.ran.is_none() {
            self.user.share_constants(other.graph());
        }
    }

    /// A model that is held against no other.
    pub fn alone(mut self) -> anyhow::Result<Self> {
        self.put_in_order()?;
        Ok(self)
    }

    /// Blocked weights in plain order.
    fn put_in_order(&mut self) -> anyhow::Result<()> {
        if self.ran.is_none() {
            isotrace_ops::nchwc::plain(&mut self.user)?;
        }
        Ok(())
    }

    /// Settles what the files of two models leave open and only the two together tell: how wide blocks of channels
    /// are. Constants that both hold are kept once.
    pub fn settle(a: &mut Self, b: &mut Self) -> anyhow::Result<()> {
        let tell = |side: &mut Self, other: &Self| match side.ran {
            None => isotrace_ops::nchwc::settle(&mut side.user, other.graph()),
            Some(_) => Ok(()),
        };
        tell(a, b)?;
        tell(b, a)?;
        a.put_in_order()?;
        b.put_in_order()?;
        b.share_constants(a);
        Ok(())
    }

    /// What a recording of modules saw.
    pub fn modules(&self) -> Option<&View> {
        self.modules.as_ref()
    }

    /// Fails where there is no graph to run.
    pub fn runs(&self) -> anyhow::Result<()> {
        if self.modules.is_some() { Err(isotrace_aten::AtenError::NoNodes.into()) } else { Ok(()) }
    }

    /// The graph of the user's file, by which inputs are bound: fused operators tell less of what an input is for.
    pub fn user(&self) -> &Graph {
        &self.user
    }

    /// The graph of what is run.
    pub fn graph(&self) -> &Graph {
        self.ran.as_ref().map_or(&self.user, Prepared::graph)
    }

    /// What somebody recorded, where the side is a trace.
    pub fn recorded(&self) -> Option<&Taken> {
        self.recorded.as_ref()
    }

    /// The runtime's form of the model, where somebody else runs it.
    pub fn prepared(&self) -> Option<&Prepared> {
        self.ran.as_ref()
    }

    /// The value of [`graph`](Self::graph) that an input of the user's graph is; none where nothing reads it any more.
    pub fn carried(&self, v: ValueId) -> Option<ValueId> {
        let Some(ran) = &self.ran else { return Some(v) };
        let graph = ran.graph();
        let name = &self.user.value(v).name;
        graph.inputs.iter().copied().find(|&i| graph.value(i).name == *name)
    }

    /// Inputs of the user's graph as those of [`graph`](Self::graph).
    pub fn carry(&self, inputs: &Values) -> Values {
        inputs.iter().filter_map(|(&v, t)| Some((self.carried(v)?, t.clone()))).collect()
    }

    /// Inputs of the user's graph by name.
    pub fn named(&self, inputs: &Values) -> FxHashMap<String, Tensor> {
        inputs.iter().map(|(&v, t)| (self.user.value(v).name.clone(), t.clone())).collect()
    }

    /// The run of somebody else on inputs of the user's graph.
    pub fn record(&self, inputs: &Values) -> anyhow::Result<Option<Recording>> {
        self.ran.as_ref().map(|ran| Ok(ran.record(&self.named(inputs))?)).transpose()
    }
}

fn setting(level: Level) -> isotrace_ort::Level {
    match level {
        Level::Disable => isotrace_ort::Level::Disable,
        Level::Basic => isotrace_ort::Level::Basic,
        Level::Extended => isotrace_ort::Level::Extended,
        Level::All => isotrace_ort::Level::All,
    }
}

/// What a report says of a run.
pub fn told(prepared: &Prepared, recording: &Recording) -> Run {
    Run {
        backend: "onnxruntime".to_owned(),
        version: prepared.runtime().version(),
        optimisation: prepared.level().name().to_owned(),
        threads: THREADS,
        recorded: recording.values.len(),
        left_out: recording.left_out,
    }
}

/// The warning where looking changed what was seen. `what` names the model.
pub fn observed(what: &str, recording: &Recording) -> Option<Warning> {
    let (class, summary, place) = match recording.effect.as_ref()? {
        Effect::Values(names) => (
            "observer_effect",
            format!(
                "{what}: with {} of its values as further outputs, ONNX Runtime's final outputs differ by some bits \
                 from those of the model run untouched; the values shown are those of the observed run",
                names.len()
            ),
            names.clone(),
        ),
        Effect::Loading => (
            "observer_effect",
            format!(
                "{what}: the model that ONNX Runtime's optimiser saved gives final outputs that differ by some bits \
                 from those of the model run untouched, whichever values are looked at; the values shown are those of \
                 the saved model"
            ),
            Vec::new(),
        ),
        Effect::Unsteady => (
            "environment",
            format!(
                "{what}: ONNX Runtime's final outputs change from run to run on the same inputs, as random operators \
                 without a seed do; the values shown are those of one run"
            ),
            Vec::new(),
        ),
    };
    Some(Warning { class: class.to_owned(), summary, place })
}

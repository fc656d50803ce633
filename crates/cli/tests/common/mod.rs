//! Small models on disk, and the program run on them.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use isotrace_graph::{Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_onnx::Model;
use isotrace_tensor::{DType, Tensor};

/// A folder that goes away with the test.
pub struct Folder(tempfile::TempDir);

/// What the program did.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn model(&self, name: &str, graph: &Graph) -> PathBuf {
        self.file(name, encoded(graph))
    }

    pub fn tensors(&self, name: &str, tensors: &[(&str, Tensor)]) -> PathBuf {
        let path = self.path().join(name);
        let named: Vec<(String, Tensor)> =
            tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        isotrace_trace::write_tensors(&path, &named).unwrap();
        path
    }

    /// Runs the program in this folder.
    pub fn isotrace<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_isotrace"))
            .args(args)
            .current_dir(self.path())
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            status: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

pub fn encoded(graph: &Graph) -> Vec<u8> {
    Model::from_graph(graph).unwrap().encode().unwrap().to_vec()
}

/// y = relu(x W) `times` s, for x of `dtype` [n, 4] and a constant W.
pub struct Small {
    pub dtype: DType,
    pub columns: usize,
    pub factor: f32,
    pub op: &'static str,
    pub input: &'static str,
}

impl Default for Small {
    fn default() -> Self {
        Self { dtype: DType::F32, columns: 4, factor: 0.5, op: "Relu", input: "x" }
    }
}

impl Small {
    pub fn graph(&self) -> Graph {
        let mut g = Graph { name: "small".into(), ..Graph::default() };
        let typed = |rows: usize| {
            let shape = Some(vec![Dim::Named("n".into()), Dim::Fixed(rows)]);
            Some(TensorType { dtype: self.dtype, shape })
        };
        let mut value = |name: &str, constant: Option<Tensor>, declared| {
            g.values.push(Value { name: name.into(), constant, declared });
            ValueId(g.values.len() as u32 - 1)
        };
        let weights: Vec<f32> = (0..self.columns * 3).map(|i| (i as f32 * 1.7).sin()).collect();
        let cast = |t: Tensor| t.cast(self.dtype).unwrap();
        let x = value(self.input, None, typed(self.columns));
        let w = value("w", Some(cast(Tensor::from_vec(&[self.columns, 3], weights).unwrap())), None);
        let s = value("s", Some(cast(Tensor::scalar(self.factor))), None);
        let product = value("product", None, None);
        let positive = value("positive", None, None);
        let y = value("y", None, typed(3));
        let node = |name: &str, op: &str, inputs: &[ValueId], output| Node {
            name: name.into(),
            domain: String::new(),
            op: op.into(),
            version: 17,
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(output)],
            attributes: BTreeMap::new(),
        };
        g.nodes = vec![
            node("multiply", "MatMul", &[x, w], product),
            node("clip", self.op, &[product], positive),
            node("scale", "Mul", &[positive, s], y),
        ];
        g.inputs = vec![x];
        g.outputs = vec![y];
        g
    }
}

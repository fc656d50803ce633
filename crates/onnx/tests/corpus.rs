//! Every model and tensor of a corpus, read, lowered, raised and written: ONNX's backend node tests in the folder
//! named by `ISOTRACE_NODE_TESTS`, any other models under `ISOTRACE_MODELS`. Says so and passes where neither is set.

#![expect(clippy::print_stderr, reason = "a corpus that was not read has to be told")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use isotrace_graph::{Attribute, Graph};
use isotrace_onnx::{Model, OnnxError, proto, read_tensor_pb};
use prost::Message;

fn files(root: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn corpus(extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for variable in ["ISOTRACE_NODE_TESTS", "ISOTRACE_MODELS"] {
        match std::env::var_os(variable) {
            Some(root) => files(Path::new(&root), extension, &mut found),
            None => eprintln!("SKIPPED: {variable} is not set"),
        }
    }
    found.sort();
    found
}

/// Whether two graphs are the same up to the ids of values; names decide.
fn same(a: &Graph, b: &Graph) -> Result<(), String> {
    let name = |g: &Graph, v: Option<isotrace_graph::ValueId>| v.map(|v| g.value(v).name.clone());
    let all = |g: &Graph, list: &[isotrace_graph::ValueId]| {
        list.iter().map(|&v| (g.value(v).name.clone(), g.value(v).declared.clone())).collect::<Vec<_>>()
    };
    let check = |what: &str, ok: bool| if ok { Ok(()) } else { Err(what.to_owned()) };
    check("inputs", all(a, &a.inputs) == all(b, &b.inputs))?;
    check("outputs", all(a, &a.outputs) == all(b, &b.outputs))?;
    check("node count", a.nodes.len() == b.nodes.len())?;
    let constants = |g: &Graph| {
        let mut c: Vec<_> =
            g.values.iter().filter_map(|v| Some((v.name.clone(), v.constant.clone()?))).collect();
        c.sort_by(|x, y| x.0.cmp(&y.0));
        c
    };
    let (ca, cb) = (constants(a), constants(b));
    check("constant count", ca.len() == cb.len())?;
    for ((na, ta), (nb, tb)) in ca.iter().zip(&cb) {
        check(na, na == nb && ta.bit_eq(tb))?;
    }
    for (x, y) in a.nodes.iter().zip(&b.nodes) {
        let label = &x.name;
        check(label, x.name == y.name && x.op == y.op && x.domain == y.domain && x.version == y.version)?;
        let names = |g, list: &[_]| list.iter().map(|&v| name(g, v)).collect::<Vec<_>>();
        check(label, names(a, &x.inputs) == names(b, &y.inputs))?;
        check(label, names(a, &x.outputs) == names(b, &y.outputs))?;
        check(label, x.attributes.len() == y.attributes.len())?;
        for ((kx, vx), (ky, vy)) in x.attributes.iter().zip(&y.attributes) {
            check(label, kx == ky)?;
            match (vx, vy) {
                (Attribute::Graph(gx), Attribute::Graph(gy)) => same(gx, gy)?,
                (Attribute::Tensor(tx), Attribute::Tensor(ty)) => check(label, tx.bit_eq(ty))?,
                _ => check(kx, vx.same(vy))?,
            }
        }
    }
    Ok(())
}

/// Message lists whose order the wire does not fix are compared decoded: prost writes fields by number.
#[test]
fn models_survive_the_way_there_and_back() {
    let models = corpus("onnx");
    let mut wrong = vec![];
    let (mut same_bytes, mut raised, mut unraisable) = (0usize, 0usize, 0usize);
    for path in &models {
        let mut run = || -> Result<(), String> {
            let text = |e: OnnxError| e.to_string();
            let bytes = Bytes::from(std::fs::read(path).unwrap());
            let mut model = Model::read(path).map_err(text)?;
            if model.encode().map_err(text)? != bytes {
                return Err("an unchanged model is not written as it was".into());
            }
            if !model.unknown_fields().is_empty() {
                return Err(format!("unknown fields {:?}", model.unknown_fields()));
            }
            model.proto_mut();
            let again = model.encode().map_err(text)?;
            same_bytes += usize::from(again == bytes);
            if again.len() != bytes.len() {
                return Err(format!("{} bytes became {}", bytes.len(), again.len()));
            }
            if proto::ModelProto::decode(again).unwrap() != *model.proto()
                && !format!("{:?}", model.proto()).contains("NaN")
            {
                return Err("the message changed".into());
            }
            let graph = model.graph().map_err(text)?;
            match Model::from_graph(&graph) {
                Ok(back) => {
                    raised += 1;
                    let bytes = back.encode().map_err(text)?;
                    let back = Model::decode(bytes, None).and_then(|m| m.graph()).map_err(text)?;
                    same(&graph, &back).map_err(|e| format!("raised graph differs: {e}"))?;
                }
                Err(OnnxError::Inexpressible { .. }) => unraisable += 1,
                Err(e) => return Err(text(e)),
            }
            Ok(())
        };
        if let Err(e) = run() {
            wrong.push(format!("{}: {e}", path.display()));
        }
    }
    eprintln!(
        "{} models: {same_bytes} re-encoded byte for byte, {raised} raised from their graph, {unraisable} hold \
         attributes that are not kept",
        models.len()
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), models.len(), wrong.join("\n"));
}

#[test]
fn tensors_read_and_write() {
    let tensors = corpus("pb");
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    let (mut read, mut not_tensors) = (0usize, 0usize);
    for path in &tensors {
        match read_tensor_pb(path) {
            Ok((name, tensor)) => {
                read += 1;
                let copy = folder.path().join("t.pb");
                isotrace_onnx::write_tensor_pb(&copy, &name, &tensor).unwrap();
                let (name_again, again) = read_tensor_pb(&copy).unwrap();
                if name_again != name || !again.bit_eq(&tensor) {
                    wrong.push(format!("{}: changed", path.display()));
                }
            }
            Err(e) if matches!(e.cause(), OnnxError::NotATensor { .. }) => not_tensors += 1,
            Err(e) => wrong.push(e.to_string()),
        }
    }
    eprintln!("{} files: {read} tensors, {not_tensors} sequences, optionals and maps", tensors.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), tensors.len(), wrong.join("\n"));
}

//! One case: a model, its data sets, and the tolerance that its authors gave it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use isotrace_onnx::{Model, read_tensor_pb};
use isotrace_ops::Precision;
use isotrace_run::{Keep, Options, Plan};
use isotrace_tensor::Tensor;

use crate::compare::{Tolerance, compare};

/// Runs every data set of the case in `folder`; an error says what went wrong, in one line.
pub fn run(folder: &Path, precision: Precision) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run_sets(folder, precision))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        Err(format!("PANIC: {text}"))
    })
}

fn run_sets(folder: &Path, precision: Precision) -> Result<(), String> {
    let tolerance = tolerance(folder)?;
    let model = Model::read(folder.join("model.onnx")).map_err(|e| e.cause().to_string())?;
    let declared: Vec<&str> = model
        .proto()
        .graph
        .iter()
        .flat_map(|g| &g.input)
        .map(isotrace_onnx::proto::ValueInfoProto::name)
        .collect();
    let graph = model.graph().map_err(|e| e.to_string())?;
    let plan = Plan::new(&graph).map_err(|e| e.to_string())?;
    let mut sets = 0;
    while let set = folder.join(format!("test_data_set_{sets}"))
        && set.is_dir()
    {
        let given = tensors(&set, "input")?;
        let inputs = graph.inputs.iter().filter_map(|&id| {
            let place = declared.iter().position(|&name| name == graph.value(id).name)?;
            Some((id, given.get(place)?.clone()))
        });
        let options = Options { precision, keep: Keep::Outputs, ..Options::default() };
        let run = plan.run(&inputs.collect(), &options).map_err(|e| e.to_string())?;
        let expected = tensors(&set, "output")?;
        if expected.is_empty() || expected.len() > graph.outputs.len() {
            return Err(format!(
                "{} outputs expected, the model has {}",
                expected.len(),
                graph.outputs.len()
            ));
        }
        for (&id, expected) in graph.outputs.iter().zip(&expected) {
            let name = &graph.value(id).name;
            let found = run.get(id).ok_or_else(|| format!("output {name:?} was not computed"))?;
            compare(found, expected, tolerance, precision).map_err(|e| format!("output {name:?}: {e}"))?;
        }
        sets += 1;
    }
    if sets == 0 { Err("no data set".into()) } else { Ok(()) }
}

fn tolerance(folder: &Path) -> Result<Tolerance, String> {
    let text = std::fs::read_to_string(folder.join("tolerance.txt")).map_err(|e| e.to_string())?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(relative)), Some(Ok(absolute))) => Ok(Tolerance { relative, absolute }),
        _ => Err(format!("tolerance.txt holds {text:?}, expected two numbers")),
    }
}

fn tensors(set: &Path, kind: &str) -> Result<Vec<Tensor>, String> {
    let mut found = vec![];
    while let path = set.join(format!("{kind}_{}.pb", found.len()))
        && path.is_file()
    {
        found.push(read_tensor_pb(&path).map_err(|e| format!("{kind}: {}", e.cause()))?.1);
    }
    Ok(found)
}

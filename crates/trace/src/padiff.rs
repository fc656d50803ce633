//! PaDiff's dumps: a folder with a description as JSON and a `.npy` file for each tensor.
//!
//! `dump_report` writes `report.json`, a tree of layers with the outputs of each and the gradients of its inputs;
//! `dump_params`, `dump_weights` and `dump_grads` write `params.json`, `weights.json` and `grads.json`. The paths in
//! them are those of the machine that wrote them; what is read is the file of that name in the folder of that name.

use std::path::{Component, Path, PathBuf};

use isotrace_onnx::file_bytes;
use isotrace_tensor::DType;

use crate::json::Json;
use crate::read::Contents;
use crate::source::{Entry, unique};
use crate::{TraceError, npy};

/// The descriptions that a dump may have.
const NAMES: [&str; 4] = ["report.json", "params.json", "weights.json", "grads.json"];

/// Layers within layers; networks have some tens.
const DEEPEST: usize = 200;

/// The tensors of a dump; `None` where the folder is none.
pub fn contents(folder: &Path) -> Result<Option<Contents>, TraceError> {
    let (mut found, mut notes, mut paddle) = (vec![], vec![], false);
    let mut dump = false;
    for name in NAMES {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let text = file_bytes(&path)?;
        let Ok(json) = serde_json::from_slice::<Json<'_>>(&text) else { continue };
        let (Some(framework), Some(tree)) =
            (json.field("framework").and_then(Json::text), json.field("tree"))
        else {
            continue;
        };
        dump = true;
        paddle |= framework == "paddle";
        let mut reader = Reader { folder, found: vec![], notes: vec![] };
        // A report has a list of layers, parameters have one.
        let layers = if let Json::List(list) = tree { list.as_slice() } else { std::slice::from_ref(tree) };
        for layer in layers {
            reader.layer(layer, 0).map_err(|e| e.in_file(&path))?;
        }
        found.append(&mut reader.found);
        notes.append(&mut reader.notes);
    }
    let entries = unique(found).map(|(name, path)| entry(name, path, paddle));
    Ok(dump.then(|| (entries.collect(), notes)))
}

struct Reader<'a> {
    folder: &'a Path,
    found: Vec<(String, PathBuf)>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn layer(&mut self, layer: &Json<'_>, depth: usize) -> Result<(), TraceError> {
        if depth > DEEPEST {
            return Err(TraceError::Bomb { problem: format!("layers more than {DEEPEST} deep") });
        }
        let text = |field: &str| layer.field(field).and_then(Json::text).filter(|t| !t.is_empty());
        let label = text("route").or_else(|| text("name")).unwrap_or("layer").to_owned();
        for (field, what) in [("fwd_outputs", "output"), ("bwd_grads", "grad")] {
            for (at, tensor) in layer.field(field).map(Json::list).unwrap_or_default().iter().enumerate() {
                self.tensor(format!("{label}:{what}.{at}"), tensor.field("path"));
            }
        }
        for (field, suffix) in [("weights", ""), ("grads", ":grad")] {
            for (name, path) in layer.field(field).map(Json::fields).unwrap_or_default() {
                // Parameters without a gradient have null in its place.
                if let Json::Text(_) = path {
                    self.tensor(format!("{label}.{name}{suffix}"), Some(path));
                }
            }
        }
        for child in layer.field("children").map(Json::list).unwrap_or_default() {
            self.layer(child, depth + 1)?;
        }
        Ok(())
    }

    fn tensor(&mut self, name: String, path: Option<&Json<'_>>) {
        let path = path.and_then(Json::text).unwrap_or_default().replace('\\', "/");
        // Only the last folder and the file: the rest belongs to another machine, or to nobody.
        let parts: Vec<Component<'_>> = Path::new(&path).components().collect();
        let file = match parts.as_slice() {
            [.., Component::Normal(inside), Component::Normal(file)] => Some(Path::new(inside).join(file)),
            _ => None,
        };
        match file.map(|f| self.folder.join(f)).filter(|f| f.is_file()) {
            Some(file) => self.found.push((name, file)),
            None => self.notes.push(format!("{name:?} was left aside: its file {path:?} is missing")),
        }
    }
}

fn entry(name: String, path: PathBuf, paddle: bool) -> Entry {
    let kept = name.clone();
    Entry::new(name, None, move || {
        let tensor = npy::read(&kept, &file_bytes(&path)?).map_err(|e| e.in_file(&path))?;
        // Paddle gives bfloat16 to NumPy as uint16.
        if paddle && tensor.dtype() == DType::U16 {
            return tensor
                .bit_cast(DType::BF16)
                .map_err(|cause| TraceError::Tensor { name: kept.clone(), cause });
        }
        Ok(tensor)
    })
}

//! Writing models, with external data where they are needed.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use crate::external::Location;
use crate::file::replace_file;
use crate::generated::onnx::tensor_proto::DataLocation;
use crate::generated::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use crate::{Model, OnnxError, WholePages, visit};

/// Tensors below this many bytes stay in the model file: shapes and axes are read there by every tool.
const SMALL: usize = 1024;

/// Where data start, so that readers can map them.
const ALIGNMENT: u64 = 4096;

/// Runs of zeros this long are left as holes in the file.
const HOLE: usize = 1 << 16;

/// Writes a model whose message may take up to `limit` bytes.
pub fn write(model: &Model, path: &Path, limit: u64) -> Result<(), OnnxError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let moves = !model.external.is_folder(folder) && has_external(model.proto())?;
    if !moves && model.proto().encoded_len() as u64 <= limit {
        let bytes = model.encode()?;
        return replace_file(path, |file| file.write_all(&bytes));
    }
    let mut proto = model.proto().clone();
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("model.onnx");
    let data_name = format!("{name}.data");
    // What is outside goes outside again; the rest follows only where the message would be too large.
    let mut plan = Plan::new(&data_name);
    visit::tensors_mut(&mut proto, &mut |tensor| plan.take(model, tensor, false))?;
    if proto.encoded_len() as u64 > limit {
        visit::tensors_mut(&mut proto, &mut |tensor| plan.take(model, tensor, true))?;
    }
    let size = proto.encoded_len() as u64;
    if size > limit {
        return Err(OnnxError::TooLarge { bytes: size }.in_file(path));
    }
    replace_file(&folder.join(&data_name), |file| plan.write(file))?;
    replace_file(path, |file| file.write_all(&proto.encode_to_vec()))
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

fn has_external(proto: &ModelProto) -> Result<bool, OnnxError> {
    let mut found = false;
    // The visitor is made for changes; a clone shares all weights.
    visit::tensors_mut(&mut proto.clone(), &mut |tensor| {
        found |= is_external(tensor);
        Ok(())
    })?;
    Ok(found)
}

/// What the data file will hold.
struct Plan<'a> {
    location: &'a str,
    pieces: Vec<(u64, Bytes)>,
    end: u64,
}

impl<'a> Plan<'a> {
    fn new(location: &'a str) -> Self {
        Self { location, pieces: vec![], end: 0 }
    }

    /// Moves a tensor's data into the plan: external ones, or with `inline` large ones in `raw_data`.
    fn take(&mut self, model: &Model, tensor: &mut TensorProto, inline: bool) -> Result<(), OnnxError> {
        let data = if inline {
            match tensor.raw_data.take_if(|raw| raw.len() >= SMALL) {
                Some(raw) => raw,
                None => return Ok(()),
            }
        } else if is_external(tensor) {
            let at = Location::parse(tensor.name(), &tensor.external_data)?;
            let needed = crate::tensor::stored_size(tensor)?;
            model.external.bytes(tensor.name(), &at, needed)?
        } else {
            return Ok(());
        };
        let start = self.end.next_multiple_of(ALIGNMENT);
        self.end = start + data.len() as u64;
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        tensor.raw_data = None;
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![
            entry("location", self.location.into()),
            entry("offset", start.to_string()),
            entry("length", data.len().to_string()),
        ];
        self.pieces.push((start, data));
        Ok(())
    }

    fn write(&self, file: &mut BufWriter<WholePages>) -> std::io::Result<()> {
        let zeros = vec![0u8; HOLE];
        let mut here = 0;
        for (start, data) in &self.pieces {
            let mut at = *start;
            for block in data.chunks(HOLE) {
                if *block != zeros[..block.len()] {
                    if here != at {
                        file.seek(SeekFrom::Start(at))?;
                    }
                    file.write_all(block)?;
                    here = at + block.len() as u64;
                }
                at += block.len() as u64;
            }
        }
        file.flush()?;
        file.get_ref().file().set_len(self.end)
    }
}

//! `isotrace convert`.

use std::path::Path;

use anyhow::{anyhow, bail};
use isotrace_inputs::nearest;
use isotrace_trace::{Format, Selection, Source, TraceError};

use crate::args::{self, Target};
use crate::console::{self, Console};
use crate::interrupt;
use crate::progress::Progress;

/// Writes the tensors of a source in another format.
pub fn run(args: &args::Convert, _console: Console) -> anyhow::Result<u8> {
    let source = isotrace_trace::open(&args.input)?;
    let names = wanted(&source, &args.only)?;
    if names.is_empty() {
        bail!("{} holds no tensors{}", args.input.display(), noted(&source));
    }
    let format = format(&args.output, args.to, names.len())?;
    let (progress, all) = (Progress::new(), names.len());
    let show = |done: usize| {
        progress.show("converting", done, all);
        !interrupt::asked()
    };
    let selection = Selection { source: &source, names, widen: args.widen, progress: Some(&show) };
    let written = {
        // An interrupt waits until what is half written has been removed.
        let _whole = interrupt::writing();
        isotrace_trace::write_tensors_as(&args.output, format, &selection)
    };
    progress.clear();
    written.map_err(|error| widening(error, args.widen))?;
    for note in source.notes().iter().filter(|note| note.limits()) {
        console::complain("warning:", &format!("{}: {note}", args.input.display()));
    }
    let tensors = if all == 1 { "1 tensor" } else { &format!("{all} tensors") };
    console::print(&format!("wrote {tensors} from a {} to {}\n", source.kind(), args.output.display()))?;
    Ok(0)
}

/// A narrow float has another way than another format.
fn widening(error: TraceError, widened: bool) -> anyhow::Error {
    let narrow = match error.cause() {
        TraceError::Inexpressible { dtype, .. } => dtype.is_float() && dtype.size() < 4 && !widened,
        _ => false,
    };
    if narrow { anyhow!("{error}, or give --widen to write it as f32") } else { error.into() }
}

fn noted(source: &Source) -> String {
    source.notes().iter().find(|note| note.limits()).map(|note| format!(": {note}")).unwrap_or_default()
}

/// The tensors of `--only`, all without it.
fn wanted<'a>(source: &'a Source, only: &'a [String]) -> anyhow::Result<Vec<&'a str>> {
    if only.is_empty() {
        return Ok(source.names().collect());
    }
    let known = |name: &'a String| {
        if source.contains(name) {
            return Ok(name.as_str());
        }
        let hint =
            nearest(name, source.names()).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        Err(anyhow!("--only {name:?} is no tensor of {}{hint}", source.path().display()))
    };
    only.iter().map(known).collect()
}

/// What to write: what was asked for, else what the ending says, else a folder of `.npy` files.
fn format(path: &Path, to: Option<Target>, count: usize) -> anyhow::Result<Format> {
    let one_file = |extension: &str| count == 1 && path.extension().is_some_and(|e| e == extension);
    Ok(match to {
        Some(Target::Safetensors) => Format::Safetensors,
        Some(Target::Pt) => Format::Torch,
        Some(Target::Npz) => Format::Npz,
        Some(Target::Npy) if one_file("npy") => Format::Npy,
        Some(Target::Npy) => Format::NpyFolder,
        Some(Target::Pb) if one_file("pb") => Format::Pb,
        Some(Target::Pb) => Format::PbFolder,
        Some(Target::Trace) => Format::Trace,
        Some(Target::Digest) => Format::Digest,
        Some(Target::Polygraphy) => Format::Polygraphy,
        Some(Target::Raw) => Format::Raw,
        None => match Format::by_extension(path) {
            Some(format) => format,
            None if path.extension().is_none() => Format::NpyFolder,
            None => bail!(
                "{}: the ending says no format to write; end it in .safetensors, .pt, .npz, .npy, .pb, .json, .bin or \
                 .trace, or say --to (see --help)",
                path.display()
            ),
        },
    })
}

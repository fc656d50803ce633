//! Which tensor of X stands against which of Y.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use isotrace_inputs::nearest;
use isotrace_trace::{Kind, Source};
use rustc_hash::FxHashMap;

/// A tensor of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub x: String,
    pub y: String,
}

/// Everything, paired or not.
#[derive(Debug, Default)]
pub struct Pairing {
    /// In the order of X.
    pub pairs: Vec<Pair>,
    /// Tensors that only X has.
    pub only_x: Vec<String>,
    /// Tensors that only Y has.
    pub only_y: Vec<String>,
}

/// By the names that `map` gives, else by equal names. Two files of one tensor each are a pair whatever its name.
pub fn pair(x: &Source, y: &Source, map: &[String]) -> anyhow::Result<Pairing> {
    let mut told: FxHashMap<String, String> = FxHashMap::default();
    for (from, to) in named(map)? {
        known(x, &from)?;
        known(y, &to)?;
        if let Some(other) = told.insert(from.clone(), to.clone()).filter(|o| *o != to) {
            bail!(
                "--map pairs {from:?} of {} with {other:?} and with {to:?}; it can have one partner",
                x.path().display()
            );
        }
    }
    let single = |s: &Source| s.len() == 1 && matches!(s.kind(), Kind::Npy | Kind::Pb);
    if told.is_empty() && single(x) && single(y) {
        let name = |s: &Source| s.names().next().unwrap_or_default().to_owned();
        return Ok(Pairing { pairs: vec![Pair { x: name(x), y: name(y) }], ..Pairing::default() });
    }
    let taken: rustc_hash::FxHashSet<&str> = told.values().map(String::as_str).collect();
    let mut out = Pairing::default();
    let mut used = rustc_hash::FxHashSet::default();
    for name in x.names() {
        let partner = told.get(name).cloned().or_else(|| {
            // A partner that was given to another name is no longer free.
            (y.contains(name) && !taken.contains(name)).then(|| name.to_owned())
        });
        match partner {
            Some(partner) => {
                used.insert(partner.clone());
                out.pairs.push(Pair { x: name.to_owned(), y: partner });
            }
            None => out.only_x.push(name.to_owned()),
        }
    }
    out.only_y = y.names().filter(|n| !used.contains(*n)).map(str::to_owned).collect();
    Ok(out)
}

/// What `--map` says: `X=Y`, or a file of JSON that maps names to names.
fn named(map: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for text in map {
        match text.split_once('=') {
            Some((x, y)) if !x.is_empty() && !y.is_empty() => out.push((x.to_owned(), y.to_owned())),
            Some(_) => bail!("--map {text:?}: expected X=Y, the name in X and the name in Y"),
            None => out.extend(from_file(Path::new(text))?),
        }
    }
    Ok(out)
}

fn from_file(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--map {}: neither X=Y nor a file that can be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("--map {}: expected a JSON object such as {{\"name in X\": \"name in Y\"}}", path.display())
    })
}

fn known(source: &Source, name: &str) -> anyhow::Result<()> {
    if source.contains(name) {
        return Ok(());
    }
    let hint = nearest(name, source.names()).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
    Err(anyhow!("--map: {name:?} is no tensor of {}{hint}", source.path().display()))
}

//! The lists by which nodes of tree ensembles tell their trees, as a [`Forest`].
//!
//! Files are hostile: every place that a list names is looked up, and a split that is reached twice (by a cycle, for
//! one) is refused, so that every walk ends.

use isotrace_graph::Node;
use isotrace_tensor::DType;
use rustc_hash::{FxHashMap, FxHashSet};

use super::tree::{Forest, Next, Split, Test};
use crate::{OpError, attributes};

/// Targets that trees may vote for.
const MOST_TARGETS: usize = 1 << 20;

fn wrong(problem: String) -> OpError {
    OpError::Setting(problem)
}

/// A list of floats: the attribute, or the one of the same name that holds a tensor. Whether it is stored in f64.
pub fn numbers(node: &Node, name: &str) -> Result<(Vec<f64>, bool), OpError> {
    let tensor = attributes::tensor(node, &format!("{name}_as_tensor"))?;
    match (tensor, attributes::floats(node, name)?) {
        (Some(tensor), None) => Ok((tensor.to_f64()?.into_owned(), tensor.dtype() == DType::F64)),
        (None, found) => Ok((found.unwrap_or_default().into_iter().map(f64::from).collect(), false)),
        (Some(_), Some(_)) => Err(wrong(format!("{name} is given twice, as numbers and as a tensor"))),
    }
}

fn ints(node: &Node, name: &str) -> Result<Vec<i64>, OpError> {
    Ok(attributes::ints(node, name)?.unwrap_or_default())
}

/// A tensor of a setting, as f64; whether it is stored in f64.
fn tensor(node: &Node, name: &str) -> Result<(Vec<f64>, bool), OpError> {
    let found = attributes::tensor(node, name)?.ok_or_else(|| wrong(format!("{name} is missing")))?;
    Ok((found.to_f64()?.into_owned(), found.dtype() == DType::F64))
}

/// The number of targets.
pub fn targets(node: &Node) -> Result<usize, OpError> {
    let found = attributes::int_or(node, "n_targets", 1)?;
    usize::try_from(found)
        .ok()
        .filter(|n| (1..=MOST_TARGETS).contains(n))
        .ok_or_else(|| wrong(format!("n_targets is {found}, 1 to {MOST_TARGETS} are supported")))
}

fn same_length(lists: &[(&str, usize)]) -> Result<usize, OpError> {
    let (first, len) = lists[0];
    match lists.iter().find(|l| l.1 != len) {
        None => Ok(len),
        Some((other, found)) => Err(wrong(format!("{first} holds {len} elements and {other} {found}"))),
    }
}

fn place(number: i64, len: usize, name: &str) -> Result<usize, OpError> {
    usize::try_from(number).ok().filter(|&i| i < len).ok_or_else(|| {
        wrong(format!("{name} names {number}, places from 0 to {} exist", len.saturating_sub(1)))
    })
}

/// A feature's place; X says later whether it exists.
fn feature(number: i64) -> Result<usize, OpError> {
    place(number, u32::MAX as usize, "nodes_featureids")
}

/// Checks that trees are trees, and finds their last feature.
fn checked(mut forest: Forest) -> Result<Forest, OpError> {
    let mut seen = vec![false; forest.splits.len()];
    let mut open = forest.roots.clone();
    while let Some(at) = open.pop() {
        let Next::Split(i) = at else { continue };
        if std::mem::replace(&mut seen[i], true) {
            return Err(wrong(format!("the split at place {i} is reached in two ways, so there is no tree")));
        }
        let split = &forest.splits[i];
        forest.features = forest.features.max(split.feature + 1);
        open.extend([split.yes, split.no]);
    }
    match seen.iter().position(|&seen| !seen) {
        Some(lost) => Err(wrong(format!("the split at place {lost} belongs to no tree, or leads to itself"))),
        None => Ok(forest),
    }
}

/// Trees of TreeEnsembleRegressor and TreeEnsembleClassifier: nodes by the ids of their tree and their own. Votes are in the
/// lists whose names begin with `votes`.
pub fn by_ids(node: &Node, votes: &str, targets: usize) -> Result<Forest, OpError> {
    let [trees, ids, features, yes, no] =
        ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"]
            .map(|name| ints(node, name));
    let (trees, ids, features, yes, no) = (trees?, ids?, features?, yes?, no?);
    let modes = attributes::texts(node, "nodes_modes")?.unwrap_or_default();
    let (values, wide) = numbers(node, "nodes_values")?;
    let len = same_length(&[
        ("nodes_modes", modes.len()),
        ("nodes_treeids", trees.len()),
        ("nodes_nodeids", ids.len()),
        ("nodes_featureids", features.len()),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_values", values.len()),
    ])?;
    let missing = ints(node, "nodes_missing_value_tracks_true")?;
    let mut places = FxHashMap::default();
    for (i, id) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        if places.insert(id, i).is_some() {
            return Err(wrong(format!("node {} of tree {} is there twice", id.1, id.0)));
        }
    }
    let find = |tree: i64, id: i64| {
        places.get(&(tree, id)).copied().ok_or_else(|| wrong(format!("node {id} of tree {tree} is missing")))
    };
    // Splits and leaves have places of their own.
    let mut kinds = Vec::with_capacity(len);
    let (mut count, mut leaves) = (0, 0);
    for mode in &modes {
        let counter = if mode == "LEAF" { &mut leaves } else { &mut count };
        kinds.push(if mode == "LEAF" { Next::Leaf(*counter) } else { Next::Split(*counter) });
        *counter += 1;
    }
    let mut splits = Vec::with_capacity(count);
    let mut children = FxHashSet::default();
    for i in (0..len).filter(|&i| modes[i] != "LEAF") {
        let value = values[i];
        let test = match modes[i].as_str() {
            "BRANCH_LEQ" => Test::AtMost(value),
            "BRANCH_LT" => Test::Below(value),
            "BRANCH_GTE" => Test::AtLeast(value),
            "BRANCH_GT" => Test::Above(value),
            "BRANCH_EQ" => Test::Equal(value),
            "BRANCH_NEQ" => Test::Other(value),
            other => {
                return Err(wrong(format!(
                    "nodes_modes holds {other:?}; ONNX defines BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, \
                     BRANCH_NEQ and LEAF"
                )));
            }
        };
        let (yes, no) = (find(trees[i], yes[i])?, find(trees[i], no[i])?);
        children.extend([yes, no]);
        let missing = missing.get(i).is_some_and(|&m| m == 1);
        splits.push(Split { feature: feature(features[i])?, test, yes: kinds[yes], no: kinds[no], missing });
    }
    // A tree's root is the one node that no other leads to.
    let mut roots = Vec::new();
    let mut rooted = FxHashSet::default();
    for i in (0..len).filter(|i| !children.contains(i)) {
        if !rooted.insert(trees[i]) {
            return Err(wrong(format!("tree {} has two roots: node {} is one of them", trees[i], ids[i])));
        }
        roots.push(kinds[i]);
    }
    if let Some(tree) = trees.iter().find(|t| !rooted.contains(t)) {
        return Err(wrong(format!("tree {tree} has no root: its nodes lead to each other")));
    }

    let list = |what: &str| format!("{votes}_{what}");
    let (of_trees, of_nodes) = (ints(node, &list("treeids"))?, ints(node, &list("nodeids"))?);
    let (of_targets, (weights, wide_weights)) = (ints(node, &list("ids"))?, numbers(node, &list("weights"))?);
    same_length(&[
        (list("treeids").as_str(), of_trees.len()),
        (list("nodeids").as_str(), of_nodes.len()),
        (list("ids").as_str(), of_targets.len()),
        (list("weights").as_str(), weights.len()),
    ])?;
    let mut of_leaves: Vec<Vec<(usize, f64)>> = vec![Vec::new(); leaves];
    for (i, &weight) in weights.iter().enumerate() {
        let target = place(of_targets[i], targets, &list("ids"))?;
        // Some exporters list votes of inner nodes, which nobody counts.
        if let Next::Leaf(leaf) = kinds[find(of_trees[i], of_nodes[i])?] {
            of_leaves[leaf].push((target, weight));
        }
    }
    let mut votes = Vec::with_capacity(weights.len());
    let mut leaves = Vec::with_capacity(of_leaves.len());
    for leaf in of_leaves {
        let start = votes.len();
        votes.extend(leaf);
        leaves.push(start..votes.len());
    }
    let wide = wide || wide_weights;
    checked(Forest { splits, leaves, votes, members: Vec::new(), roots, targets, features: 0, wide })
}

/// Trees of TreeEnsemble: nodes and leaves by their places in two groups of lists.
pub fn by_places(node: &Node) -> Result<Forest, OpError> {
    let [features, yes, no, yes_leaf, no_leaf] = [
        "nodes_featureids",
        "nodes_truenodeids",
        "nodes_falsenodeids",
        "nodes_trueleafs",
        "nodes_falseleafs",
    ]
    .map(|name| ints(node, name));
    let (features, yes, no, yes_leaf, no_leaf) = (features?, yes?, no?, yes_leaf?, no_leaf?);
    let (modes, _) = tensor(node, "nodes_modes")?;
    let (values, wide) = tensor(node, "nodes_splits")?;
    let count = same_length(&[
        ("nodes_modes", modes.len()),
        ("nodes_featureids", features.len()),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_trueleafs", yes_leaf.len()),
        ("nodes_falseleafs", no_leaf.len()),
        ("nodes_splits", values.len()),
    ])?;
    let missing = ints(node, "nodes_missing_value_tracks_true")?;
    let targets = targets(node)?;
    let (weights, wide_weights) = tensor(node, "leaf_weights")?;
    let of_targets = ints(node, "leaf_targetids")?;
    same_length(&[("leaf_weights", weights.len()), ("leaf_targetids", of_targets.len())])?;
    let votes: Vec<(usize, f64)> = weights
        .iter()
        .zip(&of_targets)
        .map(|(&weight, &target)| Ok((place(target, targets, "leaf_targetids")?, weight)))
        .collect::<Result<_, OpError>>()?;
    let leaves: Vec<_> = (0..votes.len()).map(|i| i..i + 1).collect();
    let next = |number: i64, leaf: i64, name: &str| {
        Ok::<_, OpError>(if leaf == 0 {
            Next::Split(place(number, count, name)?)
        } else {
            Next::Leaf(place(number, leaves.len(), name)?)
        })
    };
    // Sets of members lie one behind the other, each with a NaN at its end.
    let members = match attributes::tensor(node, "membership_values")? {
        Some(members) => members.to_f64()?.into_owned(),
        None => Vec::new(),
    };
    let mut rest = 0;
    let mut splits = Vec::with_capacity(count);
    for i in 0..count {
        let value = values[i];
        let test = match modes[i] as u8 {
            0 => Test::AtMost(value),
            1 => Test::Below(value),
            2 => Test::AtLeast(value),
            3 => Test::Above(value),
            4 => Test::Equal(value),
            5 => Test::Other(value),
            6 => {
                let end = members[rest..].iter().position(|m| m.is_nan());
                let end = end.map_or(members.len(), |n| rest + n);
                let set = rest..end;
                rest = (end + 1).min(members.len());
                Test::Member(set)
            }
            other => {
                return Err(wrong(format!("nodes_modes holds {other}, ONNX defines 0 to 6")));
            }
        };
        splits.push(Split {
            feature: feature(features[i])?,
            test,
            yes: next(yes[i], yes_leaf[i], "nodes_truenodeids")?,
            no: next(no[i], no_leaf[i], "nodes_falsenodeids")?,
            missing: missing.get(i).is_some_and(|&m| m == 1),
        });
    }
    let roots = ints(node, "tree_roots")?;
    let roots = roots.iter().map(|&r| Ok(Next::Split(place(r, count, "tree_roots")?)));
    let roots = roots.collect::<Result<_, OpError>>()?;
    let wide = wide || wide_weights;
    checked(Forest { splits, leaves, votes, members, roots, targets, features: 0, wide })
}

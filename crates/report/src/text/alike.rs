//! Culprits that are one mistake in several places: a fault in the source of a layer is in every layer.

use crate::{Culprit, Region};

/// Culprits with those that are like them but for names, each group where its first stands.
pub fn groups(culprits: &[Culprit]) -> Vec<(&Culprit, Vec<&Culprit>)> {
    let mut groups: Vec<(Likeness<'_>, &Culprit, Vec<&Culprit>)> = Vec::new();
    for culprit in culprits {
        let own = Likeness::of(culprit);
        match groups.iter_mut().find(|(likeness, ..)| *likeness == own) {
            Some((.., others)) => others.push(culprit),
            None => groups.push((own, culprit, Vec::new())),
        }
    }
    groups.into_iter().map(|(_, first, others)| (first, others)).collect()
}

/// What is the same of two culprits that are one mistake: all that is said of them but names.
#[derive(PartialEq)]
struct Likeness<'c> {
    class: &'c str,
    side: crate::CulpritSide,
    ops: [&'c [String]; 2],
    summary: String,
    proven: bool,
}

impl<'c> Likeness<'c> {
    fn of(culprit: &'c Culprit) -> Self {
        let Culprit { side, a, b, cause, .. } = culprit;
        Self {
            class: &cause.class,
            side: *side,
            ops: [&a.ops, &b.ops],
            summary: without_names(&cause.summary, [a, b]),
            proven: cause.counterfactual.is_some(),
        }
    }
}

/// A sentence without the names of a culprit's nodes and values, and without whatever else stands in quotes.
fn without_names(summary: &str, regions: [&Region; 2]) -> String {
    let mut names: Vec<&str> =
        regions.iter().flat_map(|r| r.nodes.iter().chain(&r.outputs)).map(String::as_str).collect();
    // A name may begin with another one.
    names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
    let mut bare: String = summary.split('"').step_by(2).collect();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        bare = bare.replace(name, "");
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, CulpritSide};

    fn culprit(rank: usize, node: &str, class: &str, summary: &str) -> Culprit {
        let region = Region {
            nodes: vec![node.into()],
            ops: vec!["Clip".into()],
            outputs: vec![format!("{node}_out")],
        };
        let cause = Cause {
            class: class.into(),
            summary: summary.into(),
            evidence: Vec::new(),
            counterfactual: None,
            nearest: Vec::new(),
        };
        Culprit { rank, side: CulpritSide::Neither, a: Region::default(), b: region, cause }
    }

    #[test]
    fn a_mistake_in_every_layer_is_one_group() {
        let culprits = [
            culprit(
                1,
                "layer.1/clip",
                "scale",
                "Clip layer.1/clip reads \"most\", 6, where A's \"top\" is 7",
            ),
            culprit(
                2,
                "layer.1/clip.2",
                "scale",
                "Clip layer.1/clip.2 reads \"most.2\", 6, where A's \"top\" is 7",
            ),
            culprit(
                3,
                "layer.2/clip",
                "scale",
                "Clip layer.2/clip reads \"most\", 5, where A's \"top\" is 7",
            ),
            culprit(4, "layer.3/clip", "mask", "Clip layer.3/clip reads \"most\", 6, where A's \"top\" is 7"),
            culprit(
                5,
                "layer.4/clip",
                "scale",
                "Clip layer.4/clip reads \"most\", 6, where A's \"top\" is 7",
            ),
        ];
        let ranks: Vec<(usize, Vec<usize>)> = groups(&culprits)
            .into_iter()
            .map(|(first, others)| (first.rank, others.iter().map(|c| c.rank).collect()))
            .collect();
        assert_eq!(ranks, [(1, vec![2, 5]), (3, vec![]), (4, vec![])]);
    }
}

//! Names for people: quoted lists, and the name somebody may have meant.

/// `"a", "b" and 3 more`, or `none`.
pub(crate) fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    const SHOWN: usize = 24;
    let names: Vec<String> = names.into_iter().map(|n| format!("{:?}", n.as_ref())).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}

/// The candidate that takes the fewest edits, if it takes no more than a third of the name's length.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = candidates
        .into_iter()
        .map(|c| (distance(&name.to_lowercase(), &c.to_lowercase()), c))
        .min_by_key(|&(d, _)| d)?;
    let allowed = (name.chars().count() / 3).max(1);
    (found.0 <= allowed).then_some(found.1)
}

/// `; did you mean "x"?`, or nothing.
pub(crate) fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default()
}

/// Levenshtein's distance: insertions, deletions and replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["input_ids", "attention_mask"];
        let cases = [
            ("inputs_ids", Some("input_ids")),
            ("Attention_Mask", Some("attention_mask")),
            ("x", None),
            ("pixel_values", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
        assert_eq!(nearest("x", ["y"]), Some("y"));
        assert_eq!(nearest("x", []), None);
    }
}

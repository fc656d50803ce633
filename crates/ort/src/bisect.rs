//! Which items of a set bring an effect about.

/// The items without which the effect does not show, in the order of their places; none where the whole set does not
/// show it.
///
/// `shows` says whether a subset of `0..count` shows it; the empty set is taken not to. One item after the other is
/// found by halving: the shortest run of items, added to those already found, that shows the effect ends in an item
/// that is needed. When the found ones show it by themselves they are set aside, and what remains is searched again, so
/// that causes independent of each other are all found. With m items to find this asks about m log2(count) times.
///
/// Nothing is assumed of how items work together: each answer that the search relies on was given for that very set.
pub fn responsible<E>(
    count: usize,
    shows: &mut dyn FnMut(&[usize]) -> Result<bool, E>,
) -> Result<Vec<usize>, E> {
    let mut rest: Vec<usize> = (0..count).collect();
    let mut found = Vec::new();
    while !rest.is_empty() && shows(&rest)? {
        let group = one_group(&rest, shows)?;
        rest.retain(|i| !group.contains(i));
        found.extend(group);
    }
    found.sort_unstable();
    Ok(found)
}

/// A set that shows the effect, out of one that does. Every item but the last found was needed when it was found.
fn one_group<E>(
    items: &[usize],
    shows: &mut dyn FnMut(&[usize]) -> Result<bool, E>,
) -> Result<Vec<usize>, E> {
    let mut group = Vec::new();
    let mut end = items.len();
    loop {
        // The effect shows with the group and items[..end], and does not with the group and items[..start].
        let mut start = 0;
        while end - start > 1 {
            let middle = start + (end - start) / 2;
            let asked: Vec<usize> = group.iter().chain(&items[..middle]).copied().collect();
            if shows(&asked)? {
                end = middle;
            } else {
                start = middle;
            }
        }
        group.push(items[end - 1]);
        end -= 1;
        if end == 0 || shows(&group)? {
            return Ok(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A runner whose final outputs change when all of some group of values are emitted.
    fn run(count: usize, groups: &[&[usize]]) -> (Vec<usize>, usize) {
        let mut asked = 0;
        let mut shows = |set: &[usize]| -> Result<bool, Infallible> {
            asked += 1;
            Ok(groups.iter().any(|g| g.iter().all(|i| set.contains(i))))
        };
        let Ok(found) = responsible(count, &mut shows);
        (found, asked)
    }

    #[test]
    fn the_values_that_matter_are_found_and_no_others() {
        type Places = &'static [usize];
        // (values, what changes the outputs, expected)
        let cases: [(usize, &[Places], Places); 8] = [
            (0, &[], &[]),
            (100, &[], &[]),
            (1, &[&[0]], &[0]),
            (100, &[&[0]], &[0]),
            (100, &[&[99]], &[99]),
            (100, &[&[17], &[63]], &[17, 63]),
            (100, &[&[17, 63]], &[17, 63]),
            (1000, &[&[3, 500, 999], &[42]], &[3, 42, 500, 999]),
        ];
        for (count, groups, expected) in cases {
            let (found, asked) = run(count, groups);
            assert_eq!(found, expected, "{groups:?} of {count}");
            let bound = 2 + expected.len() * (count.max(2).ilog2() as usize + 3);
            assert!(asked <= bound, "{asked} runs for {groups:?} of {count}, at most {bound}");
        }
    }

    #[test]
    fn an_effect_that_more_values_hide_again_is_still_found() {
        // Shows with 5, unless 2 is there too; and with everything.
        let mut shows = |set: &[usize]| -> Result<bool, Infallible> {
            Ok(set.len() == 10 || set.contains(&5) && !set.contains(&2))
        };
        let Ok(found) = responsible(10, &mut shows);
        assert!(found.contains(&9) || found.contains(&5), "{found:?}");
    }

    #[test]
    fn an_error_of_the_runner_ends_the_search() {
        let mut shows = |set: &[usize]| if set.len() < 8 { Err("no memory") } else { Ok(true) };
        assert_eq!(responsible(8, &mut shows), Err("no memory"));
    }
}

//! What all pairs together say.

use isotrace_report::{Role, Verdict};
use rustc_hash::FxHashSet;

use super::culprit::{parting, place};
use super::judge::{Findings, Found};
use super::pair::unlike;
use super::view::{Call, View};

/// The recorded side and what was found of its values.
pub struct Recorded<'v> {
    view: &'v View,
    of: Findings,
    /// Arrays by name were given by whoever called, not by modules.
    pub arrays: bool,
    /// Values that calls gave.
    given: FxHashSet<usize>,
    /// The first call whose outputs part.
    pub parted: Option<&'v Call>,
}

impl<'v> Recorded<'v> {
    pub fn new(view: &'v View, of: Findings) -> Self {
        let arrays = view.calls.iter().all(|c| c.class == "mapping");
        let of_calls = view.calls.iter().flat_map(|c| &c.outputs).copied();
        let by_themselves =
            (0..view.values.len()).filter(|&i| arrays && view.values[i].role != Some(Role::Input));
        let given = of_calls.chain(by_themselves).collect();
        let parted = parting(view, &of);
        Self { view, of, arrays, given, parted }
    }

    /// Names of values that calls gave and that have no partner.
    pub fn missing(&self) -> Vec<String> {
        let missing = |i: &usize| self.given.contains(i) && !self.of.contains_key(i);
        (0..self.view.values.len()).filter(missing).map(|i| self.view.values[i].name.clone()).collect()
    }

    fn any(&self, wanted: Found) -> bool {
        self.of.values().any(|found| *found == wanted)
    }

    /// Whether anything but inputs was compared.
    fn compared(&self) -> bool {
        self.of.keys().any(|i| self.view.values[*i].role != Some(Role::Input))
    }

    fn parts_at_an_output(&self) -> bool {
        let is_output = |i: &usize| self.view.values[*i].role == Some(Role::Output);
        self.of.iter().any(|(i, found)| is_output(i) && *found == Found::Beyond)
    }

    /// Whether a final output has no partner, or there is none.
    fn lacks_an_output(&self) -> bool {
        let values = self.view.values.iter().enumerate();
        let mut outputs = values.filter(|(_, v)| v.role == Some(Role::Output)).peekable();
        outputs.peek().is_none() || outputs.any(|(i, _)| !self.of.contains_key(&i))
    }

    /// What was there to be compared.
    fn told(&self, a: &View, b: &View) -> String {
        let (all, missing) = (self.given.len(), self.missing().len());
        format!(
            "{} of {}: {} of {all} have a partner, and no operator could be replayed",
            if self.arrays { "arrays alone were given" } else { "outputs of modules alone were recorded" },
            match (a.modules, b.modules) {
                (true, true) => "both",
                (true, false) => "A",
                _ => "B",
            },
            all - missing,
        )
    }

    /// The verdict and why. `alone` says that a single operator made something else of the same bits.
    pub fn conclude(&self, a: &View, b: &View, alone: bool) -> (Verdict, String) {
        let unlike = unlike(a, b);
        let seen = self.told(a, b);
        let seen = match unlike.as_slice() {
            [] => seen,
            [(_, one)] => format!("{one}; {seen}"),
            [(_, one), more @ ..] => format!("{one}, and {} more do not fit; {seen}", more.len()),
        };
        // Where the inputs are no match, outputs say nothing.
        let is = |wanted: Role| unlike.iter().any(|(role, _)| *role == Some(wanted));
        let lost = self.lacks_an_output();
        let (verdict, by, beside) = if is(Role::Output) && !is(Role::Input) {
            return (
                Verdict::Divergent,
                format!("a final output cannot be held against its partner: {seen}"),
            );
        } else if !self.compared() {
            (Verdict::Invalid, "nothing could be compared", false)
        } else if self.parts_at_an_output() || lost && self.any(Found::Beyond) {
            (Verdict::Divergent, "final outputs are farther apart than rounding brings them", true)
        } else if alone {
            let by = "a module that both sides gave the same bits gives values that are farther apart than one operator's rounding brings them";
            (Verdict::Divergent, by, true)
        } else if self.any(Found::Beyond) {
            let by = "final outputs agree, but values on the way are farther apart than rounding brings them";
            (Verdict::Divergent, by, true)
        } else if self.any(Found::Unknown) {
            let by =
                "bits differ, and digests do not say by how much; record both with keeps=\"both\" to know";
            (Verdict::Inconclusive, by, true)
        } else if self.any(Found::Unclear) {
            let by = "values are farther apart than rounding brings most networks, and nearer than a fault certainly does; record operators of one side to know";
            (Verdict::Inconclusive, by, true)
        } else if lost {
            (Verdict::Inconclusive, "a final output has no partner", true)
        } else if !self.any(Found::Within) && self.missing().is_empty() {
            (Verdict::Identical, "every value that has a partner is the same bits", false)
        } else {
            let by = "every value that has a partner is as near to it as rounding explains, which is the weaker evidence";
            (Verdict::Equivalent, by, false)
        };
        let parted = self.parted.filter(|_| beside);
        let first =
            parted.map_or(String::new(), |c| format!("; {} is the first whose outputs part", place(c)));
        (verdict, format!("{by}{first}; {seen}"))
    }
}

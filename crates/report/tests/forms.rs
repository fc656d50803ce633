//! Every form of one report that has something of everything.

mod common;

use common::sample;
use isotrace_report::{Relation, Report, Verdict, json, sbs, text};

#[test]
fn text_at_eighty_columns() {
    let text = text::render(&sample(), text::Options { width: 80, colour: false, all: false });
    insta::assert_snapshot!(text);
    for line in text.lines().filter(|l| !l.starts_with("  a  ")) {
        assert!(line.chars().count() <= 80, "{line:?} is too long");
    }
}

#[test]
fn text_at_hundred_and_twenty_columns_with_every_row() {
    insta::assert_snapshot!(text::render(&sample(), text::Options { width: 120, colour: false, all: true }));
}

#[test]
fn colour_only_where_asked() {
    let plain = text::render(&sample(), text::Options { width: 80, colour: false, all: true });
    let painted = text::render(&sample(), text::Options { width: 80, colour: true, all: true });
    assert!(!plain.contains('\u{1b}'));
    assert!(painted.starts_with("\u{1b}[1m\u{1b}[31mdivergent: \u{1b}[0m"), "{painted:?}");
    let mut bare = String::new();
    let mut rest = painted.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(bare + rest, plain, "colour changes nothing else");
}

#[test]
fn names_in_a_file_cannot_write_to_the_terminal() {
    let mut report = sample();
    report.pairs[3].a = Some("\u{1b}[2Jgone".into());
    report.culprits[0].a.nodes[0] = "\u{1b}]0;title\u{7}".into();
    report.listing.a[3].name = "\u{1b}[2Jgone".into();
    for text in [text::render(&report, text::Options::default()), sbs::render(&report, sbs::CELL)] {
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
    }
}

#[test]
fn json_form() {
    insta::assert_snapshot!(json::render(&Report { pairs: sample().pairs[4..6].to_vec(), ..sample() }));
}

#[test]
fn json_reads_back_what_it_wrote() {
    let mut report = sample();
    let back = json::parse(&json::render(&report)).unwrap();
    // NaN is not equal to itself.
    let nan = report.pairs[5].metrics.max_abs.take();
    let mut same = back.clone();
    assert!(nan.unwrap().is_nan() && same.pairs[5].metrics.max_abs.take().unwrap().is_nan());
    same.listing.clone_from(&report.listing);
    assert_eq!(same, report);
}

#[test]
fn json_of_others_is_refused_and_of_successors_read() {
    let text = json::render(&sample());
    let later = text.replacen("\"schema\"", "\"novelty\": {\"x\": [1]}, \"schema\"", 1);
    let later = later.replace("\"permuted\"", "\"woven\"");
    assert_eq!(json::parse(&later).unwrap().pairs[4].relation, Relation::Other);
    let cases = [
        ("", "this is not an isotrace report"),
        ("{\"schema\": \"isotrace.report/1\"}", "missing field `verdict`"),
        (
            "{\"schema\": \"isotrace.report/2\"}",
            "found schema \"isotrace.report/2\", expected \"isotrace.report/1\"",
        ),
        (&text.replace("\"nan\"", "\"many\""), "found the text \"many\" where a number is expected"),
    ];
    for (given, expected) in cases {
        let error = json::parse(given).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn rows_of_onnx_array_api() {
    insta::assert_snapshot!(sbs::render(&sample(), sbs::CELL));
}

#[test]
fn exit_statuses() {
    use Verdict::{Divergent, Equivalent, Identical, Inconclusive, Invalid};
    let codes = [Identical, Equivalent, Divergent, Invalid, Inconclusive].map(Verdict::exit_code);
    assert_eq!(codes, [0, 0, 1, 3, 3]);
}

//! A writer that is killed at any moment leaves every finished shard, and the reader says what is missing.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use common::{Random, SMALL, child, given, header, record, tensor};
use isotrace_trace::trace::{Options, Writer};
use isotrace_trace::{Trace, TraceError};

/// Writers killed.
const ROUNDS: u64 = 300;

/// Values after which a writer is killed at the latest, or soon after.
const AT_MOST: u64 = 40;

/// Values until a writer says that everything so far is safe.
const BETWEEN: u64 = 9;

/// The writer: records until it is killed, and says what it has recorded.
#[test]
#[ignore = "the other test starts it"]
fn writer() {
    let Some(folder) = given() else { return };
    let mut out = std::io::stdout();
    let mut say = |what: &str, i: u64| {
        out.write_all(format!("\n{what} {i}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    say("begins", 0);
    let mut writer = Writer::create(folder, &header(), SMALL).unwrap();
    say("created", 0);
    for i in 0.. {
        record(&mut writer, i).unwrap();
        say("recorded", i + 1);
        if i % BETWEEN == BETWEEN - 1 {
            writer.flush().unwrap();
            say("safe", i + 1);
        }
    }
}

/// What a killed writer had said.
#[derive(Default)]
struct Said {
    created: bool,
    recorded: u64,
    safe: u64,
}

impl Said {
    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("created", _)) => self.created = true,
            Some(("recorded", count)) => self.recorded = count.parse().unwrap(),
            Some(("safe", count)) => self.safe = count.parse().unwrap(),
            _ => {}
        }
    }
}

#[test]
fn a_killed_writer_loses_only_what_it_had_not_finished() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(20_261_121);
    let (mut lost, mut cut_before, mut with_temporary, mut shards) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let path = folder.path().join(round.to_string());
        let mut process = child("writer", &path).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Most are killed at work, some while they begin.
        let begun = if random.below(8) > 0 { "created 0" } else { "begins 0" };
        lines.by_ref().map_while(Result::ok).find(|line| line == begun).unwrap();
        let mut said = Said { created: begun == "created 0", ..Said::default() };
        // At some value, which a slow machine reaches as well, and somewhere between it and the next few.
        let enough = if said.created { random.below(AT_MOST) } else { 0 };
        while said.recorded < enough {
            said.hear(&lines.next().unwrap().unwrap());
        }
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
        process.kill().unwrap();
        process.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| said.hear(&line));
        let files: Vec<String> = std::fs::read_dir(&path)
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        with_temporary += usize::from(files.iter().any(|f| f.contains(".tmp")));
        let trace = match Trace::open(&path) {
            Ok(trace) => trace,
            Err(error) => {
                assert!(!said.created, "round {round}: {error}");
                cut_before += 1;
                continue;
            }
        };
        let values = trace.values();
        assert!(values.len() as u64 >= said.recorded, "round {round}: a record is lost");
        assert!(trace.missing().unfinished);
        // Every value whose shard has its name is there, bit for bit; every other one is listed as missing.
        for (at, (value, read)) in trace.tensors().enumerate() {
            let shard = value.data.as_ref().unwrap().shard;
            let finished = files.contains(&format!("data-{shard:04}.safetensors"));
            assert_eq!(!trace.missing().values.contains(&at), finished, "round {round}, value {at}");
            match read {
                Ok(read) => assert!(read.bit_eq(&tensor(at as u64)), "round {round}, value {at}"),
                Err(error) => {
                    assert!(!finished && at as u64 >= said.safe, "round {round}, value {at}: {error}");
                    assert!(error.to_string().contains("missing"), "{error}");
                    lost += 1;
                }
            }
        }
        let finished = files.iter().filter(|f| f.ends_with(".safetensors")).count();
        shards += finished;
        for shard in 0..finished as u32 {
            assert!(!trace.shard_keys(shard).unwrap().is_empty(), "round {round}, shard {shard}");
        }
        let source = isotrace_trace::open(&path).unwrap();
        assert_eq!(source.len(), values.len() - trace.missing().values.len());
        assert!(source.notes()[0].text.contains("did not finish"), "{:?}", source.notes());
        if round % 10 == 0 {
            go_on(&path, &trace);
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
    // The moments have to be spread over all that can be interrupted, or the test shows little.
    assert!(lost > ROUNDS as usize / 2, "only {lost} values were lost");
    assert!(shards > ROUNDS as usize, "only {shards} shards were finished");
    assert!(cut_before < ROUNDS as usize / 4, "{cut_before} writers had not begun");
    writeln!(
        std::io::stdout(),
        "{shards} shards finished, {lost} values lost, {with_temporary} shards cut, {cut_before} not begun"
    )
    .unwrap();
}

/// A killed recording can be continued: what was lost stays lost, what comes is kept.
fn go_on(path: &std::path::Path, before: &Trace) {
    let mut writer = Writer::append(path, Options::default()).unwrap();
    let busy = Writer::append(path, Options::default());
    assert!(matches!(busy.map(|_| ()), Err(TraceError::Busy { .. })));
    let id = record(&mut writer, 7).unwrap();
    writer.finish().unwrap();
    let after = Trace::open(path).unwrap();
    assert!(before.by_id(id).is_none() && after.tensor(after.by_id(id).unwrap()).unwrap().bit_eq(&tensor(7)));
    assert_eq!(after.values().len(), before.values().len() + 1);
    assert_eq!(after.missing().values, before.missing().values);
    assert!(!after.missing().unfinished);
    let left =
        std::fs::read_dir(path).unwrap().any(|e| e.unwrap().path().extension().is_some_and(|e| e == "tmp"));
    assert!(!left, "what a killed writer left is removed");
}

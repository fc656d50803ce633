//! What the tests of traces share: tensors that a number describes, and this test program started again as a writer.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::process::Command;

use isotrace_tensor::Tensor;
use isotrace_trace::TraceError;
use isotrace_trace::trace::record::{Header, Producer, Role, Value};
use isotrace_trace::trace::{Options, Writer};

/// A generator of numbers that look random and repeat (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The tensor that a writer of these tests records as its `i`th.
pub fn tensor(i: u64) -> Tensor {
    let mut random = Random(i);
    let count = random.below(3000) as usize;
    Tensor::vector((0..count).map(|_| random.next() as f32).collect())
}

pub fn header() -> Header {
    Header { producer: Producer { name: "test".into(), version: "1".into() }, ..Header::default() }
}

/// Shards of some kilobytes.
pub const SMALL: Options = Options { shard_bytes: 50_000 };

/// Records the `i`th tensor.
pub fn record(writer: &mut Writer, i: u64) -> Result<u64, TraceError> {
    writer.value(Value::new(format!("v{i}"), Role::Intermediate), &tensor(i))
}

/// This program, to run only its test `name`, with a folder to write to.
pub fn child(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("ISOTRACE_TEST_FOLDER", folder);
    command
}

/// The folder that the parent gave; `None` where nobody did.
pub fn given() -> Option<std::path::PathBuf> {
    std::env::var_os("ISOTRACE_TEST_FOLDER").map(Into::into)
}

//! The speed of comparing two tensors, against a plain read of the same memory.
//!
//!     cargo run --release -p isotrace-compare --example speed [MiB a side] [type]

#![expect(clippy::print_stdout, reason = "what a program for the command line is for")]

use std::hint::black_box;
use std::time::Instant;

use isotrace_compare::compare;
use isotrace_tensor::{Element, Tensor, bf16, f16};
use rayon::prelude::*;

/// Bytes that a thread takes at once.
const CHUNK: usize = 1 << 18;
/// Runs, of which the fastest counts.
const RUNS: usize = 7;

/// Reads both and does next to nothing with them.
fn read(a: &[u8], b: &[u8]) -> u64 {
    let one = |(a, b): (&[u8], &[u8])| {
        let (a, b): (&[u64], &[u64]) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
        let mut lanes = [0u64; 32];
        for (x, y) in a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0) {
            for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
                *lane ^= x ^ y;
            }
        }
        lanes.iter().fold(0, |a, b| a ^ b)
    };
    a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).map(one).reduce(|| 0, |a, b| a ^ b)
}

/// Seconds of the fastest run.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    std::iter::repeat_n((), RUNS).map(time).fold(f64::INFINITY, f64::min)
}

/// From -0.5 to 0.5, by a hash of the place.
fn noise(i: usize) -> f64 {
    ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24) - 0.5
}

fn value(i: usize) -> f64 {
    2.0 * (noise(i) + noise(i.wrapping_mul(31) + 7) + noise(i ^ 0x5555_5555))
}

/// One type: numbers, and others that are about `apart` of them away.
fn case<T: Element>(bytes: usize, apart: f64, of: impl Fn(f64) -> T) {
    let n = bytes / size_of::<T>();
    let a = Tensor::vector((0..n).map(|i| of(value(i))).collect());
    let b = Tensor::vector(
        (0..n).map(|i| of(value(i) * (1.0 + apart * noise(i + 99)) + 1e-5 * apart * noise(i * 3))).collect(),
    );
    let plain = best(|| {
        black_box(read(a.bytes(), b.bytes()));
    });
    let full = best(|| {
        black_box(compare(&a, &b).expect("both have one shape"));
    });
    let speed = |seconds: f64| 2.0 * bytes as f64 / seconds / 1e9;
    println!(
        "{:5} read {:6.1} GB/s  compare {:6.1} GB/s  {:5.1} %",
        T::DTYPE.name(),
        speed(plain),
        speed(full),
        100.0 * plain / full
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    let bytes =
        args.next().map_or(512, |mib| mib.parse().expect("the first argument is a number of MiB")) << 20;
    let only = args.next();
    let wanted = |name: &str| only.as_deref().is_none_or(|o| o == name);
    if wanted("f32") {
        case(bytes, 1e-6, |x| x as f32);
    }
    if wanted("f64") {
        case(bytes, 1e-12, |x| x);
    }
    if wanted("f16") {
        case(bytes, 2e-3, f16::from_f64);
    }
    if wanted("bf16") {
        case(bytes, 1e-2, bf16::from_f64);
    }
}

//! The speed of comparing two tensors, against a plain read of the same memory.
//!
//!     cargo run --release -p isotrace-compare --example speed [MiB a side] [what]
//!
//! `what` is a type (`f32`, `f64`, `f16`, `bf16`, `i32`), `judged` for tensors held against the tolerances of torch
//! (of one type, if that is said as well), `small` for a thousand tensors of 64 KiB, or `views` for permuted ones; all of it where nothing is said. Every line begins with its name and has a number that carries over from one
//! machine to another. Runs alternate between what is compared, so that load of the machine falls on both alike, and
//! ratios are medians over the rounds.

#![expect(clippy::print_stdout, reason = "what a program for the command line is for")]

use std::hint::black_box;
use std::time::Instant;

use isotrace_compare::{Real, Rule, Tolerance, compare, compare_views, judge};
use isotrace_tensor::{Element, Tensor, View, bf16, f16};
use rayon::prelude::*;

/// Bytes that a thread takes at once.
const CHUNK: usize = 1 << 18;
/// Rounds of which the median counts, after one to warm up.
const ROUNDS: usize = 11;

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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Median seconds of two jobs that alternate, and the median of first over second.
fn alternate(mut one: impl FnMut(), mut other: impl FnMut()) -> [f64; 3] {
    let time = |job: &mut dyn FnMut()| {
        let start = Instant::now();
        job();
        start.elapsed().as_secs_f64()
    };
    let mut rounds: Vec<[f64; 2]> = (0..=ROUNDS).map(|_| [time(&mut one), time(&mut other)]).collect();
    rounds.remove(0);
    let of = |f: fn(&[f64; 2]) -> f64| median(rounds.iter().map(f).collect());
    [of(|r| r[0]), of(|r| r[1]), of(|r| r[0] / r[1])]
}

/// From -0.5 to 0.5, by a hash of the place.
fn noise(i: usize) -> f64 {
    ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24) - 0.5
}

fn value(i: usize) -> f64 {
    2.0 * (noise(i) + noise(i.wrapping_mul(31) + 7) + noise(i ^ 0x5555_5555))
}

/// Numbers, and others that are about `apart` of them away. Making them touches every page.
fn pair<T: Element>(n: usize, apart: f64, of: impl Fn(f64) -> T + Sync) -> [Vec<T>; 2] {
    let near = |i: usize| value(i) * (1.0 + apart * noise(i + 99)) + 1e-5 * apart * noise(i * 3);
    let (mut a, mut b) = (vec![of(0.0); n], vec![of(0.0); n]);
    a.par_iter_mut().enumerate().for_each(|(i, x)| *x = of(value(i)));
    b.par_iter_mut().enumerate().for_each(|(i, y)| *y = of(near(i)));
    [a, b]
}

/// GB/s at which two tensors of so many bytes are gone through.
fn speed(bytes: usize, seconds: f64) -> f64 {
    2.0 * bytes as f64 / seconds / 1e9
}

/// The times of a plain read of both, of `work`, and their ratio.
fn beside_read(a: &Tensor, b: &Tensor, work: impl FnMut()) -> [f64; 3] {
    let plain = || {
        black_box(read(a.bytes(), b.bytes()));
    };
    alternate(plain, work)
}

/// Two tensors of one type against a read of both.
fn case<T: Element>(bytes: usize, apart: f64, of: impl Fn(f64) -> T + Sync) {
    let [a, b] = pair(bytes / size_of::<T>(), apart, of).map(Tensor::vector);
    let [plain, full, ratio] = beside_read(&a, &b, || {
        black_box(compare(&a, &b).expect("both have one shape"));
    });
    println!(
        "{:5} read {:6.1} GB/s  compare {:6.1} GB/s  {:5.1} %",
        T::DTYPE.name(),
        speed(bytes, plain),
        speed(bytes, full),
        100.0 * ratio
    );
}

/// Held against what torch allows: where everything is within it, where much is not, and where nothing is alike.
fn judged<T: Element>(bytes: usize, of: impl Fn(f64) -> T + Sync) {
    let tolerance = Tolerance::default_of(Rule::Torch, T::DTYPE, T::DTYPE);
    let cases = [("within", 0.5), ("about as far", 2.0), ("far beyond", 50.0), ("unlike", f64::INFINITY)];
    for (name, apart) in cases {
        let [a, b] = if apart.is_finite() {
            pair(bytes / size_of::<T>(), apart * tolerance.rtol, &of)
        } else {
            let [a, mut b] = pair(bytes / size_of::<T>(), 0.0, &of);
            b.rotate_left(12345);
            [a, b]
        };
        let (a, b) = (Tensor::vector(a), Tensor::vector(b));
        let mut beyond = 0;
        let [plain, full, ratio] = beside_read(&a, &b, || {
            beyond = judge(&a, &b, &tolerance).expect("both have one shape").1.beyond;
        });
        let [_, _, unjudged] = beside_read(&a, &b, || {
            black_box(compare(&a, &b).expect("both have one shape"));
        });
        println!(
            "judged {:4} {name:13} {:5.1} % beyond  read {:6.1} GB/s  judged {:6.1} GB/s  {:5.1} %  compared {:5.1} %",
            T::DTYPE.name(),
            100.0 * beyond as f64 / a.len() as f64,
            speed(bytes, plain),
            speed(bytes, full),
            100.0 * ratio,
            100.0 * unjudged
        );
    }
}

/// A thousand tensors of 64 KiB, one after the other.
fn small() {
    const COUNT: usize = 1000;
    const LEN: usize = (64 << 10) / size_of::<f32>();
    let [a, b] = pair(COUNT * LEN, 1e-6, |x| x as f32);
    let tensors = |data: &[f32]| -> Vec<Tensor> {
        data.chunks_exact(LEN).map(|part| Tensor::vector(part.to_vec())).collect()
    };
    let (a, b) = (tensors(&a), tensors(&b));
    let [plain, full, _] = alternate(
        || {
            for (x, y) in a.iter().zip(&b) {
                black_box(read(x.bytes(), y.bytes()));
            }
        },
        || {
            for (x, y) in a.iter().zip(&b) {
                black_box(compare(x, y).expect("both have one shape"));
            }
        },
    );
    println!("small read {:6.1} ms    compare {:6.1} ms", 1e3 * plain, 1e3 * full);
}

/// A permuted view against a contiguous one, and both contiguous.
fn views<T: Element + Real>(bytes: usize, apart: f64, of: impl Fn(f64) -> T + Sync) {
    let n = bytes / size_of::<T>() / (12 * 64 * 64) * (12 * 64 * 64);
    let [a, b] = pair(n, apart, of);
    let side = n / (12 * 64);
    // The layouts between which frameworks really permute.
    let cases: [(&str, Vec<usize>, Vec<usize>); 4] = [
        ("matrix transposed", vec![n / 4096, 4096], vec![1, 0]),
        ("NCHW as NHWC", vec![side / 64, 12 * 64, 8, 8], vec![0, 2, 3, 1]),
        ("heads before rows", vec![side / 64, 64, 12, 64], vec![0, 2, 1, 3]),
        ("axes reversed", vec![side / 64, 64, 12, 64], vec![3, 2, 1, 0]),
    ];
    for (name, shape, perm) in cases {
        let view = View::new(&a, &shape).permute(&perm);
        let target: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        // What stands against the view are its own numbers, nearly, as somebody would store them in its order.
        let turned = View::new(&b, &shape).permute(&perm).to_vec();
        let run = |x: &View<'_, T>, y: &[T]| {
            black_box(compare_views(x, &View::new(y, &target)).expect("both have one shape"));
        };
        let straight = View::new(&a, &target);
        let [plain, permuted, ratio] = alternate(|| run(&straight, &b), || run(&view, &turned));
        let speed = |seconds: f64| 2.0 * bytes as f64 / seconds / 1e9;
        println!(
            "view  {:4} {name:18} contiguous {:6.1} GB/s  permuted {:6.1} GB/s  {:5.1} %",
            T::DTYPE.name(),
            speed(plain),
            speed(permuted),
            100.0 * ratio
        );
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let bytes =
        args.next().map_or(512, |mib| mib.parse().expect("the first argument is a number of MiB")) << 20;
    let (only, dtype) = (args.next(), args.next());
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
    if wanted("i32") {
        case(bytes, 1e-3, |x| (1000.0 * x) as i32);
    }
    if wanted("judged") {
        let of_type = |name: &str| dtype.as_deref().is_none_or(|d| d == name);
        if of_type("f32") {
            judged(bytes, |x| x as f32);
        }
        if of_type("f64") {
            judged(bytes, |x| x);
        }
        if of_type("f16") {
            judged(bytes, f16::from_f64);
        }
        if of_type("bf16") {
            judged(bytes, bf16::from_f64);
        }
    }
    if wanted("small") {
        small();
    }
    if wanted("views") {
        views(bytes / 4, 1e-6, |x| x as f32);
        views(bytes / 4, 2e-3, f16::from_f64);
    }
}

//! Speed against a plain read of the same memory.
#![allow(clippy::print_stdout)]
use isotrace_tensor::{Tensor, bf16, f16};
use std::time::Instant;

fn read(a: &[u8], b: &[u8]) -> u64 {
    let (a, b): (&[u64], &[u64]) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
    let mut lanes = [0u64; 32];
    for (x, y) in a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0) {
        for l in 0..32 {
            lanes[l] ^= x[l] ^ y[l];
        }
    }
    lanes.iter().fold(0, |a, b| a ^ b)
}

fn two_streams(a: &[u8], b: &[u8]) -> u64 {
    const CHUNK: usize = 1 << 18;
    use rayon::prelude::*;
    a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).map(|(a, b)| read(a, b)).reduce(|| 0, |a, b| a ^ b)
}

fn best(mut f: impl FnMut()) -> f64 {
    (0..std::env::var("REPS").map_or(7, |s| s.parse().unwrap()))
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let mib: usize = std::env::args().nth(1).map_or(512, |s| s.parse().unwrap());
    let only = std::env::args().nth(2);
    let bytes = mib << 20;
    let noise = |i: usize| {
        let h = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((h >> 40) as f64 / (1u64 << 24) as f64) - 0.5
    };
    let value = |i: usize| (noise(i) + noise(i.wrapping_mul(31) + 7) + noise(i ^ 0x5555_5555)) * 2.0;
    macro_rules! case {
        ($name:literal, $t:ty, $size:literal, $of:expr, $eps:expr) => {
            if only.as_deref().is_none_or(|o| o == $name) {
            let n = bytes / $size;
            let a: Vec<$t> = (0..n).map(|i| $of(value(i))).collect();
            let b: Vec<$t> = (0..n).map(|i| $of(value(i) * (1.0 + $eps * noise(i + 99)) + 1e-5 * $eps * noise(i * 3))).collect();
            let (a, b) = (Tensor::vector(a), Tensor::vector(b));
            let read = best(|| { std::hint::black_box(two_streams(a.bytes(), b.bytes())); });
            let full = best(|| { std::hint::black_box(isotrace_compare::compare(&a, &b).unwrap()); });
            let m = isotrace_compare::compare(&a, &b).unwrap();
            println!("{:5} read {:6.1} GB/s  compare {:6.1} GB/s  {:5.1} %   max_abs {:e} rel {:e} ulp {:?} cos {}", $name, 2.0 * bytes as f64 / read / 1e9, 2.0 * bytes as f64 / full / 1e9, 100.0 * read / full, m.max_abs, m.max_rel, m.max_ulp, m.cosine);
            }
        };
    }
    case!("f32", f32, 4, |x| x as f32, 1e-6);
    case!("f64", f64, 8, |x| x, 1e-12);
    case!("f16", f16, 2, f16::from_f64, 2e-3);
    case!("bf16", bf16, 2, bf16::from_f64, 1e-2);
}

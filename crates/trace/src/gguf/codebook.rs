//! Blocks whose elements are looked up in a codebook, four or eight at a time (the IQ types).
//!
//! The codebooks are part of the format: the points of lattices that its authors chose. `codebooks.bin` holds them as
//! places in the short lists below, packed; `tests/golden/gguf_files.py` writes it from the tables of the package
//! `gguf`. Signs come apart from the magnitudes, seven of eight as they are and the eighth so that their number is
//! even.

use super::blocks::{half, word};

static CODEBOOKS: &[u8] = include_bytes!("codebooks.bin");

/// The magnitudes of the types of about two bits.
const TWO: [f32; 4] = [8.0, 25.0, 43.0, 0.0];
/// Those of IQ3_XXS.
const THREE_XXS: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
/// Those of IQ3_S.
const THREE_S: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
/// The values of the types of about one bit.
const ONE: [f32; 4] = [-1.0, 0.0, 1.0, 0.0];

/// Where each codebook begins, in bytes.
const IQ2_XXS: usize = 0;
const IQ2_XS: usize = IQ2_XXS + 256 * 2;
const IQ2_S: usize = IQ2_XS + 512 * 2;
const IQ1: usize = IQ2_S + 1024 * 2;
const IQ3_XXS: usize = IQ1 + 2048 * 2;
const IQ3_S: usize = IQ3_XXS + 256 * 2;

/// The `j`th of eight places in a list, two bits each.
fn of_eight(book: usize, entry: usize, j: usize) -> usize {
    usize::from(CODEBOOKS[book + entry * 2 + j / 4] >> (2 * (j % 4)) & 3)
}

/// The `j`th of four places in a list, four bits each.
fn of_four(book: usize, entry: usize, j: usize) -> usize {
    usize::from(CODEBOOKS[book + entry * 2 + j / 2] >> (4 * (j % 2)) & 7)
}

/// Signs of eight elements, from the seven that are stored.
fn signs(stored: u32) -> u8 {
    let seven = (stored & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

fn signed(x: f32, signs: u8, j: usize) -> f32 {
    if signs >> j & 1 == 1 { -x } else { x }
}

fn nibble(bytes: &[u8], at: usize) -> f32 {
    f32::from(bytes[at / 2] >> (4 * (at % 2)) & 15)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]])
}

pub fn iq2_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (g, group) in out.chunks_exact_mut(32).enumerate() {
        let entries = &b[2 + 8 * g..];
        let rest = word(&entries[4..]);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
        for (l, eight) in group.chunks_exact_mut(8).enumerate() {
            let signs = signs(rest >> (7 * l));
            for (j, y) in eight.iter_mut().enumerate() {
                *y = signed(scale * TWO[of_eight(IQ2_XXS, usize::from(entries[l]), j)], signs, j);
            }
        }
    }
}

pub fn iq2_xs(b: &[u8], out: &mut [f32]) {
    let (d, scales) = (half(b), &b[66..]);
    for (k, eight) in out.chunks_exact_mut(8).enumerate() {
        let entry = short(&b[2..], k);
        let scale = d * (0.5 + nibble(scales, k / 2)) * 0.25;
        let signs = signs(u32::from(entry >> 9));
        for (j, y) in eight.iter_mut().enumerate() {
            *y = signed(scale * TWO[of_eight(IQ2_XS, usize::from(entry & 511), j)], signs, j);
        }
    }
}

pub fn iq2_s(b: &[u8], out: &mut [f32]) {
    let (d, low, signs, high, scales) = (half(b), &b[2..34], &b[34..66], &b[66..74], &b[74..]);
    for (k, eight) in out.chunks_exact_mut(8).enumerate() {
        let entry = usize::from(low[k]) | usize::from(high[k / 4] >> (2 * (k % 4)) & 3) << 8;
        let scale = d * (0.5 + nibble(scales, k / 2)) * 0.25;
        for (j, y) in eight.iter_mut().enumerate() {
            *y = signed(scale * TWO[of_eight(IQ2_S, entry, j)], signs[k], j);
        }
    }
}

pub fn iq3_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (g, group) in out.chunks_exact_mut(32).enumerate() {
        let rest = word(&b[66 + 4 * g..]);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
        for (e, y) in group.iter_mut().enumerate() {
            let entry = usize::from(b[2 + 8 * g + e / 4]);
            *y = signed(
                scale * THREE_XXS[of_four(IQ3_XXS, entry, e % 4)],
                signs(rest >> (7 * (e / 8))),
                e % 8,
            );
        }
    }
}

pub fn iq3_s(b: &[u8], out: &mut [f32]) {
    let (d, low, high, signs, scales) = (half(b), &b[2..66], &b[66..74], &b[74..106], &b[106..]);
    for (k, four) in out.chunks_exact_mut(4).enumerate() {
        let entry = usize::from(low[k]) | usize::from(high[k / 8] >> (k % 8) & 1) << 8;
        let scale = d * (1.0 + 2.0 * nibble(scales, k / 8));
        for (j, y) in four.iter_mut().enumerate() {
            *y = signed(scale * THREE_S[of_four(IQ3_S, entry, j)], signs[k / 2], k % 2 * 4 + j);
        }
    }
}

/// What the types of about one bit add to each element of a codebook.
fn shift(negative: bool) -> f32 {
    if negative { -0.125 } else { 0.125 }
}

pub fn iq1_s(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (k, eight) in out.chunks_exact_mut(8).enumerate() {
        let high = short(&b[34..], k / 4);
        let entry = usize::from(b[2 + k]) | usize::from(high >> (3 * (k % 4)) & 7) << 8;
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        for (j, y) in eight.iter_mut().enumerate() {
            *y = scale * (ONE[of_eight(IQ1, entry, j)] + shift(high & 0x8000 != 0));
        }
    }
}

pub fn iq1_m(b: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&b[..32], &b[32..48], &b[48..56]);
    // The four highest bits of each word of scales together are the scale of all.
    let bits = (0..4).fold(0u16, |d, i| d | (short(scales, i) & 0xf000) >> (12 - 4 * i));
    let d = half(&bits.to_le_bytes());
    for (k, eight) in out.chunks_exact_mut(8).enumerate() {
        let rest = high[k / 2] >> (4 * (k % 2));
        let entry = usize::from(low[k]) | usize::from(rest & 7) << 8;
        let scale = short(scales, k / 8) >> (3 * (k / 2 % 4)) & 7;
        let scale = d * f32::from(2 * scale + 1);
        for (j, y) in eight.iter_mut().enumerate() {
            *y = scale * (ONE[of_eight(IQ1, entry, j)] + shift(rest & 8 != 0));
        }
    }
}

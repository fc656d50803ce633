//! Blocks of numbers as GGUF files store them, to f32.
//!
//! A block shares one or more scales. The value of an element is computed in f32, product by product in the order of
//! the reference (ggml's `dequantize_row_*`, and the package `gguf`), so that every bit agrees with it.

use isotrace_tensor::f16;

use super::codebook;

/// A stored type: how many elements a block has, how many bytes it takes, and how to read it.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    pub name: &'static str,
    pub elements: usize,
    pub bytes: usize,
    /// Reads a block of `bytes` into `elements` numbers.
    pub read: fn(&[u8], &mut [f32]),
}

const fn block(name: &'static str, elements: usize, bytes: usize, read: fn(&[u8], &mut [f32])) -> Block {
    Block { name, elements, bytes, read }
}

/// Elements of a superblock.
pub const SUPER: usize = 256;

/// The stored type behind GGUF's number for it, where its elements come in blocks.
pub fn by_number(number: u32) -> Option<Block> {
    Some(match number {
        2 => block("Q4_0", 32, 18, q4_0),
        3 => block("Q4_1", 32, 20, q4_1),
        6 => block("Q5_0", 32, 22, q5_0),
        7 => block("Q5_1", 32, 24, q5_1),
        8 => block("Q8_0", 32, 34, q8_0),
        // Made for products on the way, and with a sum that its elements do not need.
        9 => block("Q8_1", 32, 36, q8_1),
        10 => block("Q2_K", SUPER, 84, q2_k),
        11 => block("Q3_K", SUPER, 110, q3_k),
        12 => block("Q4_K", SUPER, 144, q4_k),
        13 => block("Q5_K", SUPER, 176, q5_k),
        14 => block("Q6_K", SUPER, 210, q6_k),
        15 => block("Q8_K", SUPER, 292, q8_k),
        16 => block("IQ2_XXS", SUPER, 66, codebook::iq2_xxs),
        17 => block("IQ2_XS", SUPER, 74, codebook::iq2_xs),
        18 => block("IQ3_XXS", SUPER, 98, codebook::iq3_xxs),
        19 => block("IQ1_S", SUPER, 50, codebook::iq1_s),
        20 => block("IQ4_NL", 32, 18, iq4_nl),
        21 => block("IQ3_S", SUPER, 110, codebook::iq3_s),
        22 => block("IQ2_S", SUPER, 82, codebook::iq2_s),
        23 => block("IQ4_XS", SUPER, 136, iq4_xs),
        29 => block("IQ1_M", SUPER, 56, codebook::iq1_m),
        34 => block("TQ1_0", SUPER, 54, tq1_0),
        35 => block("TQ2_0", SUPER, 66, tq2_0),
        39 => block("MXFP4", 32, 17, mxfp4),
        40 => block("NVFP4", 64, 36, nvfp4),
        41 => block("Q1_0", 128, 18, q1_0),
        _ => return None,
    })
}

/// A scale: f16, little-endian.
pub fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

pub fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The low or high four bits.
fn nibble(byte: u8, high: bool) -> u8 {
    if high { byte >> 4 } else { byte & 15 }
}

/// Four bits of 32 elements in 16 bytes: the first half in the low bits.
fn nibbles(qs: &[u8], e: usize) -> u8 {
    nibble(qs[e % 16], e >= 16)
}

fn q4_0(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * (f32::from(nibbles(&b[2..], e)) - 8.0);
    }
}

fn q4_1(b: &[u8], out: &mut [f32]) {
    let (d, m) = (half(b), half(&b[2..]));
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * f32::from(nibbles(&b[4..], e)) + m;
    }
}

/// Five bits: four as above, the fifth of all elements in one word.
fn fifths(high: u32, qs: &[u8], e: usize) -> u8 {
    nibbles(qs, e) | ((high >> e & 1) << 4) as u8
}

fn q5_0(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b), word(&b[2..]));
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * (f32::from(fifths(high, &b[6..], e)) - 16.0);
    }
}

fn q5_1(b: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half(b), half(&b[2..]), word(&b[4..]));
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * f32::from(fifths(high, &b[8..], e)) + m;
    }
}

fn q8_0(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (y, &q) in out.iter_mut().zip(&b[2..]) {
        *y = d * f32::from(q as i8);
    }
}

fn q8_1(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (y, &q) in out.iter_mut().zip(&b[4..]) {
        *y = d * f32::from(q as i8);
    }
}

/// Two bits of 256 elements in 64 bytes: 32 bytes hold elements 32 apart, the first in the lowest bits.
fn pair(qs: &[u8], e: usize) -> u8 {
    qs[e / 128 * 32 + e % 32] >> (2 * (e % 128 / 32)) & 3
}

fn q2_k(b: &[u8], out: &mut [f32]) {
    let (scales, qs) = (&b[..16], &b[16..80]);
    let (d, m) = (half(&b[80..]), half(&b[82..]));
    for (e, y) in out.iter_mut().enumerate() {
        let scale = scales[e / 16];
        *y = d * f32::from(scale & 15) * f32::from(pair(qs, e)) - m * f32::from(scale >> 4);
    }
}

fn q3_k(b: &[u8], out: &mut [f32]) {
    let (high, qs, scales) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half(&b[108..]);
    for (e, y) in out.iter_mut().enumerate() {
        let g = e / 16;
        let scale = nibble(scales[g % 8], g >= 8) | (scales[8 + g % 4] >> (2 * (g / 4)) & 3) << 4;
        // The third bit says that nothing is taken away.
        let q = i16::from(pair(qs, e)) - if high[e % 32] >> (e / 32) & 1 == 1 { 0 } else { 4 };
        *y = d * (f32::from(scale) - 32.0) * f32::from(q);
    }
}

/// Scale and minimum of the `g`th 32 elements, six bits each, of eight such in 12 bytes.
fn scale_and_minimum(scales: &[u8], g: usize) -> (f32, f32) {
    let (scale, minimum) = if g < 4 {
        (scales[g] & 63, scales[g + 4] & 63)
    } else {
        let low = scales[g + 4];
        (low & 15 | scales[g - 4] >> 6 << 4, low >> 4 | scales[g] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Four bits of 256 elements in 128 bytes: 32 bytes hold elements 32 apart.
fn quad(qs: &[u8], e: usize) -> u8 {
    nibble(qs[e / 64 * 32 + e % 32], e % 64 >= 32)
}

fn q4_k(b: &[u8], out: &mut [f32]) {
    let (d, m) = (half(b), half(&b[2..]));
    for (g, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&b[4..16], g);
        for (j, y) in group.iter_mut().enumerate() {
            *y = d * scale * f32::from(quad(&b[16..], g * 32 + j)) - m * minimum;
        }
    }
}

fn q5_k(b: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half(b), half(&b[2..]), &b[16..48]);
    for (g, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&b[4..16], g);
        for (j, y) in group.iter_mut().enumerate() {
            let q = quad(&b[48..], g * 32 + j) | (high[j] >> g & 1) << 4;
            *y = d * scale * f32::from(q) - m * minimum;
        }
    }
}

fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half(&b[208..]);
    for (e, y) in out.iter_mut().enumerate() {
        let q = nibble(low[e / 128 * 64 + e % 64], e % 128 >= 64) | pair(high, e) << 4;
        *y = d * f32::from(scales[e / 16] as i8) * (f32::from(q) - 32.0);
    }
}

fn q8_k(b: &[u8], out: &mut [f32]) {
    let d = f32::from_bits(word(b));
    for (y, &q) in out.iter_mut().zip(&b[4..260]) {
        *y = d * f32::from(q as i8);
    }
}

/// The sixteen values of the non-linear types.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn iq4_nl(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * f32::from(NON_LINEAR[usize::from(nibbles(&b[2..], e))]);
    }
}

fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b), u16::from_le_bytes([b[2], b[3]]));
    for (g, group) in out.chunks_exact_mut(32).enumerate() {
        let scale = nibble(b[4 + g / 2], g % 2 == 1) | ((high >> (2 * g) & 3) << 4) as u8;
        let scale = d * (f32::from(scale) - 32.0);
        let qs = &b[8 + 16 * g..];
        for (e, y) in group.iter_mut().enumerate() {
            *y = scale * f32::from(NON_LINEAR[usize::from(nibbles(qs, e))]);
        }
    }
}

/// Digits of base 3, five a byte: a byte is the fraction that they make, times 256, rounded up.
fn tq1_0(b: &[u8], out: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let d = half(&b[52..]);
    let digit = |byte: u8, power: u8| ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
    for (e, y) in out.iter_mut().enumerate() {
        let q = match e {
            0..160 => digit(b[e % 32], POWERS[e / 32]),
            160..240 => digit(b[32 + (e - 160) % 16], POWERS[(e - 160) / 16]),
            _ => digit(b[48 + (e - 240) % 4], POWERS[(e - 240) / 4]),
        };
        *y = d * (f32::from(q) - 1.0);
    }
}

fn tq2_0(b: &[u8], out: &mut [f32]) {
    let d = half(&b[64..]);
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * (f32::from(pair(b, e)) - 1.0);
    }
}

/// Twice the values of a 4-bit float with 2 bits of exponent.
const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn mxfp4(b: &[u8], out: &mut [f32]) {
    // Half a power of two; the two smallest are subnormal.
    let d = match b[0] {
        e @ 0..2 => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits(u32::from(e - 1) << 23),
    };
    for (e, y) in out.iter_mut().enumerate() {
        *y = d * f32::from(FP4[usize::from(nibbles(&b[1..], e))]);
    }
}

fn nvfp4(b: &[u8], out: &mut [f32]) {
    for (g, group) in out.chunks_exact_mut(16).enumerate() {
        // Half of an 8-bit float with 4 bits of exponent and no sign.
        let x = b[g];
        let (exponent, mantissa) = (i32::from(x >> 3 & 15), f32::from(x & 7));
        let d = match (x, exponent) {
            (0 | 0x7f, _) => 0.0,
            (_, 0) => mantissa / 512.0 * 0.5,
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) * 0.5,
        };
        let qs = &b[4 + 8 * g..];
        for (e, y) in group.iter_mut().enumerate() {
            *y = d * f32::from(FP4[usize::from(nibble(qs[e % 8], e >= 8))]);
        }
    }
}

fn q1_0(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (e, y) in out.iter_mut().enumerate() {
        *y = if b[2 + e / 8] >> (e % 8) & 1 == 1 { d } else { -d };
    }
}

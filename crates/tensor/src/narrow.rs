//! Floats of 8 and 4 bits: their bits to f64 and back, exact and correctly rounded (nearest, ties to even).
//!
//! Formats as in the OCP microscaling specification 1.0 and the ONNX documents "Float stored in 8 bits" and
//! "Float stored in 4 bits"; the `FNUZ` variants as in Noune et al. 2022.

use crate::element::{F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0};

/// A format by its numbers. Codes below `nan_from` (sign bit cleared) are finite and ordered by value.
struct Format {
    mantissa: u32,
    bias: i32,
    /// Sign position.
    sign: u32,
    /// Largest finite code without its sign.
    largest: u8,
    /// Code of infinity where there is one.
    infinity: Option<u8>,
    nan: Option<u8>,
    /// The code of minus zero is NaN (the FNUZ formats).
    unsigned_zero: bool,
}

const E4M3FN: Format = Format {
    mantissa: 3,
    bias: 7,
    sign: 7,
    largest: 0x7e,
    infinity: None,
    nan: Some(0x7f),
    unsigned_zero: false,
};
const E4M3FNUZ: Format = Format {
    mantissa: 3,
    bias: 8,
    sign: 7,
    largest: 0x7f,
    infinity: None,
    nan: Some(0x80),
    unsigned_zero: true,
};
const E5M2: Format = Format {
    mantissa: 2,
    bias: 15,
    sign: 7,
    largest: 0x7b,
    infinity: Some(0x7c),
    nan: Some(0x7f),
    unsigned_zero: false,
};
const E5M2FNUZ: Format = Format {
    mantissa: 2,
    bias: 16,
    sign: 7,
    largest: 0x7f,
    infinity: None,
    nan: Some(0x80),
    unsigned_zero: true,
};
const E2M1: Format =
    Format { mantissa: 1, bias: 1, sign: 3, largest: 0x07, infinity: None, nan: None, unsigned_zero: false };

impl Format {
    fn decode(&self, code: u8) -> f64 {
        let negative = code >> self.sign & 1 == 1;
        let magnitude = code & ((1u8 << self.sign) - 1);
        if self.unsigned_zero && negative && magnitude == 0 {
            return f64::NAN;
        }
        let value = if magnitude <= self.largest {
            self.magnitude(magnitude)
        } else if self.infinity == Some(magnitude) {
            f64::INFINITY
        } else {
            f64::NAN
        };
        if negative { -value } else { value }
    }

    fn magnitude(&self, code: u8) -> f64 {
        let exponent = i32::from(code >> self.mantissa);
        let fraction = f64::from(code & ((1 << self.mantissa) - 1)) / f64::from(1u32 << self.mantissa);
        if exponent == 0 {
            fraction * 2f64.powi(1 - self.bias)
        } else {
            (1.0 + fraction) * 2f64.powi(exponent - self.bias)
        }
    }

    fn encode(&self, value: f64, saturate: bool) -> u8 {
        let sign = if value.is_sign_negative() { 1u8 << self.sign } else { 0 };
        if value.is_nan() {
            return self.nan.map_or(sign | self.largest, |n| if self.unsigned_zero { n } else { sign | n });
        }
        let size = value.abs();
        // Codes are ordered by value, so the nearest is found by halving; ties go to the even code.
        let (mut low, mut high) = (0u8, self.largest);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.magnitude(middle) <= size { low = middle } else { high = middle }
        }
        let (below, above) = (self.magnitude(low), self.magnitude(high));
        let nearest = match (size - below).total_cmp(&(above - size)) {
            std::cmp::Ordering::Less => low,
            std::cmp::Ordering::Greater => high,
            std::cmp::Ordering::Equal => low + (low & 1),
        };
        // Half a step above the largest number rounds away from it: where it would go the format overflows.
        let step = above - below;
        let overflows = size > above + step / 2.0 || (size == above + step / 2.0 && self.largest & 1 == 1);
        if overflows && !saturate {
            return match (self.infinity, self.nan) {
                (Some(infinity), _) => sign | infinity,
                (None, Some(nan)) => {
                    if self.unsigned_zero {
                        nan
                    } else {
                        sign | nan
                    }
                }
                (None, None) => sign | self.largest,
            };
        }
        if size.is_infinite() && !saturate {
            return sign | self.infinity.unwrap_or(self.largest);
        }
        if nearest == 0 && self.unsigned_zero { 0 } else { sign | nearest }
    }
}

/// Which power of two stands for a number between two of them (ONNX Cast's `round_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleRounding {
    /// The next larger power.
    #[default]
    Up,
    /// The next smaller power.
    Down,
    /// The nearest power, ties upwards.
    Nearest,
}

pub(crate) fn encode_e8m0(value: f64, mode: ScaleRounding, saturate: bool) -> u8 {
    if value.is_nan() || value < 0.0 {
        return 0xff;
    }
    if value == 0.0 {
        return 0;
    }
    let limit = if saturate { 0xfeu8 } else { 0xff };
    if value.is_infinite() {
        return limit;
    }
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let fraction = bits & ((1 << 52) - 1);
    let up = match mode {
        ScaleRounding::Up => fraction != 0,
        ScaleRounding::Down => false,
        ScaleRounding::Nearest => fraction >= 1 << 51,
    };
    exponent += i32::from(up);
    (exponent + 127).clamp(0, i32::from(limit)) as u8
}

macro_rules! formats {
    ($($name:ident => $format:expr;)*) => { $(
        impl $name {
            /// The number as f64, exactly.
            pub fn to_f64(self) -> f64 { $format.decode(self.0) }

            /// The nearest number, ties to even. Beyond the largest: that one where `saturate`, otherwise
            /// infinity or NaN, whichever the format has.
            pub fn from_f64(value: f64, saturate: bool) -> Self { Self($format.encode(value, saturate)) }
        }
    )* };
}

formats! {
    F8E4M3FN => E4M3FN;
    F8E4M3FNUZ => E4M3FNUZ;
    F8E5M2 => E5M2;
    F8E5M2FNUZ => E5M2FNUZ;
    F4E2M1 => E2M1;
}

impl F8E8M0 {
    /// The power of two as f64, exactly.
    pub fn to_f64(self) -> f64 {
        if self.0 == 0xff { f64::NAN } else { 2f64.powi(i32::from(self.0) - 127) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_way_through_f64() {
        for code in 0..=u8::MAX {
            let x = F8E4M3FN(code).to_f64();
            assert!(x.is_nan() || F8E4M3FN::from_f64(x, true).0 == code, "e4m3fn {code:#x}");
            let x = F8E4M3FNUZ(code).to_f64();
            assert!(x.is_nan() || F8E4M3FNUZ::from_f64(x, true).0 == code, "e4m3fnuz {code:#x}");
            let x = F8E5M2(code).to_f64();
            assert!(x.is_nan() || F8E5M2::from_f64(x, false).0 == code, "e5m2 {code:#x}");
            let x = F8E5M2FNUZ(code).to_f64();
            assert!(x.is_nan() || F8E5M2FNUZ::from_f64(x, true).0 == code, "e5m2fnuz {code:#x}");
            let x = F4E2M1(code & 15).to_f64();
            assert_eq!(F4E2M1::from_f64(x, true).0, code & 15, "e2m1");
        }
    }

    #[test]
    fn known_values() {
        let cases = [(0.3, 0.3125), (17.0, 16.0), (18.0, 18.0), (19.0, 20.0), (448.0, 448.0), (463.0, 448.0)];
        for (x, expected) in cases {
            assert_eq!(F8E4M3FN::from_f64(x, false).to_f64(), expected, "{x}");
        }
        assert!(F8E4M3FN::from_f64(1e6, false).to_f64().is_nan());
        assert_eq!(F8E4M3FN::from_f64(1e6, true).to_f64(), 448.0);
        assert_eq!(F8E5M2::from_f64(1e6, false).to_f64(), f64::INFINITY);
        assert_eq!(F4E2M1::from_f64(2.5, true).to_f64(), 2.0);
        assert_eq!(F4E2M1::from_f64(5.0, true).to_f64(), 4.0);
    }
}

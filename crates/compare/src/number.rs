//! Elements of any type as numbers, and the distance between two floats in steps.

use isotrace_tensor::{
    Bool, C64, C128, DType, F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, I2, I4, Tensor, U2, U4,
    bf16, f16, nearest_bf16, nearest_f16,
};

/// Reads element `i` as an integer; none where the tensor holds no integers.
pub(crate) fn integers(t: &Tensor) -> Option<Box<dyn Fn(usize) -> i128 + Sync + '_>> {
    macro_rules! read {
        ($t:ty, $f:expr) => {{
            let s = t.as_slice::<$t>().ok()?;
            Box::new(move |i| i128::from($f(s[i])))
        }};
    }
    Some(match t.dtype() {
        DType::I64 => read!(i64, |x| x),
        DType::I32 => read!(i32, |x| x),
        DType::I16 => read!(i16, |x| x),
        DType::I8 => read!(i8, |x| x),
        DType::I4 => read!(I4, |x: I4| x.0),
        DType::I2 => read!(I2, |x: I2| x.0),
        DType::U64 => read!(u64, |x| x),
        DType::U32 => read!(u32, |x| x),
        DType::U16 => read!(u16, |x| x),
        DType::U8 => read!(u8, |x| x),
        DType::U4 => read!(U4, |x: U4| x.0),
        DType::U2 => read!(U2, |x: U2| x.0),
        DType::Bool => read!(Bool, |x: Bool| x.get()),
        _ => return None,
    })
}

/// Reads element `i` as its real and imaginary part.
pub(crate) fn reals(t: &Tensor) -> Box<dyn Fn(usize) -> [f64; 2] + Sync + '_> {
    macro_rules! read {
        ($t:ty, $f:expr) => {{
            let s = t.as_slice::<$t>().expect("the type was looked at");
            Box::new(move |i| $f(s[i]))
        }};
    }
    match t.dtype() {
        DType::F64 => read!(f64, |x| [x, 0.0]),
        DType::F32 => read!(f32, |x| [f64::from(x), 0.0]),
        DType::F16 => read!(f16, |x: f16| [x.to_f64(), 0.0]),
        DType::BF16 => read!(bf16, |x: bf16| [x.to_f64(), 0.0]),
        DType::F8E4M3FN => read!(F8E4M3FN, |x: F8E4M3FN| [x.to_f64(), 0.0]),
        DType::F8E4M3FNUZ => read!(F8E4M3FNUZ, |x: F8E4M3FNUZ| [x.to_f64(), 0.0]),
        DType::F8E5M2 => read!(F8E5M2, |x: F8E5M2| [x.to_f64(), 0.0]),
        DType::F8E5M2FNUZ => read!(F8E5M2FNUZ, |x: F8E5M2FNUZ| [x.to_f64(), 0.0]),
        DType::F8E8M0 => read!(F8E8M0, |x: F8E8M0| [x.to_f64(), 0.0]),
        DType::F4E2M1 => read!(F4E2M1, |x: F4E2M1| [x.to_f64(), 0.0]),
        DType::C64 => read!(C64, |x: C64| x.0.map(f64::from)),
        DType::C128 => read!(C128, |x: C128| x.0),
        _ => {
            let read = integers(t).expect("text was dealt with before");
            Box::new(move |i| [read(i) as f64, 0.0])
        }
    }
}

/// Whether elements have an imaginary part.
pub(crate) fn is_complex(dtype: DType) -> bool {
    matches!(dtype, DType::C64 | DType::C128)
}

/// The float type with the longer steps; none unless both are floats.
pub(crate) fn narrower(a: DType, b: DType) -> Option<DType> {
    let (ua, ub) = (a.unit_roundoff()?, b.unit_roundoff()?);
    // f16 and bf16 alike in width are told apart by their steps; so are the 8-bit types.
    Some(if ua >= ub { a } else { b })
}

/// Steps between two numbers on the grid of `dtype`, both rounded to it. Neither is NaN.
pub(crate) fn ulps(dtype: DType, x: f64, y: f64) -> u64 {
    let (x, y) = (order(dtype, x), order(dtype, y));
    x.abs_diff(y)
}

/// Integers in the order of the floats of `dtype`, neighbours one apart, both zeros 0.
fn order(dtype: DType, x: f64) -> i64 {
    match dtype {
        DType::F64 => sign_magnitude(x.to_bits(), 64),
        DType::F32 => sign_magnitude(u64::from((x as f32).to_bits()), 32),
        DType::F16 => sign_magnitude(u64::from(nearest_f16(x).to_bits()), 16),
        DType::BF16 => sign_magnitude(u64::from(nearest_bf16(x).to_bits()), 16),
        DType::F8E4M3FN => sign_magnitude(u64::from(F8E4M3FN::from_f64(x, true).0), 8),
        DType::F8E4M3FNUZ => sign_magnitude(u64::from(F8E4M3FNUZ::from_f64(x, true).0), 8),
        DType::F8E5M2 => sign_magnitude(u64::from(F8E5M2::from_f64(x, false).0), 8),
        DType::F8E5M2FNUZ => sign_magnitude(u64::from(F8E5M2FNUZ::from_f64(x, true).0), 8),
        DType::F4E2M1 => sign_magnitude(u64::from(F4E2M1::from_f64(x, true).0), 4),
        // A power of two: its exponent.
        _ => x.abs().log2().round() as i64,
    }
}

/// A word of sign and magnitude, `width` bits wide, as an integer.
fn sign_magnitude(bits: u64, width: u32) -> i64 {
    let magnitude = (bits & ((1 << (width - 1)) - 1)) as i64;
    if bits >> (width - 1) & 1 == 1 { -magnitude } else { magnitude }
}

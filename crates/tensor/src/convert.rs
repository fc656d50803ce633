//! Conversion between element types.
//!
//! Floats go to narrower floats by round to nearest even, to integers by truncation (NaN becomes 0, values out of
//! range the nearest bound, and of that the low bits where the type is narrower than a byte, as ONNX's own tests
//! have it: the standard leaves all of this undefined), to bool by comparison with zero. Integers go to narrower
//! integers by dropping high bits. Text is parsed and printed as ONNX Cast does.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::element::{
    Bool, C64, C128, F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, I2, I4, U2, U4,
};
use crate::halves::{nearest_bf16, nearest_f16};
use crate::narrow::{ScaleRounding, encode_e8m0};
use crate::{DType, Tensor, TensorError};

/// What a conversion to a narrow float does beyond the largest number, and between powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    /// 8- and 4-bit floats: the largest number instead of infinity or NaN.
    pub saturate: bool,
    /// [`DType::F8E8M0`] only.
    pub scale: ScaleRounding,
}

impl Default for Rounding {
    fn default() -> Self {
        Self { saturate: true, scale: ScaleRounding::Up }
    }
}

impl Tensor {
    /// The same numbers as `dtype`, see the module's text for the rules. A clone where nothing changes.
    pub fn cast(&self, dtype: DType) -> Result<Tensor, TensorError> {
        self.cast_with(dtype, Rounding::default())
    }

    /// As [`cast`](Self::cast), with ONNX Cast's attributes.
    pub fn cast_with(&self, to: DType, rounding: Rounding) -> Result<Tensor, TensorError> {
        use DType as D;
        let from = self.dtype();
        if from == to {
            return Ok(self.clone());
        }
        let refuse = || TensorError::Convert { from, to };
        let shape = self.shape();
        let floats = |values: &mut dyn Iterator<Item = f64>| from_floats(shape, to, rounding, values);
        let ints = |values: &mut dyn Iterator<Item = i128>| from_ints(shape, to, rounding, values);
        match from {
            // The two conversions every run makes by the million, without a call per element.
            D::F32 if to == D::F64 => Tensor::from_vec(shape, self.widened()),
            D::F64 if to == D::F32 => Tensor::from_vec(shape, each(self.as_slice()?, |x: f64| x as f32)),
            D::F16 if to == D::F32 => Tensor::from_vec(shape, each(self.as_slice()?, |x: f16| x.to_f32())),
            D::F32 if to == D::F16 => Tensor::from_vec(shape, each(self.as_slice()?, f16::from_f32)),
            D::F32 if to == D::BF16 => Tensor::from_vec(shape, each(self.as_slice()?, bf16::from_f32)),
            D::F64 => floats(&mut self.as_slice::<f64>()?.iter().copied()),
            D::F32 => floats(&mut self.as_slice::<f32>()?.iter().map(|&x| f64::from(x))),
            D::F16 => floats(&mut self.as_slice::<f16>()?.iter().map(|x| x.to_f64())),
            D::BF16 => floats(&mut self.as_slice::<bf16>()?.iter().map(|x| x.to_f64())),
            D::F8E4M3FN => floats(&mut self.as_slice::<F8E4M3FN>()?.iter().map(|x| x.to_f64())),
            D::F8E4M3FNUZ => floats(&mut self.as_slice::<F8E4M3FNUZ>()?.iter().map(|x| x.to_f64())),
            D::F8E5M2 => floats(&mut self.as_slice::<F8E5M2>()?.iter().map(|x| x.to_f64())),
            D::F8E5M2FNUZ => floats(&mut self.as_slice::<F8E5M2FNUZ>()?.iter().map(|x| x.to_f64())),
            D::F8E8M0 => floats(&mut self.as_slice::<F8E8M0>()?.iter().map(|x| x.to_f64())),
            D::F4E2M1 => floats(&mut self.as_slice::<F4E2M1>()?.iter().map(|x| x.to_f64())),
            D::I64 => ints(&mut self.as_slice::<i64>()?.iter().map(|&x| i128::from(x))),
            D::I32 => ints(&mut self.as_slice::<i32>()?.iter().map(|&x| i128::from(x))),
            D::I16 => ints(&mut self.as_slice::<i16>()?.iter().map(|&x| i128::from(x))),
            D::I8 => ints(&mut self.as_slice::<i8>()?.iter().map(|&x| i128::from(x))),
            D::I4 => ints(&mut self.as_slice::<I4>()?.iter().map(|x| i128::from(x.0))),
            D::I2 => ints(&mut self.as_slice::<I2>()?.iter().map(|x| i128::from(x.0))),
            D::U64 => ints(&mut self.as_slice::<u64>()?.iter().map(|&x| i128::from(x))),
            D::U32 => ints(&mut self.as_slice::<u32>()?.iter().map(|&x| i128::from(x))),
            D::U16 => ints(&mut self.as_slice::<u16>()?.iter().map(|&x| i128::from(x))),
            D::U8 => ints(&mut self.as_slice::<u8>()?.iter().map(|&x| i128::from(x))),
            D::U4 => ints(&mut self.as_slice::<U4>()?.iter().map(|x| i128::from(x.0))),
            D::U2 => ints(&mut self.as_slice::<U2>()?.iter().map(|x| i128::from(x.0))),
            D::Bool => ints(&mut self.as_slice::<Bool>()?.iter().map(|x| i128::from(x.get()))),
            D::C64 if to == D::C128 => {
                let wide = self.as_slice::<C64>()?.iter().map(|c| C128(c.0.map(f64::from)));
                Tensor::from_vec(shape, wide.collect::<Vec<_>>())
            }
            D::C128 if to == D::C64 => {
                let narrow = self.as_slice::<C128>()?.iter().map(|c| C64(c.0.map(|x| x as f32)));
                Tensor::from_vec(shape, narrow.collect::<Vec<_>>())
            }
            D::C64 | D::C128 => Err(refuse()),
            D::String => from_strings(self.as_strings()?, shape, to, rounding).ok_or_else(refuse)?,
        }
    }
}

/// `f` of every element, on all threads where there are many.
pub(crate) fn each<S: Copy + Sync, T: Send>(values: &[S], f: impl Fn(S) -> T + Sync) -> Vec<T> {
    const MANY: usize = 1 << 16;
    if values.len() < MANY {
        values.iter().map(|&x| f(x)).collect()
    } else {
        values.par_iter().with_min_len(MANY / 4).map(|&x| f(x)).collect()
    }
}

type Cast = Result<Tensor, TensorError>;

fn from_floats(
    shape: &[usize],
    to: DType,
    rounding: Rounding,
    values: &mut dyn Iterator<Item = f64>,
) -> Cast {
    use DType as D;
    macro_rules! collect {
        ($f:expr) => {
            Tensor::from_vec(shape, values.map($f).collect::<Vec<_>>())
        };
    }
    let saturate = rounding.saturate;
    match to {
        D::F64 => collect!(|x| x),
        D::F32 => collect!(|x| x as f32),
        D::F16 => collect!(nearest_f16),
        D::BF16 => collect!(nearest_bf16),
        D::F8E4M3FN => collect!(|x| F8E4M3FN::from_f64(x, saturate)),
        D::F8E4M3FNUZ => collect!(|x| F8E4M3FNUZ::from_f64(x, saturate)),
        D::F8E5M2 => collect!(|x| F8E5M2::from_f64(x, saturate)),
        D::F8E5M2FNUZ => collect!(|x| F8E5M2FNUZ::from_f64(x, saturate)),
        D::F8E8M0 => collect!(|x| F8E8M0(encode_e8m0(x, rounding.scale, saturate))),
        D::F4E2M1 => collect!(|x| F4E2M1::from_f64(x, true)),
        D::I64 => collect!(|x| x as i64),
        D::I32 => collect!(|x| x as i32),
        D::I16 => collect!(|x| x as i16),
        D::I8 => collect!(|x| x as i8),
        // Shifting up and back down keeps the low bits and extends the sign.
        D::I4 => collect!(|x| I4(((x as i8) << 4) >> 4)),
        D::I2 => collect!(|x| I2(((x as i8) << 6) >> 6)),
        D::U64 => collect!(|x| x as u64),
        D::U32 => collect!(|x| x as u32),
        D::U16 => collect!(|x| x as u16),
        D::U8 => collect!(|x| x as u8),
        D::U4 => collect!(|x| U4(x as i16 as u8 & 15)),
        D::U2 => collect!(|x| U2(x as i16 as u8 & 3)),
        D::Bool => collect!(|x| Bool::from(x != 0.0)),
        D::C64 => collect!(|x| C64([x as f32, 0.0])),
        D::C128 => collect!(|x| C128([x, 0.0])),
        D::String => Tensor::from_strings(shape, values.map(print_float).collect()),
    }
}

fn from_ints(shape: &[usize], to: DType, rounding: Rounding, values: &mut dyn Iterator<Item = i128>) -> Cast {
    use DType as D;
    macro_rules! collect {
        ($f:expr) => {
            Tensor::from_vec(shape, values.map($f).collect::<Vec<_>>())
        };
    }
    match to {
        // Straight from the integer: a way through f64 would round twice.
        D::F32 => collect!(|x| x as f32),
        D::I64 => collect!(|x| x as i64),
        D::I32 => collect!(|x| x as i32),
        D::I16 => collect!(|x| x as i16),
        D::I8 => collect!(|x| x as i8),
        // Shifting up and back down keeps the low bits and extends the sign.
        D::I4 => collect!(|x| I4(((x as i8) << 4) >> 4)),
        D::I2 => collect!(|x| I2(((x as i8) << 6) >> 6)),
        D::U64 => collect!(|x| x as u64),
        D::U32 => collect!(|x| x as u32),
        D::U16 => collect!(|x| x as u16),
        D::U8 => collect!(|x| x as u8),
        D::U4 => collect!(|x| U4(x as u8 & 15)),
        D::U2 => collect!(|x| U2(x as u8 & 3)),
        D::Bool => collect!(|x| Bool::from(x != 0)),
        D::String => Tensor::from_strings(shape, values.map(|x| x.to_string()).collect()),
        _ => from_floats(shape, to, rounding, &mut values.map(|x| x as f64)),
    }
}

fn from_strings(strings: &[String], shape: &[usize], to: DType, rounding: Rounding) -> Option<Cast> {
    if to.is_int() {
        let values: Option<Vec<i128>> = strings.iter().map(|s| s.trim().parse().ok()).collect();
        return Some(from_ints(shape, to, rounding, &mut values?.into_iter()));
    }
    // Rust reads "inf", "nan" and their long forms in any case, with a sign, as ONNX Cast asks.
    let values: Option<Vec<f64>> = strings.iter().map(|s| s.trim().parse().ok()).collect();
    Some(from_floats(shape, to, rounding, &mut values?.into_iter()))
}

fn print_float(x: f64) -> String {
    if x.is_nan() {
        "NaN".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "INF" } else { "-INF" }.to_owned()
    } else if x as f32 as f64 == x {
        format!("{}", x as f32)
    } else {
        format!("{x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_as_a_table() {
        let floats = Tensor::vector(vec![-1.5f32, 0.0, 2.7, 300.0, f32::NAN]);
        let cases: [(DType, Vec<f64>); 5] = [
            (DType::I32, vec![-1.0, 0.0, 2.0, 300.0, 0.0]),
            (DType::U8, vec![0.0, 0.0, 2.0, 255.0, 0.0]),
            (DType::Bool, vec![1.0, 0.0, 1.0, 1.0, 1.0]),
            (DType::I4, vec![-1.0, 0.0, 2.0, -1.0, 0.0]),
            (DType::F8E4M3FN, vec![-1.5, 0.0, 2.75, 288.0, f64::NAN]),
        ];
        for (to, expected) in cases {
            let got = floats.cast(to).unwrap();
            let got = got.to_f64().unwrap();
            assert!(
                got.iter().zip(&expected).all(|(g, e)| g == e || g.is_nan() && e.is_nan()),
                "{to}: {got:?}"
            );
        }
        let ints = Tensor::vector(vec![257i64, -1, 16_777_217]);
        assert_eq!(ints.cast(DType::U8).unwrap().as_slice::<u8>().unwrap(), [1, 255, 1]);
        assert_eq!(ints.cast(DType::F32).unwrap().as_slice::<f32>().unwrap()[2], 16_777_216.0);
    }

    #[test]
    fn text_goes_both_ways() {
        let text = Tensor::from_strings(&[3], vec!["1.5".into(), "-INF".into(), "nan".into()]).unwrap();
        let floats = text.cast(DType::F32).unwrap();
        assert_eq!(floats.as_slice::<f32>().unwrap()[..2], [1.5, f32::NEG_INFINITY]);
        assert_eq!(floats.cast(DType::String).unwrap().as_strings().unwrap(), ["1.5", "-INF", "NaN"]);
        assert!(text.cast(DType::I64).is_err());
    }
}

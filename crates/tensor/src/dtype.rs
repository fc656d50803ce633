use std::fmt;

macro_rules! dtypes {
    ($($variant:ident, $name:literal, $bytes:expr, $doc:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $(#[doc = $doc] $variant,)*
        }

        impl DType {
            /// Every type, in the order of declaration.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The short name used in reports, messages and files: `f32`, `bf16`, `i64`, ...
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// Bytes one element takes in memory; 0 for strings, which are not held as bytes.
            pub const fn size(self) -> usize {
                match self { $(DType::$variant => $bytes,)* }
            }
        }
    };
}

dtypes! {
    F64, "f64", 8, "IEEE 754 binary64.";
    F32, "f32", 4, "IEEE 754 binary32.";
    F16, "f16", 2, "IEEE 754 binary16.";
    BF16, "bf16", 2, "bfloat16: binary32 cut to 8 bits of significand.";
    F8E4M3FN, "f8e4m3fn", 1, "8 bits, 4 of exponent, finite only, one NaN a sign.";
    F8E4M3FNUZ, "f8e4m3fnuz", 1, "8 bits, 4 of exponent, no infinities, no negative zero.";
    F8E5M2, "f8e5m2", 1, "8 bits, 5 of exponent, with infinities.";
    F8E5M2FNUZ, "f8e5m2fnuz", 1, "8 bits, 5 of exponent, no infinities, no negative zero.";
    F8E8M0, "f8e8m0", 1, "8 bits of exponent: a power of two.";
    F4E2M1, "f4e2m1", 1, "4 bits, 2 of exponent, one element a byte in memory.";
    I64, "i64", 8, "Signed, 64 bits.";
    I32, "i32", 4, "Signed, 32 bits.";
    I16, "i16", 2, "Signed, 16 bits.";
    I8, "i8", 1, "Signed, 8 bits.";
    I4, "i4", 1, "Signed, 4 bits, one element a byte in memory.";
    I2, "i2", 1, "Signed, 2 bits, one element a byte in memory.";
    U64, "u64", 8, "Unsigned, 64 bits.";
    U32, "u32", 4, "Unsigned, 32 bits.";
    U16, "u16", 2, "Unsigned, 16 bits.";
    U8, "u8", 1, "Unsigned, 8 bits.";
    U4, "u4", 1, "Unsigned, 4 bits, one element a byte in memory.";
    U2, "u2", 1, "Unsigned, 2 bits, one element a byte in memory.";
    Bool, "bool", 1, "False or true, one byte.";
    C64, "c64", 8, "Two f32: real and imaginary part.";
    C128, "c128", 16, "Two f64: real and imaginary part.";
    String, "string", 0, "Text.";
}

impl DType {
    /// Whether this is a real floating-point type of any width.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64
                | Self::F32
                | Self::F16
                | Self::BF16
                | Self::F8E4M3FN
                | Self::F8E4M3FNUZ
                | Self::F8E5M2
                | Self::F8E5M2FNUZ
                | Self::F8E8M0
                | Self::F4E2M1
        )
    }

    /// Whether this is a signed or unsigned integer (bool is not).
    pub const fn is_int(self) -> bool {
        self.is_signed_int()
            || matches!(self, Self::U64 | Self::U32 | Self::U16 | Self::U8 | Self::U4 | Self::U2)
    }

    /// Whether this is a signed integer.
    pub const fn is_signed_int(self) -> bool {
        matches!(self, Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::I4 | Self::I2)
    }

    /// Unit roundoff: half the distance from 1 to the next larger number. `None` where not floating point.
    pub const fn unit_roundoff(self) -> Option<f64> {
        // 2^-p with p bits of significand, the hidden one counted.
        let p = match self {
            Self::F64 => 53,
            Self::F32 => 24,
            Self::F16 => 11,
            Self::BF16 => 8,
            Self::F8E4M3FN | Self::F8E4M3FNUZ => 4,
            Self::F8E5M2 | Self::F8E5M2FNUZ => 3,
            Self::F4E2M1 => 2,
            Self::F8E8M0 => 1,
            _ => return None,
        };
        Some(f64::from_bits(((1023 - p) as u64) << 52))
    }

    /// Smallest positive (subnormal) number of a floating-point type.
    pub const fn smallest_subnormal(self) -> Option<f64> {
        let e = match self {
            Self::F64 => return Some(f64::from_bits(1)),
            Self::F32 => 149,
            Self::F16 => 24,
            Self::BF16 => 133,
            Self::F8E4M3FN => 9,
            Self::F8E4M3FNUZ => 10,
            Self::F8E5M2 => 16,
            Self::F8E5M2FNUZ => 17,
            Self::F8E8M0 => 127,
            Self::F4E2M1 => 1,
            _ => return None,
        };
        Some(f64::from_bits(((1023 - e) as u64) << 52))
    }

    /// Largest finite number of a floating-point type.
    pub const fn largest_finite(self) -> Option<f64> {
        Some(match self {
            Self::F64 => f64::MAX,
            Self::F32 => f32::MAX as f64,
            Self::F16 => 65504.0,
            Self::BF16 => 3.389_531_389_251_535_5e38,
            Self::F8E4M3FN => 448.0,
            Self::F8E4M3FNUZ => 240.0,
            Self::F8E5M2 | Self::F8E5M2FNUZ => 57344.0,
            Self::F8E8M0 => 1.701_411_834_604_692_3e38,
            Self::F4E2M1 => 6.0,
            _ => return None,
        })
    }

    /// The type with this [`name`](Self::name), or its usual long name (`float32`, `int64`, `bfloat16`).
    pub fn parse(text: &str) -> Option<Self> {
        let long = match text {
            "double" | "float64" => "f64",
            "float" | "float32" => "f32",
            "half" | "float16" => "f16",
            "bfloat16" => "bf16",
            "long" | "int64" => "i64",
            "int" | "int32" => "i32",
            "int16" => "i16",
            "int8" => "i8",
            "uint64" => "u64",
            "uint32" => "u32",
            "uint16" => "u16",
            "uint8" => "u8",
            "complex64" => "c64",
            "complex128" => "c128",
            short => short,
        };
        Self::ALL.iter().copied().find(|d| d.name() == long)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

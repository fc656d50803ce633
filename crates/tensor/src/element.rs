use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::DType;

/// A Rust type that is the element of some tensor.
pub trait Element: Pod + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// The tensor type whose elements this is.
    const DTYPE: DType;
}

macro_rules! element {
    ($($t:ty => $d:ident),* $(,)?) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}

macro_rules! wrapper {
    ($($(#[$m:meta])* $name:ident($inner:ty);)*) => { $(
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub $inner);
        element!($name => $name);
    )* };
}

element!(f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, i16 => I16, i8 => I8,
         u64 => U64, u32 => U32, u16 => U16, u8 => U8);

wrapper! {
    /// A truth value: 0 is false, anything else true.
    Bool(u8);
    /// Bits of an 8-bit float, see [`DType::F8E4M3FN`].
    F8E4M3FN(u8);
    /// Bits of an 8-bit float, see [`DType::F8E4M3FNUZ`].
    F8E4M3FNUZ(u8);
    /// Bits of an 8-bit float, see [`DType::F8E5M2`].
    F8E5M2(u8);
    /// Bits of an 8-bit float, see [`DType::F8E5M2FNUZ`].
    F8E5M2FNUZ(u8);
    /// Bits of a power of two, see [`DType::F8E8M0`].
    F8E8M0(u8);
    /// Bits of a 4-bit float in the low half of a byte, see [`DType::F4E2M1`].
    F4E2M1(u8);
    /// A 4-bit signed integer, sign-extended.
    I4(i8);
    /// A 2-bit signed integer, sign-extended.
    I2(i8);
    /// A 4-bit unsigned integer.
    U4(u8);
    /// A 2-bit unsigned integer.
    U2(u8);
    /// A complex number of two f32.
    C64([f32; 2]);
    /// A complex number of two f64.
    C128([f64; 2]);
}

impl Bool {
    /// The truth value as Rust's own.
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(u8::from(value))
    }
}

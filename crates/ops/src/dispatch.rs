//! From a tensor's element type, known when the graph runs, to a kernel's type parameter.

/// Runs `$body` with `$T` the Rust type of a real float kernel type (f32, f64); other types are an error that
/// names `$what`.
#[macro_export]
macro_rules! for_float {
    ($dtype:expr, $what:expr, $T:ident => $body:expr) => {
        match $dtype {
            isotrace_tensor::DType::F32 => {
                type $T = f32;
                $body
            }
            isotrace_tensor::DType::F64 => {
                type $T = f64;
                $body
            }
            found => Err($crate::OpError::DType { what: $what, found, supported: "f16, bf16, f32, f64" }),
        }
    };
}

/// As [`for_float!`], for f32, f64 and every integer type of 8 to 64 bits.
#[macro_export]
macro_rules! for_number {
    ($dtype:expr, $what:expr, $T:ident => $body:expr) => {
        $crate::for_number!(@ $dtype, $what, $T => $body; F32 f32, F64 f64, I64 i64, I32 i32, I16 i16, I8 i8,
            U64 u64, U32 u32, U16 u16, U8 u8)
    };
    (@ $dtype:expr, $what:expr, $T:ident => $body:expr; $($D:ident $t:ident),*) => {
        match $dtype {
            $(isotrace_tensor::DType::$D => {
                type $T = $t;
                $body
            })*
            found => Err($crate::OpError::DType {
                what: $what,
                found,
                supported: "f16, bf16, f32, f64, integers of 8 to 64 bits",
            }),
        }
    };
}

/// As [`for_float!`], for every integer type of 8 to 64 bits.
#[macro_export]
macro_rules! for_int {
    ($dtype:expr, $what:expr, $T:ident => $body:expr) => {
        match $dtype {
            isotrace_tensor::DType::I64 => {
                type $T = i64;
                $body
            }
            isotrace_tensor::DType::I32 => {
                type $T = i32;
                $body
            }
            isotrace_tensor::DType::I16 => {
                type $T = i16;
                $body
            }
            isotrace_tensor::DType::I8 => {
                type $T = i8;
                $body
            }
            isotrace_tensor::DType::U64 => {
                type $T = u64;
                $body
            }
            isotrace_tensor::DType::U32 => {
                type $T = u32;
                $body
            }
            isotrace_tensor::DType::U16 => {
                type $T = u16;
                $body
            }
            isotrace_tensor::DType::U8 => {
                type $T = u8;
                $body
            }
            found => {
                Err($crate::OpError::DType { what: $what, found, supported: "integers of 8 to 64 bits" })
            }
        }
    };
}

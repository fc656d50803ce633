//! One operator, or one tight family that shares a kernel, a file.

pub mod arithmetic;
pub mod cast;
pub mod concat;
pub mod constant;
pub mod conv;
pub mod expand;
pub mod fused_matmul;
pub mod gather;
pub mod gather_elements;
pub mod gemm;
pub mod global_pool;
pub mod identity;
pub mod matmul;
pub mod nchwc;
pub mod pool;
pub mod reshape;
pub mod shape;
pub mod slice;
pub mod squeeze;
pub mod transpose;

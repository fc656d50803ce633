//! One operator, or one tight family that shares a kernel, a file.

pub mod arithmetic;
pub mod matmul;
pub mod transpose;

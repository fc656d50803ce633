//! Elements narrower than a byte: packed in files, one a byte in memory.

use isotrace_tensor::DType;

/// How many elements of a type share a byte in a file.
pub fn per_byte(dtype: DType) -> usize {
    match dtype {
        DType::I4 | DType::U4 | DType::F4E2M1 => 2,
        DType::I2 | DType::U2 => 4,
        _ => 1,
    }
}

/// Spreads `count` elements over one byte each, the first from the lowest bits; signed ones are sign-extended.
pub fn unpack(dtype: DType, packed: impl Iterator<Item = u8>, count: usize) -> Vec<u8> {
    let per = per_byte(dtype);
    let bits = 8 / per as u32;
    let unused = 8 - bits;
    let signed = dtype.is_signed_int();
    let mut out = Vec::with_capacity(count);
    for byte in packed {
        for i in 0..(per as u32).min((count - out.len()) as u32) {
            let top = (byte >> (i * bits)) << unused;
            out.push(if signed { ((top as i8) >> unused) as u8 } else { top >> unused });
        }
    }
    out
}

/// The reverse of [`unpack`]; the last byte is filled up with zeros.
pub fn pack(dtype: DType, elements: &[u8]) -> Vec<u8> {
    let per = per_byte(dtype);
    let bits = 8 / per as u32;
    let mask = u8::MAX >> (8 - bits);
    elements
        .chunks(per)
        .map(|group| {
            group.iter().rev().fold(0u8, |byte, &e| byte.checked_shl(bits).unwrap_or(0) | (e & mask))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_in_the_lowest_bits() {
        assert_eq!(unpack(DType::U4, [0x21, 0x03].into_iter(), 3), [1, 2, 3]);
        assert_eq!(unpack(DType::I4, [0xf8].into_iter(), 2), [-8i8 as u8, -1i8 as u8]);
        assert_eq!(unpack(DType::F4E2M1, [0xf8].into_iter(), 2), [8, 15]);
        assert_eq!(unpack(DType::U2, [0b11_10_01_00].into_iter(), 4), [0, 1, 2, 3]);
        assert_eq!(unpack(DType::I2, [0b11_10_01_00].into_iter(), 3), [0, 1, -2i8 as u8]);
        assert_eq!(pack(DType::I4, &[-8i8 as u8, -1i8 as u8, 7]), [0xf8, 0x07]);
    }

    #[test]
    fn packing_and_unpacking_cancel() {
        for dtype in [DType::I4, DType::U4, DType::F4E2M1, DType::I2, DType::U2, DType::U8] {
            for count in 0..17 {
                let bytes = count_bytes(dtype, count);
                let elements = unpack(dtype, (0..bytes as u8).map(|i| i.wrapping_mul(37)), count);
                assert_eq!(elements.len(), count);
                assert_eq!(unpack(dtype, pack(dtype, &elements).into_iter(), count), elements, "{dtype}");
                assert_eq!(pack(dtype, &elements).len(), bytes);
            }
        }
    }

    fn count_bytes(dtype: DType, count: usize) -> usize {
        count.div_ceil(per_byte(dtype))
    }
}

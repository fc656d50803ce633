//! Random numbers that are the same on every machine: SplitMix64 (Steele, Lea and Flood 2014).
//!
//! The stream depends on a node's attribute `seed` alone (0 where left out), not on its name: two implementations of
//! one network then draw the same numbers. They are not the numbers that ONNX Runtime or PyTorch draw.

use isotrace_graph::Node;

use crate::{OpError, attributes};

/// Where a node's random numbers start.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// From a node's attribute `seed`.
    pub fn of(node: &Node) -> Result<Self, OpError> {
        // Version 12 of Dropout stores the seed as an integer, all others as a float.
        let seed = if node.op == "Dropout" {
            attributes::int_or(node, "seed", 0)? as u64
        } else {
            u64::from(attributes::float_or(node, "seed", 0.0)?.to_bits())
        };
        Ok(Self { seed })
    }

    /// The numbers from their start.
    pub fn stream(self) -> Stream {
        Stream { state: self.seed.wrapping_mul(0xd134_2543_de82_ef95) }
    }
}

/// An endless row of random numbers.
#[derive(Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform in 0..1, 1 excluded.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * libm::log(u)).sqrt() * libm::cos(std::f64::consts::TAU * v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right_and_seeds_differ() {
        let moments = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
        };
        let mut stream = Random { seed: 3 }.stream();
        let (mean, variance) = moments(&(0..20_000).map(|_| stream.uniform()).collect::<Vec<_>>());
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.005, "{mean} {variance}");
        let (mean, variance) = moments(&(0..20_000).map(|_| stream.normal()).collect::<Vec<_>>());
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_ne!(Random { seed: 1 }.stream().bits(), Random { seed: 2 }.stream().bits());
    }
}

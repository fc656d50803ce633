//! Random numbers that are the same on every machine.

/// A stream of random numbers (`SplitMix64`), one for each input.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of `seed` and `name`: adding an input changes no other one's numbers.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a spreads names over the streams.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / 2f64.powi(52)
    }

    /// In `0..n`; `n` is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Normal with mean 0 and variance 1 (Box and Muller). `libm`, because the system's logarithm and cosine may
    /// differ in the last bit.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_name_and_are_normal() {
        let draw = |seed, name| Random::new(seed, name).next();
        assert_eq!(draw(1, "x"), draw(1, "x"));
        assert!(draw(1, "x") != draw(2, "x") && draw(1, "x") != draw(1, "y"));
        let mut random = Random::new(0, "x");
        let v: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        // Five standard errors of each.
        assert!(mean.abs() < 0.036 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}

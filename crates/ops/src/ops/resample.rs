//! From an output place along one axis to the input places it is made of, as Resize defines them.
//!
//! Sources: the ONNX definition of Resize; Keys 1981 for the cubic kernel; antialiasing stretches the kernel by the
//! inverse of the scale.

use isotrace_tensor::element_count;

use crate::OpError;

/// Which coordinate of the input an output place stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// (x + 0.5) / scale: TensorFlow's nearest, in version 11 alone.
    TfHalfPixelForNearest,
    TfCropAndResize,
}

/// How a coordinate between two places picks one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nearest {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
    /// Upsample and Resize of version 10 in ONNX Runtime: down, or up where the axis shrinks.
    Simple,
}

/// The interpolation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Nearest(Nearest),
    Linear,
    /// With its coefficient a.
    Cubic(f64),
}

/// An interpolation with its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) mode: Mode,
    pub(crate) coordinates: Coordinates,
    pub(crate) exclude_outside: bool,
    pub(crate) antialias: bool,
}

/// What one output place is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Input places and their weights.
    pub(crate) taps: Vec<(usize, f64)>,
    /// The coordinate it stands for.
    pub(crate) coordinate: f64,
    /// Whether that lies outside of the input, which matters where a region is cropped.
    pub(crate) outside: bool,
}

/// Every output place along an axis.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) places: Vec<Place>,
}

impl Filter {
    /// Places along an axis that goes from `input` to `output` elements by a factor `scale`; `region` is the part of
    /// the input to crop, as fractions.
    pub(crate) fn axis(
        &self,
        input: usize,
        output: usize,
        scale: f64,
        region: Option<(f64, f64)>,
    ) -> Result<Axis, OpError> {
        let reach = self.support(scale);
        // A tiny scale of a hostile file would ask for a window far larger than the input.
        element_count(&[output, (2.0 * reach + 2.0).min(1e18) as usize])?;
        if reach > 2.0 * input as f64 + 4.0 {
            return Err(OpError::Input(format!(
                "the scale {scale} makes each output place out of {reach} places of an axis of {input}"
            )));
        }
        let places = (0..output)
            .map(|o| {
                let x = self.coordinate(o, input, output, scale, region);
                let outside = self.coordinates == Coordinates::TfCropAndResize
                    && !(0.0..=input as f64 - 1.0).contains(&x);
                Place { taps: self.taps(x, input, scale), coordinate: x, outside }
            })
            .collect();
        Ok(Axis { places })
    }

    fn coordinate(
        &self,
        o: usize,
        input: usize,
        output: usize,
        scale: f64,
        region: Option<(f64, f64)>,
    ) -> f64 {
        if let Mode::Nearest(_) = self.mode {
            // A pick is a decision: it is taken in f32, as runtimes take it.
            return f64::from(coordinate_f32(self.coordinates, o, input, output, scale as f32, region));
        }
        let (x, length) = (o as f64, input as f64);
        match self.coordinates {
            Coordinates::HalfPixelSymmetric => {
                let adjustment = output as f64 / (scale * length);
                length / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if output <= 1 => 0.0,
            Coordinates::AlignCorners => x * (length - 1.0) / (output as f64 - 1.0),
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfHalfPixelForNearest => (x + 0.5) / scale,
            Coordinates::TfCropAndResize => {
                let (start, end) = region.unwrap_or((0.0, 1.0));
                if output > 1 {
                    start * (length - 1.0) + x * (end - start) * (length - 1.0) / (output as f64 - 1.0)
                } else {
                    0.5 * (start + end) * (length - 1.0)
                }
            }
        }
    }

    /// How far from its coordinate a place may look.
    fn support(&self, scale: f64) -> f64 {
        let radius = match self.mode {
            Mode::Nearest(_) => return 1.0,
            Mode::Linear => 1.0,
            Mode::Cubic(_) => 2.0,
        };
        if self.antialias { radius / scale.min(1.0) } else { radius }
    }

    fn taps(&self, x: f64, input: usize, scale: f64) -> Vec<(usize, f64)> {
        let last = input.saturating_sub(1);
        let clamp = |i: f64| (i.max(0.0) as usize).min(last);
        if let Mode::Nearest(nearest) = self.mode {
            let i = match nearest {
                Nearest::RoundPreferFloor => (x - 0.5).ceil(),
                Nearest::RoundPreferCeil => (x + 0.5).floor(),
                Nearest::Floor => x.floor(),
                Nearest::Ceil => x.ceil(),
                Nearest::Simple if scale < 1.0 => x.ceil(),
                Nearest::Simple => x.trunc(),
            };
            return vec![(clamp(i), 1.0)];
        }
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let reach = self.support(scale);
        let (first, end) = ((x - reach).floor() as i64, (x + reach).ceil() as i64);
        let mut taps: Vec<(usize, f64)> = Vec::with_capacity((end - first + 1) as usize);
        let mut sum = 0.0;
        for i in first..=end {
            let outside = i < 0 || i > last as i64;
            let weight = self.kernel((i as f64 - x) * stretch);
            if weight == 0.0 || (outside && self.exclude_outside) {
                continue;
            }
            sum += weight;
            // Beyond its ends the input goes on as it ends.
            let place = clamp(i as f64);
            match taps.last_mut() {
                Some((p, w)) if *p == place => *w += weight,
                _ => taps.push((place, weight)),
            }
        }
        if self.antialias || self.exclude_outside {
            for (_, w) in &mut taps {
                *w /= sum;
            }
        }
        taps
    }

    fn kernel(&self, t: f64) -> f64 {
        let t = t.abs();
        match self.mode {
            Mode::Cubic(a) if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
            Mode::Cubic(a) if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
            Mode::Cubic(_) => 0.0,
            Mode::Linear | Mode::Nearest(_) => (1.0 - t).max(0.0),
        }
    }
}

fn coordinate_f32(
    coordinates: Coordinates,
    o: usize,
    input: usize,
    output: usize,
    scale: f32,
    region: Option<(f64, f64)>,
) -> f32 {
    let (x, length, out) = (o as f32, input as f32, output as f32);
    match coordinates {
        Coordinates::HalfPixelSymmetric => {
            let adjustment = out / (scale * length);
            length / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
        }
        Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if output <= 1 => 0.0,
        Coordinates::AlignCorners => x * (length - 1.0) / (out - 1.0),
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
        Coordinates::Asymmetric => x / scale,
        Coordinates::TfHalfPixelForNearest => (x + 0.5) / scale,
        Coordinates::TfCropAndResize => {
            let (start, end) = region.map_or((0.0, 1.0), |(s, e)| (s as f32, e as f32));
            if output > 1 {
                start * (length - 1.0) + x * (end - start) * (length - 1.0) / (out - 1.0)
            } else {
                0.5 * (start + end) * (length - 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Filter = Filter {
        mode: Mode::Linear,
        coordinates: Coordinates::HalfPixel,
        exclude_outside: false,
        antialias: false,
    };

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        for mode in [Mode::Linear, Mode::Cubic(-0.75), Mode::Cubic(-0.5), Mode::Nearest(Nearest::Floor)] {
            for (exclude_outside, antialias) in [(false, false), (true, false), (false, true), (true, true)] {
                for (input, output) in [(7, 3), (3, 7), (5, 5), (1, 4), (9, 2)] {
                    let filter = Filter { mode, exclude_outside, antialias, ..BASE };
                    let axis = filter.axis(input, output, output as f64 / input as f64, None).unwrap();
                    for place in axis.places {
                        let sum: f64 = place.taps.iter().map(|t| t.1).sum();
                        assert!((sum - 1.0).abs() < 1e-12, "{filter:?} {input} {output} {place:?}");
                        assert!(place.taps.iter().all(|t| t.0 < input));
                    }
                }
            }
        }
    }

    #[test]
    fn coordinates_as_a_table() {
        let cases = [
            (Coordinates::HalfPixel, 4, 8, 2.0, 3, 1.25),
            (Coordinates::PytorchHalfPixel, 4, 1, 0.25, 0, 0.0),
            (Coordinates::AlignCorners, 4, 7, 1.75, 3, 1.5),
            (Coordinates::AlignCorners, 4, 1, 0.25, 0, 0.0),
            (Coordinates::Asymmetric, 4, 8, 2.0, 3, 1.5),
            // 2.6 wanted, 2 got: the output is centred in what was wanted.
            (Coordinates::HalfPixelSymmetric, 4, 2, 0.65, 0, 2.0 * (1.0 - 2.0 / 2.6) + 0.5 / 0.65 - 0.5),
        ];
        for (coordinates, input, output, scale, o, expected) in cases {
            let filter = Filter { coordinates, ..BASE };
            let got = filter.coordinate(o, input, output, scale, None);
            assert!((got - expected).abs() < 1e-12, "{coordinates:?}: {got} {expected}");
        }
    }

    #[test]
    fn picks_as_a_table() {
        let cases = [
            (Nearest::RoundPreferFloor, 2.0, [0, 0, 1, 1]),
            (Nearest::RoundPreferCeil, 2.0, [0, 1, 1, 1]),
            (Nearest::Floor, 2.0, [0, 0, 1, 1]),
            (Nearest::Ceil, 2.0, [0, 1, 1, 1]),
            (Nearest::Simple, 2.0, [0, 0, 1, 1]),
        ];
        for (nearest, scale, expected) in cases {
            let filter =
                Filter { mode: Mode::Nearest(nearest), coordinates: Coordinates::Asymmetric, ..BASE };
            let got: Vec<usize> =
                filter.axis(2, 4, scale, None).unwrap().places.iter().map(|p| p.taps[0].0).collect();
            assert_eq!(got, expected, "{nearest:?}");
        }
    }

    #[test]
    fn absurd_scales_are_refused() {
        let filter = Filter { antialias: true, ..BASE };
        assert!(filter.axis(4, 1, 1e-12, None).is_err());
    }
}

//! NonMaxSuppression: boxes in order of their scores, without those that overlap one already taken.
//!
//! Boxes are [batch, places, 4], scores [batch, classes, places]; the result holds (batch, class, place) in rows. A
//! box is dropped where intersection over union exceeds `iou_threshold`, or its score does not exceed
//! `score_threshold`; equal scores come in the order of their places.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::{Call, Decision, Float, Flow, OpError, Operator, arguments, attributes, for_float};

#[derive(Debug)]
struct NonMaxSuppression {
    /// Boxes are (x centre, y centre, width, height) rather than two corners (y, x, y, x).
    centres: bool,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(NonMaxSuppression { centres: attributes::flag(node, "center_point_box", false)? }))
}

/// Bounds along either direction, the smaller first.
#[derive(Clone, Copy)]
struct Rectangle<T> {
    x: (T, T),
    y: (T, T),
}

impl<T: Float> Rectangle<T> {
    fn new(numbers: &[T], centres: bool) -> Self {
        let ordered = |a: T, b: T| if a <= b { (a, b) } else { (b, a) };
        let [a, b, c, d] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        if centres {
            let half = T::of(0.5);
            Self { x: (a - c * half, a + c * half), y: (b - d * half, b + d * half) }
        } else {
            Self { x: ordered(b, d), y: ordered(a, c) }
        }
    }

    fn area(self) -> T {
        (self.x.1 - self.x.0) * (self.y.1 - self.y.0)
    }

    fn overlap(self, other: Self) -> T {
        let shared = |a: (T, T), b: (T, T)| {
            let (low, high) = (if a.0 > b.0 { a.0 } else { b.0 }, if a.1 < b.1 { a.1 } else { b.1 });
            if high > low { high - low } else { T::ZERO }
        };
        let both = shared(self.x, other.x) * shared(self.y, other.y);
        if self.area() <= T::ZERO || other.area() <= T::ZERO || both <= T::ZERO {
            return T::ZERO;
        }
        both / (self.area() + other.area() - both)
    }
}

struct Limits<T> {
    boxes: usize,
    overlap: T,
    score: Option<T>,
}

/// The places taken of one class.
fn taken<T: Float>(boxes: &[Rectangle<T>], scores: &[T], limits: &Limits<T>) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..boxes.len()).filter(|&i| limits.score.is_none_or(|least| scores[i] > least)).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal));
    let mut taken: Vec<usize> = Vec::new();
    for place in order {
        if taken.len() >= limits.boxes {
            break;
        }
        if !taken.iter().any(|&other| boxes[other].overlap(boxes[place]) > limits.overlap) {
            taken.push(place);
        }
    }
    taken
}

impl Operator for NonMaxSuppression {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (boxes, scores) = (call.need(0, "boxes")?, call.need(1, "scores")?);
        let ([batch, places, 4], [score_batch, classes, score_places]) = (boxes.shape(), scores.shape())
        else {
            return Err(OpError::Input(format!(
                "boxes {:?} must be [batch, places, 4], scores {:?} [batch, classes, places]",
                boxes.shape(),
                scores.shape()
            )));
        };
        if (batch, places) != (score_batch, score_places) {
            return Err(OpError::Input(format!(
                "boxes {:?} and scores {:?} differ in batch or places",
                boxes.shape(),
                scores.shape()
            )));
        }
        let most = arguments::one_int(call, 2, "max_output_boxes_per_class")?.unwrap_or(0).max(0) as usize;
        let number = |index: usize| -> Result<Option<f64>, OpError> {
            Ok(call.get(index).map(Tensor::to_f64).transpose()?.and_then(|x| x.first().copied()))
        };
        let (overlap, score) = (number(3)?.unwrap_or(0.0), number(4)?);
        if !(0.0..=1.0).contains(&overlap) {
            return Err(OpError::Input(format!("iou_threshold is {overlap}, it must lie in 0..=1")));
        }
        let rows = for_float!(boxes.dtype(), "boxes", T => {
            let limits = Limits { boxes: most, overlap: <T as Float>::of(overlap), score: score.map(<T as Float>::of) };
            let (boxes, scores) = (boxes.as_slice::<T>()?, scores.as_slice::<T>()?);
            let mut rows: Vec<i64> = Vec::new();
            for b in 0..*batch {
                let own = boxes[b * places * 4..(b + 1) * places * 4].chunks_exact(4);
                let own: Vec<Rectangle<T>> = own.map(|numbers| Rectangle::new(numbers, self.centres)).collect();
                for c in 0..*classes {
                    let at = (b * classes + c) * places;
                    for place in taken(&own, &scores[at..at + places], &limits) {
                        rows.extend([b as i64, c as i64, place as i64]);
                    }
                }
            }
            Ok(rows)
        })?;
        Ok(vec![Tensor::from_vec(&[rows.len() / 3, 3], rows)?])
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, ints, node, run, run_optional, tensor};

    #[test]
    fn overlapping_boxes_are_dropped() {
        struct Case {
            most: i64,
            overlap: f32,
            least: f32,
            places: &'static [i64],
        }
        // Two that overlap by 0.82, one apart, one given by its other corners.
        let corners = [0., 0., 1., 1., 0., 0.1, 1., 1.1, 0., 10., 1., 11., 1., 1., 0., 0.];
        let boxes = tensor(&[1, 4, 4], &corners.map(|x: f64| x as f32));
        let scores = tensor(&[1, 1, 4], &[0.9f32, 0.75, 0.6, 0.9]);
        let cases = [
            Case { most: 9, overlap: 0.5, least: 0.0, places: &[0, 2] },
            Case { most: 9, overlap: 1.0, least: 0.0, places: &[0, 3, 1, 2] },
            Case { most: 9, overlap: 0.9, least: 0.75, places: &[0] },
            Case { most: 1, overlap: 0.5, least: 0.0, places: &[0] },
            Case { most: 0, overlap: 0.5, least: 0.0, places: &[] },
        ];
        for Case { most, overlap, least, places } in cases {
            let (most, overlap, least) = (ints(&[most]), tensor(&[1], &[overlap]), tensor(&[1], &[least]));
            let inputs = [Some(&boxes), Some(&scores), Some(&most), Some(&overlap), Some(&least)];
            let out = run_optional(&node("NonMaxSuppression", 11, &[]), &inputs).unwrap();
            let got: Vec<i64> = out[0].as_slice::<i64>().unwrap().chunks(3).map(|row| row[2]).collect();
            assert_eq!(got, places, "{most:?} {overlap:?} {least:?}");
        }
        assert!(run(&node("NonMaxSuppression", 11, &[]), &[&boxes, &counting(&[1, 1, 3])]).is_err());
    }

    #[test]
    fn centres_and_batches() {
        let boxes =
            tensor(&[2, 2, 4], &[0.5f32, 0.5, 1., 1., 0.5, 0.6, 1., 1., 5., 5., 1., 1., 0., 0., 1., 1.]);
        let scores = tensor(&[2, 1, 2], &[0.1f32, 0.2, 0.3, 0.4]);
        let n = node("NonMaxSuppression", 11, &[("center_point_box", Attribute::Int(1))]);
        let out = run(&n, &[&boxes, &scores, &ints(&[5]), &tensor(&[], &[0.5f32])]).unwrap();
        assert_eq!(out[0].as_slice::<i64>().unwrap(), [0, 0, 1, 1, 0, 1, 1, 0, 0]);
    }
}

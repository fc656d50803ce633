use isotrace_tensor::DType;

use super::*;

fn layer(cell: Cell, directions: &[bool], activations: &[Activation]) -> Recurrent {
    Recurrent {
        cell,
        directions: directions.to_vec(),
        activations: vec![activations.to_vec(); directions.len()],
        clip: None,
        hidden: None,
        batch_first: false,
    }
}

fn filled(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec(shape, (0..n).map(|i| ((i * 37 + seed * 11) % 19) as f64 / 12.0 - 0.7).collect())
        .unwrap()
}

fn run(layer: &Recurrent, inputs: &[Option<&Tensor>]) -> Vec<Vec<f64>> {
    let outputs = layer.run(&Call { outputs: 3, ..Call::new(inputs) }).unwrap();
    outputs.iter().map(|t| t.to_f64().unwrap().into_owned()).collect()
}

#[test]
fn one_unit_one_step_as_written_in_the_standard() {
    // x = 0.5, h = 0.25, c = -0.5; every weight its own number, so that a swapped gate shows.
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    let x = Tensor::full(&[1, 1, 1], 0.5).unwrap();
    let h = Tensor::full(&[1, 1, 1], 0.25).unwrap();
    let c = Tensor::full(&[1, 1, 1], -0.5).unwrap();
    let rows = |n: usize, from: f64| -> Tensor {
        Tensor::from_vec(&[1, n, 1], (0..n).map(|i| from + i as f64 * 0.3).collect()).unwrap()
    };
    let biases = |n: usize| {
        Tensor::from_vec(&[1, 2 * n], (0..2 * n).map(|i| 0.1 * i as f64 - 0.2).collect::<Vec<f64>>()).unwrap()
    };
    let sum = |n: usize, i: usize| {
        let (w, r) = (0.4 + i as f64 * 0.3, -0.6 + i as f64 * 0.3);
        w * 0.5 + r * 0.25 + (0.1 * i as f64 - 0.2) + (0.1 * (n + i) as f64 - 0.2)
    };
    let (w4, r4, b4) = (rows(4, 0.4), rows(4, -0.6), biases(4));
    let p = Tensor::from_vec(&[1, 3], vec![0.7, -0.9, 0.2]).unwrap();
    for coupled in [false, true] {
        let l = layer(
            Cell::Lstm { coupled },
            &[false],
            &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        );
        let i = s(sum(4, 0) + 0.7 * -0.5);
        let f = if coupled { 1.0 - i } else { s(sum(4, 2) + 0.2 * -0.5) };
        let cell = f * -0.5 + i * sum(4, 3).tanh();
        let o = s(sum(4, 1) - 0.9 * cell);
        let expected = o * cell.tanh();
        let inputs = [Some(&x), Some(&w4), Some(&r4), Some(&b4), None, Some(&h), Some(&c), Some(&p)];
        let got = run(&l, &inputs);
        for (got, expected) in [(got[0][0], expected), (got[1][0], expected), (got[2][0], cell)] {
            assert!((got - expected).abs() < 1e-15, "coupled {coupled}: {got} {expected}");
        }
    }
    let (w3, r3, b3) = (rows(3, 0.4), rows(3, -0.6), biases(3));
    for reset_after in [false, true] {
        let l = layer(Cell::Gru { reset_after }, &[false], &[Activation::Sigmoid, Activation::Tanh]);
        let (z, r) = (s(sum(3, 0)), s(sum(3, 1)));
        let (w, rh, wb, rb) = (1.0, 0.0, 0.0, 0.3);
        let candidate = if reset_after {
            (w * 0.5 + wb + r * (rh * 0.25 + rb)).tanh()
        } else {
            (w * 0.5 + wb + rh * (r * 0.25) + rb).tanh()
        };
        let expected = (1.0 - z) * candidate + z * 0.25;
        let got = run(&l, &[Some(&x), Some(&w3), Some(&r3), Some(&b3), None, Some(&h)]);
        assert!((got[0][0] - expected).abs() < 1e-15, "reset_after {reset_after}: {} {expected}", got[0][0]);
    }
}

#[test]
fn directions_lengths_and_layouts() {
    let (steps, batch, inputs, hidden) = (4, 3, 2, 5);
    let l = |d: &[bool]| layer(Cell::Rnn, d, &[Activation::Tanh]);
    let x = filled(&[steps, batch, inputs], 1);
    let (w, r) = (filled(&[2, hidden, inputs], 2), filled(&[2, hidden, hidden], 3));
    let lengths = Tensor::vector(vec![4i32, 2, 0]);
    let both = run(&l(&[false, true]), &[Some(&x), Some(&w), Some(&r), None, Some(&lengths)]);
    let at = |t: usize, d: usize, n: usize| {
        let at = ((t * 2 + d) * batch + n) * hidden;
        both[0][at..at + hidden].to_vec()
    };
    // Beyond a sequence's end there is nothing; its last state is that of its own last step.
    assert!(at(2, 0, 1).iter().chain(&at(0, 1, 2)).all(|&y| y == 0.0));
    assert_eq!(both[1][hidden..2 * hidden], at(1, 0, 1));
    assert_eq!(both[1][(batch + 1) * hidden..(batch + 2) * hidden], at(0, 1, 1));
    // A reversed layer is a forward one on the reversed sequence.
    let half = |t: &Tensor, k: usize| {
        let n = t.len() / 2;
        let data = t.as_slice::<f64>().unwrap()[k * n..(k + 1) * n].to_vec();
        Tensor::from_vec(&[1, t.shape()[1], t.shape()[2]], data).unwrap()
    };
    let (w1, r1) = (half(&w, 1), half(&r, 1));
    let turned: Vec<f64> =
        x.as_slice::<f64>().unwrap().chunks(batch * inputs).rev().flatten().copied().collect();
    let turned = Tensor::from_vec(x.shape(), turned).unwrap();
    let forward = run(&l(&[false]), &[Some(&turned), Some(&w1), Some(&r1)]);
    assert_eq!(forward[0][3 * batch * hidden..][..hidden], at(0, 1, 0));
    // With the sequences' axis ahead only the order of elements changes.
    let first = Recurrent { batch_first: true, ..l(&[false, true]) };
    let swapped = x.permute(&[1, 0, 2]).unwrap();
    let inputs = [Some(&swapped), Some(&w), Some(&r), None, Some(&lengths)];
    let outputs = first.run(&Call { outputs: 2, ..Call::new(&inputs) }).unwrap();
    assert_eq!(outputs[0].shape(), [batch, steps, 2, hidden]);
    let back = outputs[0].permute(&[1, 2, 0, 3]).unwrap();
    assert_eq!(back.as_slice::<f64>().unwrap(), both[0]);
    assert_eq!(outputs[1].permute(&[1, 0, 2]).unwrap().as_slice::<f64>().unwrap(), both[1]);
}

#[test]
fn clipping_bounds_what_activations_see() {
    let l = Recurrent { clip: Some(0.1), ..layer(Cell::Rnn, &[false], &[Activation::Identity]) };
    let x = Tensor::from_vec(&[1, 2, 1], vec![5.0, -0.05]).unwrap();
    let w = Tensor::full(&[1, 1, 1], 1.0).unwrap();
    assert_eq!(run(&l, &[Some(&x), Some(&w), Some(&w)])[0], [0.1, -0.05]);
}

#[test]
fn budgets_hold_and_are_not_vacuous() {
    let (steps, batch, inputs, hidden) = (40, 2, 8, 16);
    let cells = [
        (Cell::Rnn, vec![Activation::Tanh]),
        (Cell::Gru { reset_after: true }, vec![Activation::Sigmoid, Activation::Tanh]),
        (Cell::Lstm { coupled: false }, vec![Activation::Sigmoid, Activation::Tanh, Activation::Tanh]),
    ];
    for (cell, activations) in cells {
        let l = layer(cell, &[false], &activations);
        let rows = cell.gates() * hidden;
        let x = filled(&[steps, batch, inputs], 1).cast(DType::F32).unwrap();
        let scale = |t: Tensor| {
            let v = t.as_slice::<f64>().unwrap().iter().map(|x| (x * 0.4) as f32).collect();
            Tensor::from_vec(t.shape(), v).unwrap()
        };
        let (w, r) = (scale(filled(&[1, rows, inputs], 2)), scale(filled(&[1, rows, hidden], 3)));
        let narrow = run(&l, &[Some(&x), Some(&w), Some(&r)]);
        let wide = [x, w, r].map(|t| t.cast(DType::F64).unwrap());
        let inputs = [Some(&wide[0]), Some(&wide[1]), Some(&wide[2])];
        let call = Call { outputs: 2, ..Call::new(&inputs) };
        let exact = l.run(&call).unwrap();
        let budget = l.budget(&call, 0, &exact[0], Unit::F32).unwrap();
        let y = exact[0].to_f64().unwrap();
        for ((a, b), allowed) in narrow[0].iter().zip(y.iter()).zip(&budget) {
            assert!((a - b).abs() <= *allowed, "{cell:?}: {a} {b} {allowed}");
            assert!(*allowed < 1e-4, "{cell:?}: {allowed}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let l = layer(Cell::Rnn, &[false], &[Activation::Tanh]);
    let (x, w, r) = (filled(&[2, 1, 3], 0), filled(&[1, 4, 3], 0), filled(&[1, 4, 4], 0));
    let bad_w = filled(&[1, 4, 2], 0);
    let long = Tensor::vector(vec![3i32]);
    let negative = Tensor::vector(vec![-1i32]);
    let cases: [&[Option<&Tensor>]; 4] = [
        &[Some(&x), Some(&bad_w), Some(&r)],
        &[Some(&x), Some(&w), Some(&r), None, Some(&long)],
        &[Some(&x), Some(&w), Some(&r), None, Some(&negative)],
        &[Some(&x), None, Some(&r)],
    ];
    for (i, inputs) in cases.into_iter().enumerate() {
        assert!(l.run(&Call::new(inputs)).is_err(), "case {i}");
    }
}

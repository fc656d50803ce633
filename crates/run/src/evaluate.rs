//! One call of one operator under the precision policy.

use isotrace_ops::{Bodies, Call, Decision, OpError, Operator, Precision};
use isotrace_tensor::{DType, Tensor, normalise_axis};

/// What [`evaluate`] needs besides the operator.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// Inputs; floats are converted as the precision asks.
    pub inputs: &'a [Option<&'a Tensor>],
    /// How many outputs the node names.
    pub outputs: usize,
    /// The precision.
    pub precision: Precision,
    /// Outputs of the same call in the declared run, whose decisions a float64 evaluation takes over.
    pub decided: Option<&'a [Option<Tensor>]>,
    /// The node's bodies.
    pub bodies: &'a dyn Bodies,
}

/// Calls an operator. Returns as many outputs as it made (at least those named).
pub fn evaluate(op: &dyn Operator, what: &Evaluation<'_>) -> Result<Vec<Tensor>, OpError> {
    match what.precision {
        Precision::Declared => declared(op, what),
        Precision::Float64 => float64(op, what),
    }
}

fn call<'a>(what: &Evaluation<'a>, inputs: &'a [Option<&'a Tensor>]) -> Call<'a> {
    Call { inputs, outputs: what.outputs, precision: what.precision, bodies: what.bodies, magnitude: None }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn declared(op: &dyn Operator, what: &Evaluation<'_>) -> Result<Vec<Tensor>, OpError> {
    let mut floats = what.inputs.iter().flatten().map(|t| t.dtype()).filter(|d| d.is_float()).peekable();
    let first = floats.peek().copied();
    if op.keeps_half() || !floats.any(is_half) {
        return op.run(&call(what, what.inputs));
    }
    let wide: Vec<Option<Tensor>> = what
        .inputs
        .iter()
        .map(|t| t.map(|t| if is_half(t.dtype()) { t.cast(DType::F32) } else { Ok(t.clone()) }).transpose())
        .collect::<Result<_, _>>()?;
    let wide: Vec<Option<&Tensor>> = wide.iter().map(Option::as_ref).collect();
    let outputs = op.run(&call(what, &wide))?;
    // The result has the type of the first float input: scale and bias of mixed-type operators follow the data.
    match first.filter(|&d| is_half(d)) {
        Some(half) => outputs
            .into_iter()
            .map(|t| if t.dtype() == DType::F32 { Ok(t.cast(half)?) } else { Ok(t) })
            .collect(),
        None => Ok(outputs),
    }
}

fn float64(op: &dyn Operator, what: &Evaluation<'_>) -> Result<Vec<Tensor>, OpError> {
    let decision = op.decision();
    if let (Decision::Outputs, Some(decided)) = (decision, what.decided)
        && decided.iter().all(Option::is_some)
    {
        return decided.iter().flatten().map(widen).collect();
    }
    let wide: Vec<Option<Tensor>> =
        what.inputs.iter().map(|t| t.map(widen).transpose()).collect::<Result<_, _>>()?;
    let wide: Vec<Option<&Tensor>> = wide.iter().map(Option::as_ref).collect();
    let mut outputs: Vec<Tensor> = op.run(&call(what, &wide))?.iter().map(widen).collect::<Result<_, _>>()?;
    let Some(decided) = what.decided else { return Ok(outputs) };
    // Whatever is no float was decided, whichever operator made it.
    for (out, decided) in outputs.iter_mut().zip(decided) {
        if let Some(decided) = decided
            && !decided.dtype().is_float()
        {
            *out = decided.clone();
        }
    }
    if let (Decision::Picks { axis }, Some(Some(places)), Some(data)) =
        (decision, decided.get(1), wide.first().copied().flatten())
        && places.dtype() == DType::I64
        && data.dtype().is_float()
    {
        outputs[0] = pick(data, places, axis)?;
    }
    Ok(outputs)
}

/// A float tensor as f64; others as they are.
fn widen(tensor: &Tensor) -> Result<Tensor, OpError> {
    if tensor.dtype().is_float() { Ok(tensor.cast(DType::F64)?) } else { Ok(tensor.clone()) }
}

/// The elements of `data` at `places` along `axis`; every other index is the same.
fn pick(data: &Tensor, places: &Tensor, axis: i64) -> Result<Tensor, OpError> {
    let axis = normalise_axis(axis, data.rank())?;
    let inner: usize = data.shape()[axis + 1..].iter().product();
    let (from, to) = (data.shape()[axis], places.shape()[axis]);
    let values = data.as_slice::<f64>()?;
    let picked = places.as_slice::<i64>()?.iter().enumerate().map(|(i, &k)| {
        let (outer, inner_index) = (i / (to * inner), i % inner);
        values[(outer * from + (k as usize).min(from - 1)) * inner + inner_index]
    });
    Ok(Tensor::from_vec(places.shape(), picked.collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotrace_ops::NoBodies;
    use isotrace_tensor::f16;

    /// Output 0 is half the input, output 1 whether it is above 1.
    #[derive(Debug)]
    struct Halve;

    impl Operator for Halve {
        fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
            let x = call.need(0, "x")?;
            let above = x.to_f64()?.iter().map(|&x| i64::from(x > 1.0)).collect();
            let halves = match x.dtype() {
                DType::F32 => {
                    Tensor::vector(x.as_slice::<f32>()?.iter().map(|x| x / 2.0).collect::<Vec<_>>())
                }
                _ => Tensor::vector(x.as_slice::<f64>()?.iter().map(|x| x / 2.0).collect::<Vec<_>>()),
            };
            Ok(vec![halves, Tensor::vector::<i64>(above)])
        }
    }

    fn run(x: &Tensor, precision: Precision, decided: Option<&[Option<Tensor>]>) -> Vec<Tensor> {
        let inputs = [Some(x)];
        let what = Evaluation { inputs: &inputs, outputs: 2, precision, decided, bodies: &NoBodies };
        evaluate(&Halve, &what).unwrap()
    }

    #[test]
    fn half_types_are_rounded_once() {
        let x = Tensor::vector(vec![f16::from_f32(2.5)]);
        let out = run(&x, Precision::Declared, None);
        assert_eq!(out[0].as_slice::<f16>().unwrap(), [f16::from_f32(1.25)]);
    }

    #[test]
    fn a_shadow_takes_the_decisions_of_the_declared_run() {
        let declared = [None, Some(Tensor::vector(vec![1i64]))];
        let x = Tensor::vector(vec![0.999_999_999f64]);
        assert_eq!(run(&x, Precision::Float64, None)[1].as_slice::<i64>().unwrap(), [0]);
        assert_eq!(run(&x, Precision::Float64, Some(&declared))[1].as_slice::<i64>().unwrap(), [1]);
    }
}

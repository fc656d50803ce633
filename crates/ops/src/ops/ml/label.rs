//! LabelEncoder and CategoryMapper: each element is looked up in a list of keys and becomes the value beside it, or a
//! default.

use isotrace_graph::{Attribute, Node};
use isotrace_tensor::{DType, Tensor};
use rustc_hash::FxHashMap;

use crate::moves::{Runs, move_elements};
use crate::{Call, Decision, Flow, OpError, Operator, attributes};

/// What an element is looked up by: a text, or a number by its bits, so that NaN is a key like any other.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Text(String),
    Bits(u64),
}

#[derive(Debug)]
struct Encoder {
    keys: FxHashMap<Key, usize>,
    /// The type of the keys.
    of: DType,
    /// A value for each key, and the default behind them.
    values: Tensor,
}

/// A tensor's elements as keys.
fn keys(tensor: &Tensor) -> Result<Vec<Key>, OpError> {
    let dtype = tensor.dtype();
    Ok(match dtype {
        DType::String => tensor.as_strings()?.iter().cloned().map(Key::Text).collect(),
        _ if dtype.is_int() => tensor.to_i64()?.iter().map(|x| Key::Bits(*x as u64)).collect(),
        _ => {
            // Any NaN is the same key, and so are both zeros.
            let bits = |x: &f64| Key::Bits(if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() });
            tensor.to_f64()?.iter().map(bits).collect()
        }
    })
}

/// The list whose name begins with `what`.
fn list(node: &Node, what: &str) -> Result<Tensor, OpError> {
    let mut found = None;
    for (kind, name) in
        ["strings", "int64s", "floats", "tensor"].into_iter().map(|kind| (kind, format!("{what}_{kind}")))
    {
        if !node.attributes.contains_key(&name) {
            continue;
        }
        let tensor = match kind {
            "strings" => texts(attributes::texts(node, &name)?.unwrap_or_default())?,
            "int64s" => Tensor::vector(attributes::ints(node, &name)?.unwrap_or_default()),
            "floats" => Tensor::vector(attributes::floats(node, &name)?.unwrap_or_default()),
            _ => {
                let tensor =
                    attributes::tensor(node, &name)?.unwrap_or_else(|| Tensor::vector::<i64>(vec![]));
                tensor.reshape(&[tensor.len()])?
            }
        };
        if let Some((other, _)) = found.replace((name.clone(), tensor)) {
            return Err(OpError::Setting(format!("{other} and {name} are both given, one is expected")));
        }
    }
    let (_, tensor) = found.ok_or_else(|| OpError::Setting(format!("no attribute {what}_* is given")))?;
    Ok(tensor)
}

fn texts(texts: Vec<String>) -> Result<Tensor, OpError> {
    Ok(Tensor::from_strings(&[texts.len()], texts)?)
}

/// What an element becomes that is no key, in the type of the values.
fn default(node: &Node, dtype: DType) -> Result<Tensor, OpError> {
    if let Some(Attribute::Tensor(tensor)) = node.attributes.get("default_tensor") {
        return Ok(tensor.reshape(&[1])?);
    }
    Ok(match dtype {
        DType::String => texts(vec![attributes::text_or(node, "default_string", "_Unused")?])?,
        _ if dtype.is_int() => {
            Tensor::vector(vec![attributes::int_or(node, "default_int64", -1)?]).cast(dtype)?
        }
        _ => Tensor::vector(vec![attributes::float_or(node, "default_float", -0.0)?]).cast(dtype)?,
    })
}

fn encoder(keys_of: &Tensor, values: &Tensor, default: &Tensor) -> Result<Box<dyn Operator>, OpError> {
    if keys_of.len() != values.len() {
        let (found, expected) = (values.len(), keys_of.len());
        return Err(OpError::Setting(format!("there are {expected} keys and {found} values")));
    }
    if default.dtype() != values.dtype() {
        let (found, expected) = (default.dtype(), values.dtype());
        return Err(OpError::Setting(format!("values are {expected}, and the default is {found}")));
    }
    // A key that is repeated counts where it stands last.
    let map = keys(keys_of)?.into_iter().enumerate().map(|(i, key)| (key, i)).collect();
    let values = join(values, default)?;
    Ok(Box::new(Encoder { keys: map, of: keys_of.dtype(), values }))
}

/// One vector behind another of its type.
fn join(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    if let (Ok(a), Ok(b)) = (a.as_strings(), b.as_strings()) {
        return texts([a, b].concat());
    }
    let bytes = [a.raw_bytes(), b.raw_bytes()].concat();
    Ok(Tensor::from_bytes(a.dtype(), &[a.len() + b.len()], bytes.into())?)
}

/// Parses a node of LabelEncoder.
pub fn label_encoder(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    if node.version < 2 {
        let classes = texts(attributes::texts(node, "classes_strings")?.unwrap_or_default())?;
        let numbers = Tensor::vector((0..classes.len() as i64).collect());
        return either_way(node, &numbers, &classes);
    }
    let values = list(node, "values")?;
    encoder(&list(node, "keys")?, &values, &default(node, values.dtype())?)
}

/// Parses a node of CategoryMapper.
pub fn category_mapper(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let numbers = Tensor::vector(attributes::ints(node, "cats_int64s")?.unwrap_or_default());
    either_way(node, &numbers, &texts(attributes::texts(node, "cats_strings")?.unwrap_or_default())?)
}

/// A map between numbers and texts, in the direction that the input asks for.
fn either_way(node: &Node, numbers: &Tensor, texts: &Tensor) -> Result<Box<dyn Operator>, OpError> {
    let to_text = encoder(numbers, texts, &default(node, DType::String)?)?;
    let to_number = encoder(texts, numbers, &default(node, DType::I64)?)?;
    Ok(Box::new(Either { to_text, to_number }))
}

#[derive(Debug)]
struct Either {
    to_text: Box<dyn Operator>,
    to_number: Box<dyn Operator>,
}

impl Operator for Either {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        match call.need(0, "X")?.dtype() {
            DType::String => self.to_number.run(call),
            _ => self.to_text.run(call),
        }
    }
}

impl Operator for Encoder {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = call.need(0, "X")?;
        let found = x.dtype();
        let alike = |a: DType, b: DType| a == b || a.is_float() && b.is_float() || a.is_int() && b.is_int();
        if !alike(found, self.of) {
            return Err(OpError::Input(format!("X holds {found}, and the keys are {}", self.of)));
        }
        // A float is looked up as the keys are stored, however finely it was computed.
        let x = if found.is_float() { &x.cast(self.of)? } else { x };
        let none = self.values.len() - 1;
        let starts = keys(x)?.iter().map(|key| self.keys.get(key).copied().unwrap_or(none)).collect();
        Ok(vec![move_elements(&[&self.values], x.shape(), &Runs { starts, run: 1 })?])
    }

    fn decision(&self) -> Decision {
        Decision::Outputs
    }

    fn flow(&self) -> Flow {
        Flow::Decided
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;
    use isotrace_tensor::Tensor;

    use super::super::testing::{floats, ints, node, text, texts};
    use crate::testing::{first, run, tensor};

    fn words(list: &[&str]) -> Tensor {
        Tensor::from_strings(&[list.len()], list.iter().map(|&w| w.to_owned()).collect()).unwrap()
    }

    #[test]
    fn looked_up_as_a_table() {
        let of = |keys: (&str, Attribute), values: (&str, Attribute), more: &[(&str, Attribute)]| {
            node("LabelEncoder", 4, &[&[keys, values], more].concat())
        };
        let nan = f32::NAN;
        let cases = [
            (
                of(("keys_strings", texts(&["a", "b"])), ("values_int64s", ints(&[5, 6])), &[]),
                words(&["b", "z", "a"]),
                Tensor::vector::<i64>(vec![6, -1, 5]),
            ),
            (
                of(("keys_floats", floats(&[nan, 0.1])), ("values_floats", floats(&[1.0, 2.0])), &[]),
                tensor(&[3], &[0.1f32, -nan, 7.0]),
                tensor(&[3], &[2.0f32, 1.0, -0.0]),
            ),
            // A float64 evaluation looks up what is stored in f32.
            (
                of(("keys_floats", floats(&[0.1])), ("values_int64s", ints(&[1])), &[]),
                tensor(&[1], &[f64::from(0.1f32) + 1e-12]),
                Tensor::vector::<i64>(vec![1]),
            ),
            (
                of(
                    ("keys_int64s", ints(&[1, 1])),
                    ("values_strings", texts(&["first", "last"])),
                    &[("default_string", text("none"))],
                ),
                Tensor::vector::<i64>(vec![1, 2]),
                words(&["last", "none"]),
            ),
            (
                of(
                    ("keys_tensor", Attribute::Tensor(tensor(&[1], &[3i16]))),
                    ("values_tensor", Attribute::Tensor(tensor(&[1], &[0.5f64]))),
                    &[("default_tensor", Attribute::Tensor(tensor(&[1], &[9f64])))],
                ),
                tensor(&[2], &[3i16, 4]),
                tensor(&[2], &[0.5f64, 9.0]),
            ),
            (
                node("LabelEncoder", 1, &[("classes_strings", texts(&["x", "y"]))]),
                words(&["y", "q"]),
                Tensor::vector::<i64>(vec![1, -1]),
            ),
            (
                node("CategoryMapper", 1, &[("cats_strings", texts(&["x"])), ("cats_int64s", ints(&[8]))]),
                Tensor::vector::<i64>(vec![8, 9]),
                words(&["x", "_Unused"]),
            ),
        ];
        for (node, x, expected) in cases {
            let y = first(&node, &[&x]);
            assert!(y.bit_eq(&expected), "{x:?}: {y:?}, expected {expected:?}");
        }
    }

    #[test]
    fn lists_that_do_not_fit() {
        let x = Tensor::vector::<i64>(vec![1]);
        let keys = ("keys_int64s", ints(&[1, 2]));
        for settings in [
            vec![keys.clone()],
            vec![keys.clone(), ("values_int64s", ints(&[1]))],
            vec![keys.clone(), ("values_int64s", ints(&[1, 2])), ("values_floats", floats(&[1.0, 2.0]))],
            vec![("keys_floats", floats(&[1.0])), ("values_int64s", ints(&[1]))],
        ] {
            assert!(run(&node("LabelEncoder", 2, &settings), &[&x]).is_err(), "{settings:?}");
        }
    }
}

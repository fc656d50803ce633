//! Numbers in JSON: finite ones as numbers, the others as `"nan"`, `"inf"`, `"-inf"`.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// What a number may look like in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl Written {
    fn read<E: de::Error>(self) -> Result<f64, E> {
        match self {
            Self::Number(x) => Ok(x),
            Self::Text(text) => match text.as_str() {
                "nan" => Ok(f64::NAN),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                other => Err(E::custom(format_args!(
                    "found the text {other:?} where a number is expected; only \"nan\", \"inf\" and \"-inf\" may be texts"
                ))),
            },
        }
    }
}

/// The text of a number that is not finite.
fn name(x: f64) -> &'static str {
    match x {
        _ if x.is_nan() => "nan",
        _ if x > 0.0 => "inf",
        _ => "-inf",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
pub(crate) fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() { x.serialize(serializer) } else { serializer.serialize_str(name(*x)) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Written::deserialize(deserializer)?.read()
}

/// The same for a number that may be missing.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Written, name};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference")]
    pub(crate) fn serialize<S: Serializer>(x: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match x {
            Some(x) if !x.is_finite() => serializer.serialize_str(name(*x)),
            x => x.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(Written::read).transpose()
    }
}

//! JSON whose texts stay in the file: a saved array is a text of megabytes, and only its place is kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// As much of a JSON value as the readers here need.
#[derive(Debug)]
pub enum Json<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    /// null, true, false.
    Other,
}

impl<'a> Json<'a> {
    /// A field of an object.
    pub fn field(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list's elements; nothing where it is none.
    pub fn list(&self) -> &[Json<'a>] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// An object's fields; nothing where it is none.
    pub fn fields(&self) -> &[(Cow<'a, str>, Json<'a>)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self) -> Option<usize> {
        match self {
            // Beyond 2^53 a float is no count any more.
            Self::Number(n) if *n >= 0.0 && n.fract() == 0.0 && *n < 9e15 => Some(*n as usize),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
                Ok(Json::Other)
            }

            fn visit_unit<E>(self) -> Result<Json<'de>, E> {
                Ok(Json::Other)
            }

            fn visit_f64<E>(self, x: f64) -> Result<Json<'de>, E> {
                Ok(Json::Number(x))
            }

            fn visit_u64<E>(self, x: u64) -> Result<Json<'de>, E> {
                Ok(Json::Number(x as f64))
            }

            fn visit_i64<E>(self, x: i64) -> Result<Json<'de>, E> {
                Ok(Json::Number(x as f64))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
                Ok(Json::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
                Ok(Json::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
                let mut list = vec![];
                while let Some(element) = access.next_element()? {
                    list.push(element);
                }
                Ok(Json::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
                let mut fields = vec![];
                while let Some((name, value)) = access.next_entry::<Key<'de>, Json<'de>>()? {
                    fields.push((name.0, value));
                }
                Ok(Json::Object(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A field's name.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Text(text) => Ok(Self(text)),
            _ => Ok(Self(Cow::Borrowed(""))),
        }
    }
}

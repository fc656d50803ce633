//! What PyTorch's functions would rebuild, from their arguments in a pickle.
//!
//! `torch/_utils.py` and `torch/_tensor.py` of PyTorch 1.0 to 2.15 were read for the orders of arguments.

use isotrace_tensor::DType;
use rustc_hash::FxHashMap;

use super::machine::{Call, Id, Object, Pickle};
use super::tensors::{Kind, Recipe, Storage};
use crate::strided::Strided;

/// Wrappers around wrappers: a parameter of a subclass has three.
const DEEPEST: usize = 8;

pub fn kind(pickle: &Pickle, call: &Call, name: &str, depth: usize) -> Kind {
    let Some(arguments) = pickle.sequence(call.arguments) else { return Kind::Other };
    let inner = |id: Option<&Id>| match id.map(|&id| pickle.get(id)) {
        Some(Object::Call(inner)) if depth < DEEPEST => match pickle.global(inner.function) {
            Some(name) => kind(pickle, inner, name, depth + 1),
            None => Kind::Other,
        },
        _ => Kind::Other,
    };
    match name {
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
            tensor(pickle, arguments, None, arguments.get(6))
        }
        "torch._utils._rebuild_tensor_v3" => match arguments.get(6).and_then(|&id| pickle.global(id)) {
            Some(dtype) => tensor(pickle, arguments, Some(dtype), arguments.get(7)),
            None => Kind::Unreadable("its type is missing".into()),
        },
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
            inner(arguments.first())
        }
        // func(*arguments), then made a subclass of tensors.
        "torch._tensor._rebuild_from_type_v2" | "torch._tensor._rebuild_from_type" => {
            match (arguments.first().and_then(|&id| pickle.global(id)), arguments.get(2)) {
                (Some(function), Some(&given)) if depth < DEEPEST => {
                    let call = Call {
                        function: call.function,
                        arguments: given,
                        state: None,
                        items: vec![],
                        elements: vec![],
                    };
                    kind(pickle, &call, function, depth + 1)
                }
                _ => Kind::Other,
            }
        }
        // A tensor of a device without storage comes as an array.
        "torch._utils._rebuild_device_tensor_from_numpy" | "torch._utils._rebuild_xla_tensor" => {
            arguments.first().map_or(Kind::Other, |&id| super::tensors::kind(pickle, id))
        }
        _ if name.starts_with("torch._utils._rebuild_") => {
            let what = name.trim_start_matches("torch._utils._rebuild_");
            Kind::Unreadable(format!("it is a {}; save it dense", what.replace('_', " ")))
        }
        _ => Kind::Other,
    }
}

fn tensor(pickle: &Pickle, arguments: &[Id], dtype: Option<&str>, metadata: Option<&Id>) -> Kind {
    let [reference, offset, shape, strides, ..] = arguments else {
        return Kind::Unreadable("its description is incomplete".into());
    };
    let storage = match pickle.get(*reference) {
        Object::Persistent(id) => storage(pickle, *id),
        _ => Err("it has no storage".into()),
    };
    let storage = match storage {
        Ok(storage) => storage,
        Err(reason) => return Kind::Unreadable(reason),
    };
    let dtype = match dtype {
        Some(name) => match element_type(name) {
            Some(dtype) => Some(dtype),
            None => return Kind::Unreadable(format!("its type {name} is no tensor's here")),
        },
        None => storage.dtype,
    };
    let Some(dtype) = dtype else { return Kind::Unreadable("its type is missing".into()) };
    let (Some(offset), Some(shape), Some(strides)) =
        (pickle.size(*offset), pickle.sizes(*shape), pickle.sizes(*strides))
    else {
        return Kind::Unreadable("its shape or strides are no whole numbers".into());
    };
    let flag = |name: &str| {
        let Some(Object::Dict(pairs)) = metadata.map(|&id| pickle.get(id)) else { return false };
        pairs.iter().any(|&(key, value)| {
            pickle.text(key) == Some(name) && matches!(pickle.get(value), Object::Bool(true))
        })
    };
    Kind::Tensor(Recipe::View {
        storage,
        view: Strided { dtype, shape, strides: Some(strides), offset },
        conjugate: flag("conj"),
        negate: flag("neg"),
    })
}

/// `("storage", type, key, location, count)`, in old files with `(key, offset, count)` of a part after it.
fn storage(pickle: &Pickle, id: Id) -> Result<Storage, String> {
    let parts = pickle.sequence(id).unwrap_or_default();
    let [tag, class, key, _location, count, rest @ ..] = parts else {
        return Err("its storage is not described as PyTorch does".into());
    };
    let (Some("storage"), Some(class), Some(key), Some(count)) =
        (pickle.text(*tag), pickle.global(*class), pickle.text(*key), pickle.size(*count))
    else {
        return Err("its storage is not described as PyTorch does".into());
    };
    let untyped = class.ends_with(".UntypedStorage");
    let dtype = storage_type(class);
    if dtype.is_none() && !untyped {
        return Err(format!("its storage is a {class}, of elements that no operator here has"));
    }
    let size = dtype.map_or(1, DType::size);
    let (mut skipped, mut count) = (0, count);
    if let [view, ..] = rest
        && let Some([_, offset, length]) = pickle.sequence(*view)
    {
        let part = (pickle.size(*offset), pickle.size(*length));
        let (Some(offset), Some(length)) = part else {
            return Err("its part of a storage is damaged".into());
        };
        (skipped, count) = (offset, length);
    }
    match (skipped.checked_mul(size), count.checked_mul(size)) {
        (Some(skipped), Some(bytes)) => Ok(Storage { key: key.to_owned(), dtype, skipped, bytes }),
        _ => Err("its storage is larger than all memory".into()),
    }
}

impl Pickle {
    /// How large an element is of each storage that the pickle refers to, those of tensors that are left aside too: storages
    /// lie one behind the other in old files, and the next begins where one ends.
    pub fn element_sizes(&self) -> FxHashMap<&str, usize> {
        let size = |id: Id| match *self.sequence(id)? {
            [_, class, key, ..] => Some((self.text(key)?, element_size(self.global(class)?)?)),
            _ => None,
        };
        let references = self.objects().filter_map(|object| match object {
            Object::Persistent(id) => Some(*id),
            _ => None,
        });
        references.filter_map(size).collect()
    }
}

/// The bytes of an element of a storage, of quantised ones too.
fn element_size(class: &str) -> Option<usize> {
    match class.rsplit('.').next()? {
        "UntypedStorage" | "QInt8Storage" | "QUInt8Storage" => Some(1),
        "QInt32Storage" => Some(4),
        _ => storage_type(class).map(DType::size),
    }
}

/// The elements of a typed storage.
fn storage_type(class: &str) -> Option<DType> {
    Some(match class.strip_prefix("torch.")?.strip_prefix("cuda.").unwrap_or(&class["torch.".len()..]) {
        "DoubleStorage" => DType::F64,
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        "ComplexFloatStorage" => DType::C64,
        "ComplexDoubleStorage" => DType::C128,
        _ => return None,
    })
}

/// The type behind `torch.float32` and the like.
fn element_type(name: &str) -> Option<DType> {
    Some(match name.strip_prefix("torch.")? {
        "float8_e4m3fn" => DType::F8E4M3FN,
        "float8_e4m3fnuz" => DType::F8E4M3FNUZ,
        "float8_e5m2" => DType::F8E5M2,
        "float8_e5m2fnuz" => DType::F8E5M2FNUZ,
        "float8_e8m0fnu" => DType::F8E8M0,
        "uint8" => DType::U8,
        "uint16" => DType::U16,
        "uint32" => DType::U32,
        "uint64" => DType::U64,
        "bool" => DType::Bool,
        plain => return DType::parse(plain).filter(|d| d.size() > 0),
    })
}

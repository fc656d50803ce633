//! What a protobuf message holds that this crate's message types do not: fields from a newer ONNX, or a vendor's own.
//!
//! The decoder drops such fields. This walk over the bytes names them, so that a changed model is not written back
//! poorer without anybody knowing. It looks only at field numbers and lengths and copies nothing.

use crate::generated::fields::MESSAGES;

/// A message type: its fields by number, and the place in the table of the message each holds.
pub struct Message {
    pub name: &'static str,
    pub fields: &'static [(u32, &'static str, Option<usize>)],
}

/// How many different unknown fields are listed at most.
const LISTED: usize = 64;

/// Deeper than the decoder goes.
const DEEPEST: usize = 128;

/// The unknown fields of an encoded message, each once, as `Message.number`. Stops quietly where the bytes are
/// damaged: the decoder reports that.
pub fn unknown_fields(message: &str, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(index) = MESSAGES.iter().position(|m| m.name == message) {
        walk(index, bytes, 0, &mut found);
    }
    found.into_iter().map(|(message, field)| format!("{}.{field}", MESSAGES[message].name)).collect()
}

fn walk(message: usize, mut bytes: &[u8], depth: usize, found: &mut Vec<(usize, u32)>) -> Option<()> {
    while !bytes.is_empty() {
        let (field, content) = next_field(&mut bytes)?;
        match (MESSAGES[message].fields.binary_search_by_key(&field, |&(number, ..)| number), content) {
            (Ok(at), Some(content)) => {
                if let Some(child) = MESSAGES[message].fields[at].2.filter(|_| depth < DEEPEST) {
                    walk(child, content, depth + 1, found)?;
                }
            }
            (Ok(_), None) => {}
            (Err(_), _) => {
                if !found.contains(&(message, field)) && found.len() < LISTED {
                    found.push((message, field));
                }
            }
        }
    }
    Some(())
}

/// Takes one field off the front: its number and, where it has a length, its content.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let key = varint(bytes)?;
    let field = u32::try_from(key >> 3).ok()?;
    let mut content = None;
    match key & 7 {
        0 => drop(varint(bytes)?),
        1 => drop(take(bytes, 8)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            content = Some(take(bytes, length)?);
        }
        3 => {
            // A group: everything up to its end mark, groups inside it included.
            let mut open = vec![field];
            while let Some(&innermost) = open.last() {
                let key = varint(bytes)?;
                match key & 7 {
                    0 => drop(varint(bytes)?),
                    1 => drop(take(bytes, 8)?),
                    2 => {
                        let length = usize::try_from(varint(bytes)?).ok()?;
                        take(bytes, length)?;
                    }
                    3 => open.push(u32::try_from(key >> 3).ok()?),
                    4 if key >> 3 == u64::from(innermost) => drop(open.pop()),
                    5 => drop(take(bytes, 4)?),
                    _ => return None,
                }
            }
        }
        5 => drop(take(bytes, 4)?),
        _ => return None,
    }
    Some((field, content))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(front)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_closed() {
        for m in MESSAGES {
            assert!(m.fields.is_sorted_by_key(|f| f.0), "{}", m.name);
            assert!(m.fields.iter().all(|f| f.2.is_none_or(|i| i < MESSAGES.len())), "{}", m.name);
        }
        let model = MESSAGES.iter().find(|m| m.name == "ModelProto").unwrap();
        assert_eq!(
            MESSAGES[model.fields.iter().find(|f| f.1 == "graph").unwrap().2.unwrap()].name,
            "GraphProto"
        );
    }

    #[test]
    fn unknown_fields_are_named_wherever_they_are() {
        // ir_version = 8; field 99 of every wire type; graph { field 77 = 5 }.
        let key = |field: u64, kind: u64| {
            let k = field << 3 | kind;
            vec![(k & 0x7f) as u8 | 0x80, (k >> 7) as u8]
        };
        let mut bytes = vec![0x08, 8];
        for (kind, body) in [(0, vec![1]), (1, vec![0; 8]), (2, vec![1, 0]), (5, vec![0; 4])] {
            bytes.extend(key(99, kind));
            bytes.extend(body);
        }
        bytes.extend(key(98, 3));
        bytes.extend([0x08, 1]);
        bytes.extend(key(98, 4));
        let mut graph = key(77, 0);
        graph.push(5);
        bytes.extend([0x3a, graph.len() as u8]);
        bytes.extend(graph);
        assert_eq!(unknown_fields("ModelProto", &bytes), ["ModelProto.99", "ModelProto.98", "GraphProto.77"]);
        for end in 0..bytes.len() {
            unknown_fields("ModelProto", &bytes[..end]);
        }
        assert!(unknown_fields("ModelProto", &[0x08, 8]).is_empty());
    }
}

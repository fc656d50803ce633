//! Words into lines, names into columns, numbers into few characters.

use std::borrow::Cow;

/// The text with control characters spelled out: a name in a file must not move the cursor of the reader.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let spelled = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spelled).collect())
}

/// Lines of at most `width` columns; the first starts at column `head`, the others at `indent`. Words longer than
/// a line are left whole: a broken name cannot be copied.
pub(super) fn wrap(text: &str, width: usize, head: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = head;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let line = lines.last_mut().expect("there is a first line");
        let space = usize::from(!line.is_empty());
        if column + space + length > width && (space == 1 || column > indent) {
            lines.push(word.to_owned());
            column = indent + length;
        } else {
            if space == 1 {
                line.push(' ');
            }
            line.push_str(word);
            column += space + length;
        }
    }
    lines
}

/// Cut in the middle to `width` columns (the ends of names tell most), or padded.
pub(super) fn column(text: &str, width: usize) -> String {
    let text = printable(text);
    let length = text.chars().count();
    if length <= width {
        return format!("{text:width$}");
    }
    // Names share their beginnings (`/model/layers.3/...`), so the end gets two thirds.
    let head = (width - 1) / 3;
    let tail = width - 1 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// Two significant digits.
pub(super) fn number(x: f64) -> String {
    match x {
        0.0 => "0".to_owned(),
        x if x.is_finite() => format!("{x:.1e}"),
        x => x.to_string().to_lowercase(),
    }
}

/// `[2,3]`.
pub(super) fn shape(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_long_words_stay_whole() {
        assert_eq!(wrap("one two three", 9, 4, 2), ["one", "two", "three"]);
        assert_eq!(wrap("one two three", 11, 4, 2), ["one two", "three"]);
        assert_eq!(wrap("/a/very/long/name end", 8, 4, 2), ["", "/a/very/long/name", "end"]);
        assert_eq!(wrap("", 8, 4, 2), [""]);
    }

    #[test]
    fn names_are_cut_in_the_middle_and_cannot_move_the_cursor() {
        assert_eq!(column("/model/layers.3/attention/MatMul", 16), "/mode…ion/MatMul");
        assert_eq!(column("short", 8), "short   ");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}

//! As much of Rust's lexical structure as it takes to tell code from text: comments, strings and
//! characters are blanked, line breaks stay.

use std::ops::Range;

/// The code alone, of the same length in lines.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let after_word = at > 0 && is_word(&chars[at - 1]);
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => find(chars, at, &['\n']).unwrap_or(chars.len()),
        ('/', Some('*')) => comment_end(chars, at),
        ('"', _) => quoted_end(chars, at + 1, '"'),
        ('r', Some('"' | '#')) if !after_word => raw_end(chars, at + 1).unwrap_or(at),
        ('b', Some('r')) if !after_word => raw_end(chars, at + 2).unwrap_or(at),
        ('\'', Some('\\')) => quoted_end(chars, at + 1, '\''),
        // A character, and not a lifetime.
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

/// The end of a block comment; these nest.
fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut i = from;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of a raw string whose hashes, if any, begin at `from`; none if it is no string.
fn raw_end(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|&&c| c == '#').count();
    if chars.get(from + hashes) != Some(&'"') {
        return None;
    }
    let mut closing = vec!['"'];
    closing.resize(1 + hashes, '#');
    let end = find(chars, from + hashes + 1, &closing);
    Some(end.map_or(chars.len(), |end| end + closing.len()))
}

fn find(chars: &[char], from: usize, wanted: &[char]) -> Option<usize> {
    let found = chars.get(from..)?.windows(wanted.len()).position(|window| window == wanted)?;
    Some(from + found)
}

/// A function: its name, its first line (from 1) and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body, nested ones included.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !begins_word || name.is_empty() {
            continue;
        }
        let Some(end) = item_end(code, at) else { continue };
        let line = code[..at].matches('\n').count() + 1;
        found.push(Function { name, line, lines: code[at..end].lines().count() });
    }
    found
}

/// Where the item that begins at `at` ends: after its closing brace, or nowhere if a `;` comes
/// before any brace (a declaration).
fn item_end(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + offset + 1),
            '}' => braces -= 1,
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The lines (from 0) that are compiled for tests only.
pub(crate) fn test_modules(code: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let line_of = |at: usize| code[..at].matches('\n').count();
    let ends = code.match_indices(MARK).map(|(at, _)| (at, item_end(code, at + MARK.len())));
    let ends = ends.filter_map(|(at, end)| Some(line_of(at)..line_of(end?) + 1));
    ends.collect()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = concat!(
        "let a = \"{ // \\\" \"; // .unwrap()\n",
        "let b = ('{', '\\'', b'\"', r#\"a\"b\n{\"#); /* { /* */ */ let c: &'a str = c;\n",
    );
    let code = code_only(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains(['{', '"']) && !code.contains("unwrap"), "{code}");
    assert!(code.contains("let c: &'a str = c;"), "{code}");
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let code = "trait T {\n    fn declared(x: [u8; 2]);\n}\nfn one() {}\nfn three<F: Fn()>() {\n    { }\n}\n";
    let found = functions(code);
    let sizes: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(sizes, [("one", 4, 1), ("three", 5, 3)]);
}

#[test]
fn modules_of_tests_are_told_by_their_lines() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    assert_eq!(test_modules(code), vec![1..5]);
}

//! White space in the files that are compiled, interpreted or rendered.

use crate::repo::{self, File, expect_none};

const KINDS: [&str; 8] = [".rs", ".yaml", ".yml", ".toml", ".sh", ".sql", ".md", ".conf"];

#[test]
fn no_tab_and_no_space_at_the_end_of_a_line() {
    let mut findings = Vec::new();
    let is_checked = |file: &File| KINDS.iter().any(|kind| file.path.ends_with(kind));
    for file in repo::files().iter().filter(|file| is_checked(file)) {
        for (number, line) in file.lines() {
            if line.contains('\t') {
                findings.push(format!("{}:{number}: a tab", file.path));
            }
            if line.ends_with(' ') {
                findings.push(format!("{}:{number}: a space at the end", file.path));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.push(format!("{}: the last line has no line break", file.path));
        }
    }
    expect_none(&findings, "indent with spaces, and end each line with its last word");
}

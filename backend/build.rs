//! Embeds `migrations/*.sql` and `seeds/*.sql`, so that the image needs no file but the binary.
//! A new file is picked up by the next build without a line of Rust.

use std::path::{Path, PathBuf};
use std::{env, fmt::Write as _, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for folder in ["migrations", "seeds"] {
        // Watching the folder makes Cargo notice files that come and go, not only edits.
        println!("cargo::rerun-if-changed={folder}");
        fs::write(out.join(format!("{folder}.rs")), embed(&root, folder)?)?;
    }
    Ok(())
}

/// An expression of type `&[(&str, &str)]`: the file names, sorted, with their contents.
fn embed(root: &Path, label: &str) -> io::Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(root.join(label))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();

    let mut code = String::from("&[\n");
    for path in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Not the path as it is today: a checkout may be moved together with what it has built.
        let place = format!("/{label}/{name}");
        let text = format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {place:?}))");
        let _ = writeln!(code, "    ({name:?}, {text}),");
    }
    code.push_str("]\n");
    Ok(code)
}

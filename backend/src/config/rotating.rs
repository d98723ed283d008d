//! Secrets that are replaced while the program runs. A secret's file has the current value on its
//! first line; the lines below hold previous values that are still accepted, and comments (`#`).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::Secret;

/// The values that are good at one moment: the current one first, then the previous ones.
pub type Accepted<T> = Arc<[Secret<T>]>;

/// A secret with a current value and previous ones. Cloning shares it: all see the same change.
pub struct Rotating<T>(Arc<Inner<T>>);

struct Inner<T> {
    accepted: RwLock<Accepted<T>>,
    file: Option<File<T>>,
}

struct File<T> {
    /// The variable that names it, for the log.
    name: String,
    path: PathBuf,
    parse: fn(&str) -> Option<T>,
    /// What it held when it was last looked at.
    seen: Mutex<String>,
}

impl<T> Rotating<T> {
    /// One value for the life of the process.
    pub fn fixed(value: T) -> Self {
        Self::with(vec![Secret::new(value)], None)
    }

    /// The values of a file, which may change later; nothing if its first line is none.
    pub(super) fn of_file(
        name: &str,
        path: &Path,
        text: String,
        parse: fn(&str) -> Option<T>,
    ) -> Option<Self> {
        let values = values_of(&text, parse)?;
        let (name, path) = (name.to_owned(), path.to_owned());
        let file = File { name, path, parse, seen: Mutex::new(text) };
        Some(Self::with(values, Some(file)))
    }

    fn with(values: Vec<Secret<T>>, file: Option<File<T>>) -> Self {
        Self(Arc::new(Inner { accepted: RwLock::new(values.into()), file }))
    }

    /// What is good now. Never empty.
    pub fn accepted(&self) -> Accepted<T> {
        // Whoever panicked held it for an assignment: the value is whole.
        Arc::clone(&self.0.accepted.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the file, and tells whether other values are good now than `before`. Not the same as what
    /// [`Rotating::refresh`] says: of two that look at once only one sees the change, and both were without it.
    pub fn is_other_than(&self, before: &Accepted<T>) -> bool {
        self.refresh();
        !Arc::ptr_eq(before, &self.accepted())
    }

    /// Looks whether the file has changed, and if so takes over what it holds; true if it did.
    ///
    /// A file that cannot be read or has no usable first line changes nothing: what worked goes on
    /// to work, and the log says so once. The read blocks for some microseconds, as the file is a
    /// hundred bytes on a local disk.
    pub fn refresh(&self) -> bool {
        let Some(file) = &self.0.file else {
            return false;
        };
        // Held from before the read until the values are in force: of two that look at once, the one
        // that read first would otherwise be free to bring an older value back.
        let mut seen = file.seen();
        let text = match std::fs::read_to_string(&file.path) {
            Ok(text) => text,
            Err(error) => {
                // Remembered like a text, so that it is reported once.
                let text = format!("# {error}");
                if std::mem::replace(&mut *seen, text.clone()) != text {
                    tracing::warn!(name = file.name, %error, "a secret cannot be read; going on");
                }
                return false;
            }
        };
        if *seen == text {
            return false;
        }
        let values = values_of(&text, file.parse);
        *seen = text;
        let Some(values) = values else {
            tracing::warn!(name = file.name, "a secret's first line is not usable; going on");
            return false;
        };
        tracing::info!(name = file.name, accepted = values.len(), "a secret is another one now");
        *self.0.accepted.write().unwrap_or_else(PoisonError::into_inner) = values.into();
        true
    }
}

impl<T: Clone> Rotating<T> {
    /// The value to use for what is new.
    pub fn current(&self) -> Secret<T> {
        self.accepted()[0].clone()
    }
}

impl<T> File<T> {
    fn seen(&self) -> MutexGuard<'_, String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line must be usable. Further lines that are not are left out: they may be what a
/// writer has not finished.
fn values_of<T>(text: &str, parse: fn(&str) -> Option<T>) -> Option<Vec<Secret<T>>> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut values = vec![Secret::new(parse(lines.next()?)?)];
    values.extend(lines.filter_map(parse).map(Secret::new));
    Some(values)
}

impl<T> Clone for Rotating<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<String> {
        (!line.is_empty()).then(|| line.to_owned())
    }

    fn values(secret: &Rotating<String>) -> Vec<String> {
        secret.accepted().iter().map(|value| value.expose().clone()).collect()
    }

    #[test]
    fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
        let path = std::env::temp_dir().join(format!("backend-rotating-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("one\n");
        let secret = Rotating::of_file("ONE", &path, "one\n".to_owned(), parse).unwrap();
        assert!(!secret.refresh());

        write("two\n# until=2026-01-01T00:00:00Z\none\n\n");
        let clone = secret.clone();
        assert!(secret.refresh());
        assert!(!clone.refresh(), "a clone is the same secret");
        assert_eq!(values(&clone), ["two", "one"]);
        assert_eq!(clone.current().expose(), "two");

        for bad in ["", "\n", "# a comment\n"] {
            write(bad);
            assert!(!secret.refresh(), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!secret.refresh());
        assert_eq!(values(&secret), ["two", "one"]);
        write("three\n");
        assert!(secret.refresh());
        assert_eq!(values(&secret), ["three"]);
        std::fs::remove_file(&path).unwrap();
    }
}

//! Secrets that change while the program runs. A secret's file holds the current value on its first
//! line; on further lines stand previous ones, which are still accepted, and comments (`#`).

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Key, Secret};

/// A secret with its values, the current one first. Clones share them.
pub struct Rotating<T>(Arc<Inner<T>>);

/// A password of a service.
pub type Password = Rotating<Secret<String>>;
/// A key of our own.
pub type Keys = Rotating<Key>;

struct Inner<T> {
    file: Option<PathBuf>,
    parse: fn(&str) -> Option<T>,
    values: RwLock<Arc<[T]>>,
    /// Which one a service took last.
    accepted: AtomicUsize,
}

/// The lines of a secret's file that are values.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

impl<T: Clone + PartialEq> Rotating<T> {
    /// From a file that is read again later, or from an environment that stays as it is.
    pub(super) fn new(file: Option<PathBuf>, parse: fn(&str) -> Option<T>, values: Vec<T>) -> Self {
        let values = RwLock::new(values.into());
        Self(Arc::new(Inner { file, parse, values, accepted: AtomicUsize::new(0) }))
    }

    /// All values, the current one first; never empty.
    pub fn all(&self) -> Arc<[T]> {
        Arc::clone(&self.0.values.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value to make new things with.
    pub fn current(&self) -> T {
        self.all()[0].clone()
    }

    /// Reads the file again; true if it holds something else now. What cannot be read or is no value
    /// changes nothing: it may be half written.
    pub fn reload(&self) -> bool {
        let Some(text) = self.0.file.as_ref().and_then(|path| std::fs::read_to_string(path).ok())
        else {
            return false;
        };
        let values: Option<Vec<T>> = lines(&text).map(self.0.parse).collect();
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            return false;
        };
        if values[..] == self.all()[..] {
            return false;
        }
        *self.0.values.write().unwrap_or_else(PoisonError::into_inner) = values.into();
        self.0.accepted.store(0, Ordering::Relaxed);
        true
    }

    /// The value that the service takes, as far as is known.
    pub fn accepted(&self) -> T {
        let all = self.all();
        all[self.0.accepted.load(Ordering::Relaxed) % all.len()].clone()
    }

    /// The service refused [`Rotating::accepted`]: reads the file again, and goes on to another
    /// value. How many there are to try.
    pub fn refused(&self) -> usize {
        if !self.reload() {
            self.0.accepted.fetch_add(1, Ordering::Relaxed);
        }
        self.all().len()
    }
}

impl Password {
    /// One that never changes.
    pub fn fixed(value: impl Into<String>) -> Self {
        Self::new(None, |text| Some(Secret::new(text.to_owned())), vec![Secret::new(value.into())])
    }
}

impl Keys {
    /// One that never changes.
    pub fn fixed(key: Key) -> Self {
        Self::new(None, |_| None, vec![key])
    }
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

    #[test]
    fn a_file_is_read_again_and_half_a_file_changes_nothing() {
        let path = std::env::temp_dir().join(format!("backend-rotating-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let parse = |text: &str| (text.len() == 3).then(|| text.to_owned());
        write("one\n");
        let secret = Rotating::new(Some(path.clone()), parse, vec!["one".to_owned()]);
        assert!(!secret.reload());
        for broken in ["", "tw", "two\non", "# two\n"] {
            write(broken);
            assert!(!secret.reload(), "{broken:?}");
            assert_eq!(secret.current(), "one");
        }
        write("two\n# until tomorrow\none\n");
        assert!(secret.reload());
        assert_eq!(secret.all()[..], ["two", "one"]);
        // A service that has not learnt the new one yet takes the previous one.
        assert_eq!(secret.accepted(), "two");
        assert_eq!(secret.refused(), 2);
        assert_eq!(secret.accepted(), "one");
        write("two\n");
        assert_eq!(secret.refused(), 1);
        assert_eq!(secret.accepted(), "two");
        std::fs::remove_file(&path).unwrap();
        assert!(!secret.reload());
    }
}

//! Reads variables one by one and remembers what was wrong with each.

use std::{fmt::Display, path::PathBuf, str::FromStr};

use super::{ConfigErrors, Key, Keys, Password, Rotating, Secret, rotating::lines};

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Looks variables up and collects errors until [`Reader::finish`].
pub struct Reader<'a> {
    lookup: Lookup<'a>,
    errors: Vec<String>,
}

impl Reader<'static> {
    /// The environment of this process.
    pub fn from_env() -> Self {
        Self::new(&|name| std::env::var(name).ok())
    }
}

impl<'a> Reader<'a> {
    /// Any source of variables; tests pass a map.
    pub fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, errors: Vec::new() }
    }

    /// Notes an error.
    pub fn reject(&mut self, error: impl Into<String>) {
        let error = error.into();
        // A variable that two settings share is read twice.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// An empty variable counts as missing: Compose passes `X=` for a variable left blank in .env.
    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// A variable that must be there.
    pub fn required(&mut self, name: &str) -> Option<String> {
        let value = self.optional(name);
        if value.is_none() {
            self.reject(format!("{name} is not set: .env.example says what it is for"));
        }
        value
    }

    /// A variable with a default, in the form that `expected` describes.
    pub fn parse<T>(&mut self, name: &str, default: &str, expected: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let value = self.optional(name).unwrap_or_else(|| default.to_owned());
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.reject(format!("{name} is `{value}` ({error}): set it to {expected}"));
                None
            }
        }
    }

    /// A password from `NAME`, or from the file that `NAME_FILE` names.
    pub fn secret(&mut self, name: &str) -> Option<Password> {
        let (file, values) = self.lines_of(name)?;
        let values = values.into_iter().map(Secret::new).collect();
        Some(Rotating::new(file, |text| Some(Secret::new(text.to_owned())), values))
    }

    /// A secret of 64 bytes in hexadecimal, from the same places.
    pub fn key(&mut self, name: &str) -> Option<Keys> {
        let (file, values) = self.lines_of(name)?;
        let keys: Option<Vec<Key>> = values.iter().map(|text| parse_key(text)).collect();
        if keys.is_none() {
            // The value itself stays out of the message: it may be a secret with a typing error.
            self.reject(format!(
                "{name} must be 64 bytes in hexadecimal (128 digits, not {}): generate one with \
                 `openssl rand -hex 64`",
                values[0].chars().count()
            ));
        }
        Some(Rotating::new(file, parse_key, keys?))
    }

    /// The values of a secret, and the file that they are in.
    fn lines_of(&mut self, name: &str) -> Option<(Option<PathBuf>, Vec<String>)> {
        let file_name = format!("{name}_FILE");
        match (self.optional(name), self.optional(&file_name)) {
            (Some(_), Some(_)) => {
                self.reject(format!("both {name} and {file_name} are set: keep one of them"));
                None
            }
            (Some(value), None) => Some((None, vec![value])),
            (None, Some(path)) => self.secret_file(&file_name, path),
            (None, None) => {
                self.reject(format!(
                    "{name} is not set: set it, or set {file_name} to the path of a file that \
                     holds it"
                ));
                None
            }
        }
    }

    fn secret_file(&mut self, name: &str, path: String) -> Option<(Option<PathBuf>, Vec<String>)> {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let values: Vec<String> = lines(&text).map(str::to_owned).collect();
                if values.is_empty() {
                    self.reject(format!(
                        "{name} names {path}, which is empty: write the secret to it"
                    ));
                    return None;
                }
                Some((Some(path.into()), values))
            }
            Err(error) => {
                self.reject(format!(
                    "{name} names {path}, which cannot be read ({error}): check the path and that \
                     user 10001 may read it"
                ));
                None
            }
        }
    }

    /// The value, or everything that was wrong.
    pub fn finish<T>(self, value: impl FnOnce() -> Option<T>) -> Result<T, ConfigErrors> {
        match value() {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ConfigErrors(self.errors)),
        }
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| Key::new(bytes))
}

//! Reads variables one by one and remembers what was wrong with each.

use std::{fmt::Display, path::Path, str::FromStr};

use super::{ConfigErrors, Rotating};

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

    /// A secret from `NAME`, or from the file that `NAME_FILE` names, which may change later.
    pub fn password(&mut self, name: &str) -> Option<Rotating<String>> {
        let parse: fn(&str) -> Option<String> = |line| (!line.is_empty()).then(|| line.to_owned());
        self.rotating(name, parse, "the secret")
    }

    /// A secret of 64 bytes in hexadecimal, given in the same ways.
    pub fn key(&mut self, name: &str) -> Option<Rotating<[u8; 64]>> {
        let parse: fn(&str) -> Option<[u8; 64]> = |line| {
            let mut bytes = [0; 64];
            hex::decode_to_slice(line, &mut bytes).ok().map(|()| bytes)
        };
        let expected = "64 bytes in hexadecimal (128 digits), as `openssl rand -hex 64` prints";
        self.rotating(name, parse, expected)
    }

    /// No value is repeated in a message: it may be a secret with a typing error.
    fn rotating<T>(
        &mut self,
        name: &str,
        parse: fn(&str) -> Option<T>,
        expected: &str,
    ) -> Option<Rotating<T>> {
        let file_name = format!("{name}_FILE");
        match (self.optional(name), self.optional(&file_name)) {
            (Some(_), Some(_)) => {
                self.reject(format!("both {name} and {file_name} are set: keep one of them"));
                None
            }
            (Some(value), None) => {
                let value = parse(&value).map(Rotating::fixed);
                if value.is_none() {
                    self.reject(format!("{name} is not usable: it must be {expected}"));
                }
                value
            }
            (None, Some(path)) => self.secret_file(&file_name, &path, parse, expected),
            (None, None) => {
                self.reject(format!(
                    "{name} is not set: set it, or set {file_name} to the path of a file that \
                     holds it"
                ));
                None
            }
        }
    }

    fn secret_file<T>(
        &mut self,
        name: &str,
        path: &str,
        parse: fn(&str) -> Option<T>,
        expected: &str,
    ) -> Option<Rotating<T>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.reject(format!(
                    "{name} names {path}, which cannot be read ({error}): check the path and that \
                     user 10001 may read it"
                ));
                return None;
            }
        };
        let secret =
            Rotating::of_file(name.trim_end_matches("_FILE"), Path::new(path), text, parse);
        if secret.is_none() {
            self.reject(format!("{name} names {path}, whose first line must be {expected}"));
        }
        secret
    }

    /// The value, or everything that was wrong.
    pub fn finish<T>(self, value: impl FnOnce() -> Option<T>) -> Result<T, ConfigErrors> {
        match value() {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ConfigErrors(self.errors)),
        }
    }
}

//! What a service is told about its world: twelve-factor, by environment variables.
//!
//! The values may be secrets, so nothing here can print one: `Debug` shows names only, and an error about an
//! `env_file` names the line and never what is on it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Variables by name, in the order of names.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("cannot read its env_file `{path}`: {error}")]
    Read { path: PathBuf, error: String },
    #[error("{path}:{line}: {what}")]
    Line { path: PathBuf, line: usize, what: &'static str },
}

/// What the operating system says of a failure, without its number for it.
pub(crate) fn os_words(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl Environment {
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds what a file says: `NAME=value` a line, `#` begins a comment, `export` is allowed, quotes are taken off.
    pub fn add_file(&mut self, path: &Path) -> Result<(), EnvFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| EnvFileError::Read { path: path.to_owned(), error: os_words(&error) })?;
        self.add_text(&text).map_err(|(line, what)| EnvFileError::Line { path: path.to_owned(), line, what })
    }

    fn add_text(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        for (at, line) in text.lines().enumerate() {
            let line_number = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((name, value)) = line.split_once('=') else {
                return Err((line_number, "no `=` here; write NAME=value"));
            };
            let name = name.trim();
            let is_name = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                return Err((line_number, "what stands before `=` is no name of a variable"));
            }
            let value = unquote(value.trim()).ok_or((line_number, "a quote is never closed"))?;
            if value.contains('\0') {
                return Err((line_number, "a NUL byte cannot be in a variable"));
            }
            self.set(name, value);
        }
        Ok(())
    }
}

fn unquote(value: &str) -> Option<String> {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        // A comment after a bare value needs a space before it, so that `a#b` stays whole.
        return Some(value.split(" #").next().unwrap_or("").trim_end().to_owned());
    };
    let inner = &value[1..];
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Some(out),
            '\\' if quote == '"' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

/// `cart` becomes `CART`, `cart-api.v2` becomes `CART_API_V2`: the stem of `$CART_URL`.
pub fn variable_stem(service: &str) -> String {
    service.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, &str)], (usize, &str)>) {
        let mut environment = Environment::default();
        let got = environment.add_text(text);
        match expected {
            Ok(pairs) => {
                got.expect("it parses");
                assert_eq!(environment.iter().collect::<Vec<_>>(), pairs);
            }
            Err((line, words)) => {
                let (at, what) = got.expect_err("it does not parse");
                assert!(at == line && what.contains(words), "{at}: {what}");
            }
        }
    }

    #[test]
    fn files_of_variables() {
        check("A=1\n# no\n\nexport B = two words # yes\n", Ok(&[("A", "1"), ("B", "two words")]));
        check(
            "A='x # y'\nB=\"q\\\"\\n\"\nC=\nD=a#b",
            Ok(&[("A", "x # y"), ("B", "q\"\n"), ("C", ""), ("D", "a#b")]),
        );
        check("A=1\nB", Err((2, "no `=`")));
        check("1A=1", Err((1, "no name")));
        check("A='x", Err((1, "never closed")));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let mut environment = Environment::default();
        environment.set("TOKEN", "hunter2");
        assert_eq!(format!("{environment:?}"), "{\"TOKEN\"}");
    }

    #[test]
    fn names_of_services_become_names_of_variables() {
        assert_eq!(variable_stem("cart-api.v2"), "CART_API_V2");
    }
}

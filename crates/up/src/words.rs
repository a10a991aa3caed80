//! A command as text, split into the words of a program's argument list.
//!
//! Most commands in a file are a program and a few arguments, and need no shell: without one there is no second
//! process to forget, no quoting surprise between machines, and a misspelt variable is a mistake and not an empty
//! word. So this understands quotes, backslashes and `$NAME`, and refuses what only a shell can do, naming
//! `shell: true` as the way to have it.

/// Why a command cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("the command is empty")]
    Empty,
    #[error("a {0} quote is never closed")]
    OpenQuote(&'static str),
    #[error("`{0}` needs a shell; say `shell: true`")]
    NeedsShell(char),
    #[error(
        "no variable is called `${0}`; `$PORT`, `$<SERVICE>_URL`, what `env` says and isobar's own environment are known"
    )]
    UnknownVariable(String),
    #[error("a `$` stands before nothing; write `\\$` for the sign itself")]
    BareDollar,
}

/// Splits `text`; `$NAME` and `${NAME}` become what `lookup` says, as part of one word however many spaces they hold.
pub fn split(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\'' if !quoted => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(WordsError::OpenQuote("single")),
                    }
                }
            }
            '\\' => {
                let next = chars.next().unwrap_or('\\');
                // Inside double quotes a backslash is itself except before what it could protect, as in a shell.
                if quoted && !matches!(next, '"' | '\\' | '$') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            '$' => {
                let name = variable(&mut chars)?;
                let value = lookup(&name).ok_or(WordsError::UnknownVariable(name))?;
                word.get_or_insert_default().push_str(&value);
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            '|' | '&' | ';' | '<' | '>' | '`' | '*' | '(' | ')' if !quoted => {
                return Err(WordsError::NeedsShell(c));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(WordsError::OpenQuote("double"));
    }
    words.extend(word);
    if words.is_empty() { Err(WordsError::Empty) } else { Ok(words) }
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, WordsError> {
    let mut name = String::new();
    if chars.next_if_eq(&'{').is_some() {
        for c in chars.by_ref() {
            if c == '}' {
                return if name.is_empty() { Err(WordsError::BareDollar) } else { Ok(name) };
            }
            name.push(c);
        }
        return Err(WordsError::OpenQuote("`${`"));
    }
    if chars.peek() == Some(&'(') {
        return Err(WordsError::NeedsShell('$'));
    }
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if name.is_empty() { Err(WordsError::BareDollar) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[&str], &str>) {
        let lookup = |name: &str| match name {
            "PORT" => Some("8081".to_owned()),
            "SPACED" => Some("a b".to_owned()),
            _ => None,
        };
        let got = split(text, lookup).map_err(|it| it.to_string());
        let got = got.as_ref().map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
        match (&got, expected) {
            (Ok(words), Ok(expected)) => assert_eq!(words, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            _ => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn commands_become_words() {
        check("./web --port $PORT", Ok(&["./web", "--port", "8081"]));
        check("  a\tb\n c ", Ok(&["a", "b", "c"]));
        check("echo 'a b' \"c d\" e\\ f", Ok(&["echo", "a b", "c d", "e f"]));
        check("x --addr=:${PORT}/y", Ok(&["x", "--addr=:8081/y"]));
        check("x $SPACED", Ok(&["x", "a b"]));
        check("x '$PORT' \\$PORT", Ok(&["x", "$PORT", "$PORT"]));
        check("x \"$PORT;|\" ''", Ok(&["x", "8081;|", ""]));
        check("x \"a\\n\\\"\"", Ok(&["x", "a\\n\""]));
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused_by_name() {
        check("a | b", Err("`|` needs a shell; say `shell: true`"));
        check("a && b", Err("`&` needs a shell"));
        check("a > b", Err("`>`"));
        check("a $(b)", Err("`$` needs a shell"));
        check("x $PROT", Err("no variable is called `$PROT`"));
        check("x 'a", Err("single quote is never closed"));
        check("x \"a", Err("double quote"));
        check("x $ y", Err("before nothing"));
        check("  ", Err("empty"));
    }
}

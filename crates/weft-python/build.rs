//! Tells the sources which Python this is, and turns the docstrings of the stub file into those of the extension's types, so that they have one home.

use std::fmt::Write as _;
use std::{env, fs, path::Path};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/weft/_weft.pyi");
    println!("cargo::rerun-if-changed={}", stub.display());
    let text = fs::read_to_string(&stub).unwrap_or_else(|error| panic!("cannot read {}: {error}", stub.display()));
    let mut table = String::from("pub static DOCS: &[(&str, &str)] = &[\n");
    for (name, doc) in docstrings(&text).into_iter().chain(docstrings(PROTOCOL)) {
        writeln!(table, "    ({name:?}, {:?}),", doc + "\0").expect("writing to a string");
    }
    table.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("docs.rs");
    fs::write(out, table).expect("OUT_DIR is writable");
}

/// What schedulers call on an operation that is awaited, written as a stub. It is no part of the surface, and `help` shall say so.
const PROTOCOL: &str = r#"
class Op:
    def throw(self, type, value=None, traceback=None, /):
        """For schedulers: the coroutine that awaits this is thrown an exception."""
    def close(self):
        """For schedulers: the coroutine that awaits this is destroyed."""
    def get_loop(self):
        """For asyncio's tasks, as of a future: the loop in which this waits."""
    def add_done_callback(self, fn, *, context=None):
        """For asyncio's tasks, as of a future: call `fn` once this is decided. Only one can be given."""
    def done(self):
        """For asyncio's tasks, as of a future: whether this waits no more."""
    def cancelled(self):
        """For asyncio's tasks, as of a future: whether this was withdrawn by `cancel`."""
    def result(self):
        """For asyncio's tasks, as of a future: None, or CancelledError. What the operation gave is what `await` returns."""
    def cancel(self, msg=None):
        """For asyncio's tasks, as of a future: withdraw it. When it has happened already, the task is cancelled where it
        waits next."""
"#;

/// A docstring with the line in front from which `inspect.signature` works.
fn documented(name: &str, parameters: &str, doc: &str) -> String {
    format!("{name}{parameters}\n--\n\n{doc}")
}

/// The docstrings of a stub file, as (`Class`, `Class.method` or `.function`, text) with a signature line in front for what can be called.
/// A method without a docstring has its signature alone.
fn docstrings(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut class = String::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = line.len() - line.trim_start().len();
        let word = line.trim_start();
        let (kind, rest) = match word.strip_prefix("async ").unwrap_or(word).split_once(' ') {
            Some((kind @ ("class" | "def"), rest)) => (kind, rest),
            _ => {
                at += 1;
                continue;
            }
        };
        let property = at > 0 && lines[at - 1].trim() == "@property";
        let bound = !(at > 0 && lines[at - 1].trim() == "@staticmethod");
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // The head may span lines: it ends with the colon outside brackets.
        let mut head = String::new();
        let mut depth = 0_i32;
        'head: while at < lines.len() {
            for c in lines[at].chars() {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth -= 1,
                    ':' if depth == 0 => {
                        at += 1;
                        break 'head;
                    }
                    '#' => break,
                    _ => {}
                }
                head.push(c);
            }
            at += 1;
        }
        let key = match (kind, indent) {
            ("class", _) => {
                class.clone_from(&name);
                name.clone()
            }
            (_, 0) => format!(".{name}"),
            _ => format!("{class}.{name}"),
        };
        let first = lines.get(at).map_or("", |line| line.trim_start());
        let Some(first) = first.strip_prefix("r\"\"\"").or_else(|| first.strip_prefix("\"\"\"")) else {
            if name == "__new__" {
                // How a class is called belongs to the class.
                if let Some((_, doc)) = found.iter_mut().find(|(known, _)| *known == class) {
                    *doc = documented(&class, &listed(&parameters(&head)[1..]), doc);
                }
            } else if kind == "def" && indent > 0 {
                found.push((key, documented(&name, &signature(&head, bound), "")));
            }
            continue;
        };
        let margin = lines[at].len() - lines[at].trim_start().len();
        let mut doc = String::new();
        if let Some(whole) = first.strip_suffix("\"\"\"") {
            doc.push_str(whole);
        } else {
            doc.push_str(first);
            for line in &lines[at + 1..] {
                doc.push('\n');
                let line = &line[margin.min(line.len() - line.trim_start().len())..];
                if let Some(last) = line.strip_suffix("\"\"\"") {
                    doc.push_str(last.trim_end());
                    break;
                }
                doc.push_str(line);
            }
        }
        let doc = doc.trim_end().to_owned();
        if found.iter().any(|(known, _)| *known == key) {
            continue;
        }
        let doc = if kind == "def" && !property {
            documented(&name, &signature(&head, bound && indent > 0), &doc)
        } else {
            doc
        };
        found.push((key, doc));
    }
    found
}

/// `(self, value: T, *, name: str = "x") -> X` as `($self, value, *, name="x")`.
fn signature(head: &str, method: bool) -> String {
    let mut shown = parameters(head);
    if let Some(first) = shown.first_mut().filter(|_| method) {
        match first.as_str() {
            "self" => *first = "$self".to_owned(),
            "cls" => *first = "$type".to_owned(),
            _ => {}
        }
    }
    listed(&shown)
}

fn listed(parameters: &[String]) -> String {
    format!("({})", parameters.join(", "))
}

/// The parameters of a function's head, without their types.
fn parameters(head: &str) -> Vec<String> {
    let inside = head.split_once('(').map_or("", |(_, rest)| rest);
    let mut depth = 0_i32;
    let mut whole = vec![String::new()];
    for c in inside.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                whole.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = whole.last_mut() {
            last.push(c);
        }
    }
    whole
        .iter()
        .map(|parameter| parameter.trim())
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let name = parameter.split([':', '=']).next().unwrap_or_default().trim();
            match parameter.rsplit_once('=') {
                Some((_, default)) => format!("{name}={}", default.trim()),
                None => name.to_owned(),
            }
        })
        .collect()
}

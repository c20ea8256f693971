//! Tells the sources which Python this is, and turns the docstrings of the stub file into those of the extension's types, so that they have one home.

use std::fmt::Write as _;
use std::{env, fs, path::Path};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/weft/_weft.pyi");
    println!("cargo::rerun-if-changed={}", stub.display());
    let text = fs::read_to_string(&stub).unwrap_or_else(|error| panic!("cannot read {}: {error}", stub.display()));
    let mut table = String::from("pub static DOCS: &[(&str, &str)] = &[\n");
    for (name, doc) in docstrings(&text) {
        writeln!(table, "    ({name:?}, {:?}),", doc + "\0").expect("writing to a string");
    }
    table.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("docs.rs");
    fs::write(out, table).expect("OUT_DIR is writable");
}

/// The docstrings of a stub file, as (`Class`, `Class.method` or `.function`, text) with a signature line in front for callables.
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
        let Some(first) = lines.get(at).map(|line| line.trim_start()) else {
            break;
        };
        let Some(first) = first.strip_prefix("r\"\"\"").or_else(|| first.strip_prefix("\"\"\"")) else {
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
                let line = if line.len() >= margin { &line[margin.min(line.len() - line.trim_start().len())..] } else { line.trim_start() };
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
        let doc = if kind == "def" && !property && name != "__init__" && name != "__new__" {
            format!("{name}{}\n--\n\n{doc}", signature(&head, bound && indent > 0))
        } else {
            doc
        };
        found.push((key, doc));
    }
    found
}

/// `(self, value: T, *, name: str = ...) -> X` as `($self, value, *, name=...)`.
fn signature(head: &str, method: bool) -> String {
    let inside = head.split_once('(').map_or("", |(_, rest)| rest);
    let mut depth = 0_i32;
    let mut parameters = vec![String::new()];
    for c in inside.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parameters.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parameters.last_mut() {
            last.push(c);
        }
    }
    let mut shown: Vec<String> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let parameter = parameter.trim();
        if parameter.is_empty() {
            continue;
        }
        let name = parameter.split([':', '=']).next().unwrap_or_default().trim();
        let default = parameter.rsplit_once('=').map(|(_, value)| value.trim());
        let name = if index == 0 && method && (name == "self" || name == "cls") {
            if name == "self" { "$self" } else { "$type" }
        } else {
            name
        };
        shown.push(match default {
            Some(value) => format!("{name}={value}"),
            None => name.to_owned(),
        });
    }
    format!("({})", shown.join(", "))
}

//! Docstrings, taken from the stub file by the build script.

use std::ffi::c_char;
use std::ptr;

include!(concat!(env!("OUT_DIR"), "/docs.rs"));

/// The docstring of a class (`name` empty), a method, or a function (`class` empty); null when the stub has none.
pub fn doc(class: &str, name: &str) -> *const c_char {
    DOCS.iter()
        .find(|(key, _)| match key.split_once('.') {
            Some((a, b)) => a == class && b == name,
            None => name.is_empty() && *key == class,
        })
        .map_or(ptr::null(), |(_, text)| text.as_ptr().cast())
}

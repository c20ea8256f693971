//! What leaves an interpreter: values that belong to none (`payload`, made by `encode`, undone by `decode`), channels that several places share
//! (`share`, `work`), who is told of what they drop (`undelivered`), and how a place is told what was decided elsewhere (`place`). The interpreters
//! themselves are made in `interpreter`.

pub mod decode;
pub mod encode;
pub mod interpreter;
pub mod payload;
pub mod place;
pub mod remote;
pub mod share;
pub mod undelivered;
pub mod work;

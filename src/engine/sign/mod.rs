//! Signatures: keys, what they sign, and which of them are trusted.
//!
//! Invariant: fail closed. Nothing is taken as signed but what a trusted key signed as just
//! this: a statement names the scheme, its version and the kind of thing before it says
//! which, so that no signature of one thing is one of another.

mod key;
mod key_file;
mod policy;
mod statement;
mod trusted;

pub use key::{KeyError, PublicKey, SecretKey};
pub use key_file::{read_secret, read_secret_from, write_secret};
pub use policy::{Admission, Place, Require, Requirements, Signing};
pub use statement::Statement;
pub use trusted::{MAX_SIGNATURES, SignatureFault, TrustedKeys, add_signature};

//! What a signature is over.
//!
//! Invariant: a statement's first line is the scheme and its version, its second the kind of
//! thing; all else has one length a kind. Two statements are therefore never equal in bytes.

/// Another scheme, or another reading of the bytes that follow, has another line.
const SCHEME: &[u8] = b"jitc-signature-v1\n";

/// What a signature is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement(Vec<u8>);

impl Statement {
    /// That the entry of this key has the manifest of this SHA-256, which binds code,
    /// source, log and headers.
    #[must_use]
    pub fn entry(key: &[u8; 32], manifest: &[u8; 32]) -> Self {
        Self([SCHEME, b"entry\n", key, manifest].concat())
    }

    /// That a receipt's bytes, without its signatures, have this SHA-256.
    #[must_use]
    pub fn receipt(digest: &[u8; 32]) -> Self {
        Self([SCHEME, b"receipt\n", digest].concat())
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_scheme_version_and_kind_before_what_it_is_about() {
        let entry = Statement::entry(&[1; 32], &[2; 32]);
        let bytes = entry.as_bytes();
        assert!(bytes.starts_with(b"jitc-signature-v1\nentry\n"));
        assert_eq!(bytes[24..], [[1; 32], [2; 32]].concat());
        let receipt = Statement::receipt(&[1; 32]);
        assert!(receipt.as_bytes().starts_with(b"jitc-signature-v1\nreceipt\n"));
        assert_eq!(receipt.as_bytes().len(), 26 + 32);
    }
}

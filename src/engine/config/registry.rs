//! Registries of images as stores, by their URLs, and who we are to one.
//!
//! Invariant: what is taken of a URL is what a registry's own clients would take, letter for
//! letter: no name is rewritten.

use std::collections::HashMap;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::login::Login;
use super::remote::RemotePlace;

const EXPECTED: &str = "expected oci://REGISTRY/REPOSITORY:TAG, or @sha256:DIGEST instead of :TAG";
/// The tag where none is named, as for every client of a registry.
const USUAL_TAG: &str = "latest";
/// What Docker's own registry is called, where it answers, and as what it is logged in to.
const DOCKER: [&str; 3] = ["docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"];

/// The place of a URL; `plain_http` is what its option says.
pub(super) fn place(url: &Url, host: &str, plain_http: Option<bool>) -> Result<RemotePlace, String> {
    let path = url.path().trim_start_matches('/');
    let (repository, reference) = match path.split_once('@') {
        Some((repository, digest)) => (repository, digest.to_owned()),
        None => match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag.to_owned()),
            None => (path, USUAL_TAG.to_owned()),
        },
    };
    if !repository.split('/').all(is_name) || repository.len() > 255 {
        return Err(format!(
            "{EXPECTED}; the repository in lower-case letters, digits and ._-"
        ));
    }
    if !is_digest(&reference) && !is_tag(&reference) {
        return Err(format!("`:` or `@`: {EXPECTED}"));
    }
    // As clients of registries do: only this machine is asked without TLS unasked.
    let is_plain = plain_http.unwrap_or_else(|| is_loopback(host));
    let server = if host == DOCKER[0] { DOCKER[1] } else { host };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let scheme = if is_plain { "http" } else { "https" };
    Ok(RemotePlace::Registry {
        endpoint: format!("{scheme}://{server}{port}"),
        host: format!("{host}{port}"),
        repository: repository.to_owned(),
        reference,
    })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = |ip: std::net::IpAddr| ip.is_loopback();
    host == "localhost" || bare.parse().is_ok_and(is_address)
}

fn is_name(part: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(is_letter)
        && part.ends_with(is_letter)
        && part.chars().all(|c| is_letter(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || ".-".contains(c))
}

/// Whether it is `sha256:` and a digest.
fn is_digest(text: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let digest = text.strip_prefix("sha256:");
    digest.is_some_and(|digest| digest.len() == 64 && digest.chars().all(is_hex))
}

/// The part of Docker's and Podman's file of credentials that is read.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    auths: HashMap<String, Auth<'a>>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    /// `user:password` in base64, where it lies in the file's text.
    #[serde(borrow)]
    auth: Option<&'a str>,
}

/// What such a file says of a registry, or of the longest part of a repository in it.
pub(super) fn in_auths(text: &str, host: &str, repository: &str) -> Option<Login> {
    let file: File = serde_json::from_str(text).ok()?;
    let mut name = format!("{host}/{repository}");
    let auth = loop {
        if let Some(found) = file.auths.get(name.as_str()) {
            break found;
        }
        match name.rfind('/') {
            Some(at) => name.truncate(at),
            None if host == DOCKER[0] => break file.auths.get(DOCKER[2])?,
            None => {
                // As older clients wrote it.
                let urls = [format!("https://{host}"), format!("https://{host}/v1/")];
                break urls.iter().find_map(|url| file.auths.get(url.as_str()))?;
            }
        }
    };
    let decoded = Zeroizing::new(Base64::decode_vec(auth.auth?).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Login::new(user, password.trim_end_matches('\0')))
}

#[cfg(test)]
mod tests {
    use super::super::remote::RemoteStore;
    use super::*;

    fn parts(text: &str) -> [String; 4] {
        let store = RemoteStore::parse(text).expect(text);
        match store.place() {
            RemotePlace::Registry {
                endpoint,
                host,
                repository,
                reference,
            } => [endpoint, host, repository, reference].map(Clone::clone),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_registry_is_read_as_its_own_clients_read_it() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, expected) in [
            (
                "oci://ghcr.io/team/kernels:rel-1",
                ["https://ghcr.io", "ghcr.io", "team/kernels", "rel-1"],
            ),
            (
                "oci://host:5000/k?role=write",
                ["https://host:5000", "host:5000", "k", "latest"],
            ),
            (
                "oci://localhost:5000/k:a",
                ["http://localhost:5000", "localhost:5000", "k", "a"],
            ),
            (
                "oci://[::1]:5000/k:a",
                ["http://[::1]:5000", "[::1]:5000", "k", "a"],
            ),
            (
                "oci://127.0.0.1/k:a?plain_http=0",
                ["https://127.0.0.1", "127.0.0.1", "k", "a"],
            ),
            ("oci://host/k:a?plain_http=1", ["http://host", "host", "k", "a"]),
            (
                "oci://docker.io/team/k:a",
                ["https://registry-1.docker.io", "docker.io", "team/k", "a"],
            ),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
        assert_eq!(
            parts(&format!("oci://host/a/b@{digest}"))[2..],
            ["a/b".to_owned(), digest]
        );
        let store = RemoteStore::parse("oci://host/a/b:c?role=read-write").expect("a store");
        assert_eq!(store.name(), "oci://host/a/b:c");
    }

    #[test]
    fn what_no_registry_would_take_is_refused_with_what_would_be_right() {
        for (text, words) in [
            ("oci://host", "REPOSITORY:TAG"),
            ("oci://host/", "REPOSITORY:TAG"),
            ("oci://host/Upper:a", "lower-case"),
            ("oci://host/-a:c", "lower-case"),
            ("oci://host/a:", "REPOSITORY:TAG"),
            ("oci://host/a:.x", "REPOSITORY:TAG"),
            ("oci://host/a@sha256:0a", "DIGEST"),
            ("oci:///a:b", "names no host"),
            ("oci://host/a:b?plain_http=maybe", "plain_http: expected 1 or 0"),
            ("oci://host/a:b?anonymous=1", "is not an option"),
            ("oci://me:hush@host/a:b", "no credentials"),
        ] {
            let error = RemoteStore::parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hush") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_registry_is_told_what_docker_and_podman_keep_of_it_alone() {
        // `ops:hush`, `part:hush:er`, `hub:hush`.
        let text = r#"{"auths": {"host:5000": {"auth": "b3BzOmh1c2g="},
            "host:5000/team": {"auth": "cGFydDpodXNoOmVy"}, "empty": {},
            "https://old/v1/": {"auth": "b3BzOmh1c2g="}, "broken": {"auth": "?"},
            "https://index.docker.io/v1/": {"auth": "aHViOmh1c2g="}}, "credsStore": "desktop"}"#;
        let of = |host, repository| in_auths(text, host, repository);
        assert_eq!(of("host:5000", "k"), Some(Login::new("ops", "hush")));
        assert_eq!(of("host:5000", "team/k"), Some(Login::new("part", "hush:er")));
        assert_eq!(of("old", "k"), Some(Login::new("ops", "hush")));
        assert_eq!(of("docker.io", "team/k"), Some(Login::new("hub", "hush")));
        for host in ["host", "empty", "broken", "third"] {
            assert_eq!(of(host, "k"), None, "{host}");
        }
        assert_eq!(in_auths("not JSON", "host:5000", "k"), None);
    }
}

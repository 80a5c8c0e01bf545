//! How web servers are asked, whatever is kept there.
//!
//! Invariant: nobody is led from TLS to where there is none, no more is read of an answer
//! than is allowed, and nothing that a server says in words is passed on.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt;

use super::blobs::Trouble;

/// A client that waits so long for a connection, and is led nowhere without TLS by one
/// that has it.
pub(super) fn client(connect: Duration) -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider);
    let tls = tls
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let tls = match tls.clone().with_platform_verifier() {
        Ok(tls) => tls.with_no_client_auth(),
        // An image without certificates: no server with TLS is trusted.
        Err(_) => tls
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    };
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        let secure = |url: &url::Url| url.scheme() == "https";
        let leaves_tls = attempt.previous().iter().any(secure) && !secure(attempt.url());
        if leaves_tls || attempt.previous().len() > 3 {
            attempt.stop()
        } else {
            attempt.follow()
        }
    });
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect)
        .redirect(redirects)
        .referer(false)
        .user_agent(concat!("jitc/", env!("CARGO_PKG_VERSION")));
    client.build().map_err(|e| e.to_string())
}

/// What lies under an error that can be said in words of our own: those of a server may hold
/// anything.
pub(super) fn cause(error: &dyn Error) -> Option<Trouble> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>()
            && error.get_ref().is_none_or(|own| own.source().is_none())
        {
            return Some(Trouble::Failed(error.to_string()));
        }
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return Some(Trouble::Failed(error.to_string()));
        }
        cause = inner.source();
    }
    None
}

/// A request that found no answer.
pub(super) fn unanswered(error: &reqwest::Error) -> Trouble {
    cause(error).unwrap_or_else(|| {
        Trouble::Failed(
            if error.is_connect() {
                "the connection is not to be had"
            } else {
                "the connection broke"
            }
            .to_owned(),
        )
    })
}

/// The body of an answer, of which no more is read than this.
pub(super) async fn body(mut response: reqwest::Response, limit: u64) -> Result<Vec<u8>, Trouble> {
    let too_long = || Trouble::TooLong(limit);
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unanswered(&e))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

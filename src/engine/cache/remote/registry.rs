//! Requests to a registry of images, and the tokens that it wants to see.
//!
//! By requests of our own and not through a client crate: those read whatever is sent to its
//! end, and pass a server's words on.
//!
//! Invariant: what says who we are goes to the registry, to where it has its tokens made,
//! and nowhere else; a token is kept for as long as the registry takes it.

use std::sync::{Mutex, PoisonError};

use base64ct::{Base64, Encoding};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

use super::blobs::Trouble;
use super::web_client::{body, unanswered};
use crate::engine::config::remote::Login;

/// What a server of tokens may say.
const TOKEN_LIMIT: u64 = 64 << 10;

/// A repository in a registry.
pub(super) struct Registry {
    client: reqwest::Client,
    /// `https://host/v2/repository/`.
    base: Url,
    /// What a token has to be good for.
    scope: String,
    login: Option<Login>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// What a request carries.
enum Payload<'a> {
    Nothing,
    Bytes { media_type: &'a str, bytes: Vec<u8> },
}

/// What a registry wants to see.
enum Wanted {
    Password,
    Token(Maker),
}

/// Who makes tokens, and of what kind.
struct Maker {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(super) fn new(
        client: reqwest::Client,
        (endpoint, repository): (&str, &str),
        login: Option<&Login>,
        writes: bool,
    ) -> Result<Self, String> {
        let base = Url::parse(&format!("{endpoint}/v2/{repository}/")).map_err(|e| e.to_string())?;
        let actions = if writes { "pull,push" } else { "pull" };
        Ok(Self {
            client,
            base,
            scope: format!("repository:{repository}:{actions}"),
            login: login.cloned(),
            authorization: Mutex::default(),
        })
    }

    /// The bytes of a manifest by tag or digest; `None`: there is none.
    pub(super) async fn manifest(
        &self,
        reference: &str,
        media_type: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let url = self.url(&format!("manifests/{reference}"))?;
        self.get(url, Some(media_type), limit).await
    }

    /// Puts a manifest there, whose blobs are there, and lets a tag lead to it.
    pub(super) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Trouble> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let payload = Payload::Bytes { media_type, bytes };
        let response = self.send(Method::PUT, url, None, payload).await?;
        expected(response.status(), StatusCode::CREATED)
    }

    /// The bytes of a digest, verified; `None`: they are not there.
    pub(super) async fn blob(&self, digest: &str, size: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let bytes = self.get(url, None, size).await?;
        match bytes {
            Some(bytes) if digest_of(&bytes) != digest => Err(Trouble::Damaged(
                "what it sends does not fit its digest: it was altered, or cut short".to_owned(),
            )),
            bytes => Ok(bytes),
        }
    }

    /// Puts bytes under their digest, unless they are there.
    pub(super) async fn put_blob(&self, bytes: Vec<u8>) -> Result<(), Trouble> {
        let digest = digest_of(&bytes);
        let url = self.url(&format!("blobs/{digest}"))?;
        let there = self.send(Method::HEAD, url, None, Payload::Nothing).await?;
        match there.status() {
            StatusCode::OK => return Ok(()),
            StatusCode::NOT_FOUND => {}
            status => return expected(status, StatusCode::OK),
        }
        let uploads = self.url("blobs/uploads/")?;
        let begun = self.send(Method::POST, uploads, None, Payload::Nothing).await?;
        expected(begun.status(), StatusCode::ACCEPTED)?;
        let location = begun.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let location = location.and_then(|to| self.base.join(to).ok());
        let Some(mut location) = location.filter(|to| self.may_lead_to(to)) else {
            return Err(Trouble::Failed(
                "it does not say where to send what it takes".to_owned(),
            ));
        };
        location.query_pairs_mut().append_pair("digest", &digest);
        let media_type = "application/octet-stream";
        let payload = Payload::Bytes { media_type, bytes };
        let done = self.send(Method::PUT, location, None, payload).await?;
        expected(done.status(), StatusCode::CREATED)
    }

    async fn get(&self, url: Url, accept: Option<&str>, limit: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let response = self.send(Method::GET, url, accept, Payload::Nothing).await?;
        match response.status() {
            StatusCode::OK => body(response, limit).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => expected(status, StatusCode::OK).map(|()| None),
        }
    }

    /// A request; once more where the registry wants to know who asks.
    async fn send(
        &self,
        method: Method,
        url: Url,
        accept: Option<&str>,
        payload: Payload<'_>,
    ) -> Result<reqwest::Response, Trouble> {
        let mut is_second = false;
        loop {
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            let authorization = self.lock().clone();
            if let Some(value) = authorization.filter(|_| url.origin() == self.base.origin()) {
                request = request.header(AUTHORIZATION, value);
            }
            if let Payload::Bytes { media_type, bytes } = &payload {
                request = request.header(CONTENT_TYPE, *media_type).body(bytes.clone());
            }
            let response = request.send().await.map_err(|e| unanswered(&e))?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !is_second => {
                    let wanted = wanted(response.headers());
                    drop(response);
                    let authorization = self.introduce(wanted).await?;
                    *self.lock() = Some(authorization);
                    is_second = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Trouble::Denied),
                _ => return Ok(response),
            }
        }
    }

    /// What the registry wants to see of us, as it says where it refuses.
    async fn introduce(&self, wanted: Option<Wanted>) -> Result<HeaderValue, Trouble> {
        match (wanted, &self.login) {
            (Some(Wanted::Token(maker)), _) => self.token(maker).await,
            (Some(Wanted::Password), Some(login)) => secret(&basic(login)),
            _ => Err(Trouble::Denied),
        }
    }

    /// A token from where the registry has them made.
    async fn token(&self, maker: Maker) -> Result<HeaderValue, Trouble> {
        let url = Url::parse(&maker.realm).ok();
        let url = url.filter(|url| self.may_lead_to(url));
        let Some(mut url) = url else {
            return Err(Trouble::Failed(
                "it has its tokens made where they would not be safe".to_owned(),
            ));
        };
        if let Some(service) = maker.service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let scope = maker.scope.filter(|scope| !scope.is_empty());
        let scope = scope.as_deref().unwrap_or(&self.scope);
        url.query_pairs_mut().append_pair("scope", scope);
        let mut request = self.client.get(url);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, secret(&basic(login))?);
        }
        let response = request.send().await.map_err(|e| unanswered(&e))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Trouble::Denied),
            status => {
                return Err(Trouble::Failed(format!(
                    "where its tokens are made the answer is {}",
                    status.as_u16()
                )));
            }
        }
        let bytes = body(response, TOKEN_LIMIT)
            .await
            .map_err(|trouble| match trouble {
                Trouble::TooLong(_) => Trouble::Failed("where its tokens are made one has no end".to_owned()),
                other => other,
            });
        let bytes = Zeroizing::new(bytes?);
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        match token.and_then(|said| said.token.or(said.access_token)) {
            Some(token) => secret(&format!("Bearer {token}")),
            None => Err(Trouble::Failed(
                "where its tokens are made there is none".to_owned(),
            )),
        }
    }

    /// Whether it may send us there: not away from TLS.
    fn may_lead_to(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.scheme() == "http" && self.base.scheme() == "http"
    }

    fn url(&self, path: &str) -> Result<Url, Trouble> {
        self.base.join(path).map_err(|e| Trouble::Failed(e.to_string()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of its ways that is known here.
fn wanted(headers: &HeaderMap) -> Option<Wanted> {
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
    let challenges = challenges.filter_map(|header| http_auth::parse_challenges(header.to_str().ok()?).ok());
    challenges.flatten().find_map(|challenge| {
        let said = |name: &str| {
            let mut said = challenge.params.iter();
            let said = said.find(|(known, _)| known.eq_ignore_ascii_case(name));
            said.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Wanted::Password);
        }
        let is_token = challenge.scheme.eq_ignore_ascii_case("bearer");
        let realm = said("realm").filter(|_| is_token)?;
        Some(Wanted::Token(Maker {
            realm,
            service: said("service"),
            scope: said("scope"),
        }))
    })
}

/// `sha256:` and the digest of bytes.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn basic(login: &Login) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("{}:{}", login.user, login.password()));
    Zeroizing::new(format!("Basic {}", Base64::encode_string(plain.as_bytes())))
}

/// A header that no log shows.
fn secret(text: &str) -> Result<HeaderValue, Trouble> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Trouble::Failed("its token is none that could be sent back".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn expected(status: StatusCode, expected: StatusCode) -> Result<(), Trouble> {
    if status == expected {
        return Ok(());
    }
    Err(match status {
        StatusCode::NOT_FOUND => Trouble::Failed("there is no such repository".to_owned()),
        StatusCode::PAYLOAD_TOO_LARGE => Trouble::Failed("it does not take so much".to_owned()),
        StatusCode::TOO_MANY_REQUESTS => {
            Trouble::Failed("it answers that there are too many requests".to_owned())
        }
        status => Trouble::Failed(format!("it answers {}", status.as_u16())),
    })
}

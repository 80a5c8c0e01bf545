//! A registry of images of the tests' own, and every way to be of no use.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jitc::engine::config::remote::RemoteStore;
use sha2::{Digest, Sha256};

use crate::events::store;
use crate::server::{Mood, Request, accept, give, misbehave, read_request, say};

/// What the registry holds, and how it behaves.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifests: BTreeMap<String, Vec<u8>>,
    /// Methods and paths, in order.
    pub(crate) requests: Vec<(String, String)>,
    /// What becomes of a GET whose path has this part.
    pub(crate) mood: Option<(&'static str, Mood)>,
    /// The header that a request has to have, and what is said to who has it not.
    pub(crate) wanted: Option<(String, String)>,
    /// The header that the maker of tokens has to see, and its answer.
    pub(crate) maker: (Option<String>, String),
    /// Where blobs are, if not here.
    pub(crate) elsewhere: Option<String>,
    /// Whether any request had the header.
    pub(crate) saw_authorization: bool,
}

/// A registry on this machine; it ends with the process.
#[derive(Clone)]
pub(crate) struct Fake {
    held: Arc<Mutex<Held>>,
    pub(crate) port: u16,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let fake = Self {
            held: Arc::default(),
            port,
        };
        let serving = fake.clone();
        accept(listener, move |stream| serving.serve(stream));
        fake
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn store(&self, reference: &str, options: &str) -> RemoteStore {
        store(&format!(
            "oci://127.0.0.1:{}/team/kernels{reference}?{options}",
            self.port
        ))
    }

    /// How many requests of this method have this in their path.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        let held = self.held();
        let is_meant = |(m, path): &&(String, String)| m == method && path.contains(part);
        held.requests.iter().filter(is_meant).count()
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(mut out) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader) {
            if !self.answer(&request, &mut out) {
                return;
            }
        }
    }

    /// Answers; says whether the connection stays.
    fn answer(&self, request: &Request, out: &mut TcpStream) -> bool {
        let mut held = self.held();
        held.requests.push((request.method.clone(), request.path.clone()));
        held.saw_authorization |= request.authorization.is_some();
        if request.path.starts_with("/token?") {
            let (wanted, said) = held.maker.clone();
            drop(held);
            let is_known = wanted.is_none() || wanted == request.authorization;
            return say(out, if is_known { 200 } else { 401 }, said.as_bytes());
        }
        if let Some((wanted, challenge)) = held.wanted.clone()
            && request.authorization.as_deref() != Some(&wanted)
        {
            drop(held);
            let answer = format!(
                "HTTP/1.1 401 said\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 4\r\n\r\nhush"
            );
            return out.write_all(answer.as_bytes()).is_ok();
        }
        let path = request.path.strip_prefix("/v2/team/kernels/").unwrap_or_default();
        let (kind, name) = path.split_once('/').unwrap_or_default();
        match (request.method.as_str(), kind) {
            ("GET" | "HEAD", _) => {
                let all = if kind == "blobs" {
                    &held.blobs
                } else {
                    &held.manifests
                };
                let found = all.get(name).cloned();
                let (mood, elsewhere) = (held.mood, held.elsewhere.clone());
                drop(held);
                match (found, mood) {
                    (_, Some((part, mood))) if request.path.contains(part) && request.method == "GET" => {
                        self.misgive(mood, request, out)
                    }
                    (None, _) if request.method == "HEAD" => say(out, 404, b""),
                    (None, _) => say(out, 404, b"no such thing"),
                    (Some(_), _) if request.method == "HEAD" => say(out, 200, b""),
                    (Some(_), _) if kind == "blobs" && elsewhere.is_some() => {
                        let to = elsewhere.unwrap_or_default();
                        let answer = format!(
                            "HTTP/1.1 307 said\r\nLocation: {to}{}\r\nContent-Length: 0\r\n\r\n",
                            request.path
                        );
                        out.write_all(answer.as_bytes()).is_ok()
                    }
                    (Some(bytes), _) => say(out, 200, &bytes),
                }
            }
            ("POST", "blobs") => {
                let answer = "HTTP/1.1 202 said\r\nLocation: /v2/team/kernels/uploads/1?state=x\r\n\
                            Content-Length: 0\r\n\r\n";
                out.write_all(answer.as_bytes()).is_ok()
            }
            ("PUT", "uploads") => {
                let digest = name.rsplit_once("digest=").map_or("", |(_, digest)| digest);
                let digest = digest.replace("%3A", ":");
                let is_right = digest == digest_of(&request.body);
                held.blobs.insert(digest, request.body.clone());
                say(out, if is_right { 201 } else { 400 }, b"")
            }
            ("PUT", "manifests") => {
                // As real ones do: what it lists has to be there.
                let said = String::from_utf8_lossy(&request.body).into_owned();
                let digests = said.split("\"digest\":\"").skip(1);
                let is_whole = digests
                    .into_iter()
                    .all(|rest| held.blobs.contains_key(&rest[..71]));
                if is_whole {
                    held.manifests.insert(name.to_owned(), request.body.clone());
                    held.manifests
                        .insert(digest_of(&request.body), request.body.clone());
                }
                say(out, if is_whole { 201 } else { 400 }, b"")
            }
            _ => say(out, 405, b""),
        }
    }

    fn misgive(&self, mood: Mood, request: &Request, out: &mut TcpStream) -> bool {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let held = self.held();
        let found = held.blobs.get(name).or_else(|| held.manifests.get(name)).cloned();
        drop(held);
        match (found, mood) {
            (Some(bytes), Mood::Half | Mood::Cut | Mood::Flip | Mood::Unannounced) => give(mood, bytes, out),
            _ => misbehave(mood, request, out),
        }
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

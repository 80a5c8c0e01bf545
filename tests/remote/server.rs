//! A web server of the tests' own: GET, PUT, DELETE, MKCOL and PROPFIND on a map, and every
//! way to be of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the server does with requests for entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// What is right.
    Good,
    /// 200 with a page of its own.
    Garbage,
    /// What is right, without saying how long it is.
    Unannounced,
    /// Half of the bytes, and says that they are all.
    Half,
    /// Half of the bytes that it announces.
    Cut,
    /// One bit is not what it was.
    Flip,
    /// Bytes without end.
    Endless,
    /// An error without end.
    EndlessError,
    /// Nothing at all, and the connection stays.
    Silent,
    /// A byte now and then.
    Trickle,
    /// Closes the connection at once.
    Close,
    /// An answer with this status and somebody's secret.
    Status(u16),
    /// Leads to itself for ever.
    Redirect,
    /// One in ten answers is wrong in one of these ways.
    Unreliable,
}

/// What the server holds, and what it was asked.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    folders: BTreeSet<String>,
    /// Methods and paths, in order.
    pub(crate) requests: Vec<(String, String)>,
    mood: Option<Mood>,
    /// Whether a folder has to be there before a file is put into it.
    pub(crate) wants_folders: bool,
    /// A PUT whose path has this in it waits until that is no longer so.
    pub(crate) holds: Option<String>,
    /// Whether `If-None-Match` is passed over.
    pub(crate) overwrites: bool,
    /// The header that a request has to have.
    pub(crate) authorization: Option<String>,
    answered: u64,
}

/// Serves every connection on a thread of its own, to the end of the process.
pub(crate) fn accept(listener: TcpListener, serve: impl Fn(TcpStream) + Clone + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// A server on this machine; it ends with the process.
#[derive(Clone)]
pub(crate) struct Server {
    held: Arc<Mutex<Held>>,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Self {
            held: Arc::default(),
            port,
        };
        let serving = server.clone();
        accept(listener, move |stream| serving.serve(stream));
        server
    }

    pub(crate) fn url(&self, options: &str) -> String {
        format!("http://127.0.0.1:{}/fleet?{options}", self.port)
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.held().mood = Some(mood);
    }

    /// How many requests of this method there were.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.held().requests.iter().filter(|(m, _)| m == method).count()
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
        let path = request.path.trim_end_matches('/').to_owned();
        let mut held = self.held();
        held.requests.push((request.method.clone(), path.clone()));
        held.answered += 1;
        while request.method == "PUT" && held.holds.as_ref().is_some_and(|part| path.contains(part)) {
            drop(held);
            std::thread::sleep(Duration::from_millis(5));
            held = self.held();
        }
        let mut mood = held.mood.unwrap_or(Mood::Good);
        if mood == Mood::Unreliable {
            mood = match held.answered % 50 {
                7 => Mood::Silent,
                17 => Mood::Cut,
                27 => Mood::Flip,
                37 => Mood::Close,
                47 => Mood::Half,
                _ => Mood::Good,
            };
        }
        if held.authorization.is_some() && held.authorization != request.authorization {
            drop(held);
            return say(out, 401, b"who are you?");
        }
        if mood != Mood::Good && !matches!(mood, Mood::Half | Mood::Cut | Mood::Flip | Mood::Unannounced) {
            drop(held);
            return misbehave(mood, request, out);
        }
        match request.method.as_str() {
            "GET" => {
                let found = held.objects.get(&path).cloned();
                drop(held);
                match found {
                    None => say(out, 404, b"not found"),
                    Some(bytes) => give(mood, bytes, out),
                }
            }
            "PUT" => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
                if held.wants_folders && !held.folders.contains(&parent) {
                    drop(held);
                    return say(out, 409, b"no such folder");
                }
                if request.only_new && !held.overwrites && held.objects.contains_key(&path) {
                    drop(held);
                    return say(out, 412, b"there");
                }
                held.objects.insert(path, request.body.clone());
                drop(held);
                say(out, 201, b"")
            }
            "DELETE" => {
                let was_there = held.objects.remove(&path).is_some();
                drop(held);
                say(out, if was_there { 204 } else { 404 }, b"")
            }
            "MKCOL" => {
                held.folders.insert(path);
                drop(held);
                say(out, 201, b"")
            }
            "PROPFIND" => {
                let is_there = path.is_empty() || held.folders.contains(&path);
                drop(held);
                let text = format!(
                    "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{path}/</D:href>\
                     <D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>\
                     <D:getlastmodified>Sun, 01 May 2022 06:39:47 GMT</D:getlastmodified></D:prop>\
                     <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
                );
                if is_there {
                    say(out, 207, text.as_bytes())
                } else {
                    say(out, 404, b"")
                }
            }
            _ => say(out, 405, b""),
        }
    }
}

/// What somebody asks.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    only_new: bool,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        only_new: false,
        authorization: None,
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "if-none-match" => request.only_new = value.trim() == "*",
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

pub(crate) fn say(out: &mut TcpStream, status: u16, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {status} said\r\nContent-Length: {}\r\n\r\n", body.len());
    out.write_all(head.as_bytes())
        .and_then(|()| out.write_all(body))
        .is_ok()
}

pub(crate) fn give(mood: Mood, mut bytes: Vec<u8>, out: &mut TcpStream) -> bool {
    match mood {
        Mood::Half => say(out, 200, &bytes[..bytes.len() / 2]),
        Mood::Unannounced => {
            let _ = out.write_all(b"HTTP/1.1 200 said\r\n\r\n");
            let _ = out.write_all(&bytes);
            false
        }
        Mood::Flip => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            say(out, 200, &bytes)
        }
        Mood::Cut => {
            let head = format!("HTTP/1.1 200 said\r\nContent-Length: {}\r\n\r\n", bytes.len());
            let _ = out.write_all(head.as_bytes());
            let _ = out.write_all(&bytes[..bytes.len() / 2]);
            false
        }
        _ => say(out, 200, &bytes),
    }
}

pub(crate) fn misbehave(mood: Mood, request: &Request, out: &mut TcpStream) -> bool {
    let endless = |out: &mut TcpStream, head: &[u8], pause: Duration| {
        let _ = out.write_all(head);
        let chunk = if pause.is_zero() {
            vec![b'x'; 1 << 20]
        } else {
            vec![b'x']
        };
        // Until nobody listens.
        while out.write_all(&chunk).is_ok() {
            std::thread::sleep(pause);
        }
        false
    };
    match mood {
        Mood::Garbage => say(out, 200, b"<html>Please log in to continue</html>"),
        Mood::Endless => endless(out, b"HTTP/1.1 200 said\r\n\r\n", Duration::ZERO),
        Mood::EndlessError => endless(out, b"HTTP/1.1 404 said\r\n\r\n", Duration::ZERO),
        Mood::Trickle => endless(out, b"HTTP/1.1 200 said\r\n\r\n", Duration::from_millis(20)),
        Mood::Silent => {
            let _ = out.set_read_timeout(Some(Duration::from_secs(30)));
            // Until the other side gives up.
            let _ = out.read(&mut [0]);
            false
        }
        Mood::Status(status) => say(out, status, b"the secret is hush-hush"),
        Mood::Redirect => {
            let head = format!(
                "HTTP/1.1 302 said\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
                request.path
            );
            out.write_all(head.as_bytes()).is_ok()
        }
        _ => false,
    }
}

//! Object stores and web servers, through `OpenDAL`: the one file that knows it.
//!
//! Invariant: nothing that a server says in words is passed on, and none leads from TLS to
//! where there is none.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use http::header::{CONTENT_LENGTH, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use opendal::raw::Operation;
use opendal::services::{Azblob, Gcs, Http, S3, Webdav};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::blobs::{Blobs, Done, Put, Trouble};
use super::runtime::{Failed, within};
use super::web_client::{cause, client};
use crate::engine::config::remote::{Login, RemotePlace, RemoteStore, Service};

/// What an error may say in words that nobody reads.
const ERROR_LIMIT: u64 = 1 << 20;
/// A store that `OpenDAL` reaches.
pub(super) struct Dal {
    operator: Operator,
    /// The same for a name that must not be taken, where that is said by a header.
    only_new: Option<Operator>,
    /// The same that makes the folders of a name first.
    with_folders: Option<Operator>,
}

impl Dal {
    /// Reaches for a store; nothing is asked yet.
    pub(super) fn new(store: &RemoteStore) -> Result<Self, String> {
        Self::open(store).map_err(|error| trouble(&error).to_string())
    }

    fn open(store: &RemoteStore) -> Result<Self, Error> {
        let client = client(store.timeout() / 2);
        let client = client.map_err(|why| Error::new(ErrorKind::ConfigInvalid, why))?;
        let with = |operator: Operator, only_new| {
            let transport = Transport {
                inner: ReqwestTransport::new(client.clone()),
                only_new,
            };
            let context = operator
                .context()
                .with_http_transport(HttpTransporter::new(transport));
            operator.with_context(context)
        };
        let alone = |operator: Operator| Self {
            operator: with(operator, false),
            only_new: None,
            with_folders: None,
        };
        Ok(match store.place() {
            RemotePlace::Bucket { .. } => alone(bucket(store.place())?),
            RemotePlace::Web { endpoint, path, .. } if !store.role().writes() => {
                let (user, password) = words(store.login());
                let web = Http::default().endpoint(endpoint).root(&rooted(path));
                alone(Operator::new(web.username(user).password(password))?)
            }
            RemotePlace::Web { endpoint, path, .. } => {
                let (user, password) = words(store.login());
                let webdav = |makes_folders: bool| {
                    let webdav = Webdav::default().endpoint(endpoint).root(&rooted(path));
                    let webdav = webdav.username(user).password(password);
                    Operator::new(webdav.disable_create_dir(!makes_folders))
                };
                Self {
                    operator: with(webdav(false)?, false),
                    only_new: Some(with(webdav(false)?, true)),
                    with_folders: Some(with(webdav(true)?, false)),
                }
            }
            RemotePlace::Folder(_) | RemotePlace::Redis { .. } | RemotePlace::Registry { .. } => {
                return Err(Error::new(ErrorKind::Unsupported, "another file's"));
            }
        })
    }
}

fn words(login: Option<&Login>) -> (&str, &str) {
    login.map_or(("", ""), |login| (&login.user, login.password()))
}

fn rooted(path: &str) -> String {
    format!("/{path}")
}

/// Object stores: credentials from where each service's own clients have them.
fn bucket(place: &RemotePlace) -> Result<Operator, Error> {
    let RemotePlace::Bucket {
        service,
        bucket,
        prefix,
        endpoint,
        region,
        anonymous,
    } = place
    else {
        return Err(Error::new(ErrorKind::Unsupported, "no bucket"));
    };
    let root = rooted(prefix);
    let endpoint = endpoint.as_deref().unwrap_or_default();
    match service {
        Service::S3 => {
            let s3 = |region: &str| {
                let s3 = S3::default()
                    .bucket(bucket)
                    .root(&root)
                    .endpoint(endpoint)
                    .region(region);
                let s3 = if *anonymous {
                    s3.skip_signature().disable_config_load()
                } else {
                    s3
                };
                Operator::new(s3)
            };
            match region {
                Some(region) => s3(region),
                // Else of the environment; a server of one's own has seldom any.
                None => s3("").or_else(|error| {
                    if endpoint.is_empty() {
                        Err(error)
                    } else {
                        s3("us-east-1")
                    }
                }),
            }
        }
        Service::Gcs => {
            let gcs = Gcs::default().bucket(bucket).root(&root).endpoint(endpoint);
            Operator::new(if *anonymous { gcs.skip_signature() } else { gcs })
        }
        Service::Azblob => {
            let azblob = Azblob::default().container(bucket).root(&root).endpoint(endpoint);
            Operator::new(if *anonymous {
                azblob.skip_signature()
            } else {
                azblob
            })
        }
    }
}

/// Carries requests out, judges answers by their status alone, and lets no error be long.
struct Transport {
    inner: ReqwestTransport,
    only_new: bool,
}

impl HttpTransport for Transport {
    async fn fetch(&self, mut request: Request<Buffer>) -> Result<Response<HttpBody>, Error> {
        // Those of credentials are not the store's own.
        let is_of_store = request.extensions().get::<Operation>().is_some();
        if self.only_new && request.method() == Method::PUT {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let mut response = self.inner.fetch(request).await?;
        let status = response.status();
        if is_of_store {
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(Error::new(ErrorKind::PermissionDenied, ""));
                }
                status if status.is_server_error() || status.is_redirection() => {
                    let told = io::Error::other(format!("it answers {}", status.as_u16()));
                    return Err(Error::new(ErrorKind::Unexpected, "").set_source(told));
                }
                _ => {}
            }
        }
        if status.is_success() {
            // An object without an announced length is read to its end, whatever this says.
            response
                .headers_mut()
                .entry(CONTENT_LENGTH)
                .or_insert(HeaderValue::from_static("0"));
            return Ok(response);
        }
        Ok(response.map(|body| {
            body.map_inner(|stream| {
                Box::new(Capped {
                    stream,
                    left: ERROR_LIMIT,
                })
            })
        }))
    }
}

type Body = Box<dyn Stream<Item = Result<Buffer, Error>> + Send + Sync + Unpin>;

/// The beginning of a body.
struct Capped {
    stream: Body,
    left: u64,
}

impl Stream for Capped {
    type Item = Result<Buffer, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.stream).poll_next(context));
        let Some(Ok(bytes)) = &next else {
            return Poll::Ready(next);
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let error =
                Error::new(ErrorKind::Unexpected, "").set_source(io::Error::other("its error has no end"));
            return Poll::Ready(Some(Err(error)));
        };
        self.left = left;
        Poll::Ready(next)
    }
}

impl From<Failed<Error>> for Trouble {
    fn from(failed: Failed<Error>) -> Self {
        match failed {
            Failed::Error(error) => trouble(&error),
            Failed::Trouble(trouble) => trouble,
        }
    }
}

/// In words of our own: those of a server may hold anything.
fn trouble(error: &Error) -> Trouble {
    let signing = error.kind() == ErrorKind::Unexpected && error.message() == "signing http request";
    if error.kind() == ErrorKind::PermissionDenied || signing {
        return Trouble::Denied;
    }
    if let Some(cause) = cause(error) {
        return cause;
    }
    Trouble::Failed(match error.kind() {
        ErrorKind::ConfigInvalid => {
            "it cannot be reached as it is named (a region, or an endpoint, is missing?)".to_owned()
        }
        ErrorKind::NotFound => "there is no such bucket or folder".to_owned(),
        ErrorKind::RateLimited => "it answers that there are too many requests".to_owned(),
        kind => format!("its answer is none that is known ({kind})"),
    })
}

/// Whether an error says that a name was taken.
fn says_taken(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists | ErrorKind::Conflict
    )
}

impl Blobs for Dal {
    fn get(&self, path: &str, limit: u64, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble> {
        let (operator, path) = (self.operator.clone(), path.to_owned());
        // One request, of which no more is read than is allowed.
        let got: Result<_, Failed<Error>> = within(deadline, async move {
            let mut stream = operator.reader(&path).await?.into_stream(..).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.try_next().await? {
                if (bytes.len() + chunk.len()) as u64 > limit {
                    return Ok(None);
                }
                chunk.for_each(|part| bytes.extend_from_slice(&part));
            }
            Ok(Some(bytes))
        });
        match got {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(Trouble::TooLong(limit)),
            Err(Failed::Error(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    fn put(&self, path: &str, bytes: Vec<u8>, how: Put, deadline: Duration) -> Result<Done, Trouble> {
        let (operator, by_header) = match (&self.only_new, how) {
            (Some(only_new), Put::IfAbsent) => (only_new.clone(), true),
            _ => (self.operator.clone(), false),
        };
        let can_tell = operator.info().capability().write_with_if_not_exists;
        let only_new = how == Put::IfAbsent && can_tell;
        let (path, folders) = (path.to_owned(), self.with_folders.clone());
        let bytes = Buffer::from(bytes);
        let put: Result<_, Failed<Error>> = within(deadline, async move {
            let write = |operator: &Operator, bytes: Buffer| {
                let operator = operator.clone();
                let path = path.clone();
                async move {
                    operator
                        .write_with(&path, bytes)
                        .if_not_exists(only_new)
                        .await
                        .map(drop)
                }
            };
            match (write(&operator, bytes.clone()).await, folders) {
                // A name in a folder that is not there: a server says 409, or 404.
                (Err(error), Some(folders))
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Unexpected
                    ) && error.source().is_none() =>
                {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    folders.create_dir(&format!("{folder}/")).await?;
                    write(&operator, bytes).await
                }
                (done, _) => done,
            }
        });
        match put {
            Ok(()) => Ok(Done::Put),
            Err(Failed::Error(error)) if (only_new || by_header) && says_taken(&error) => Ok(Done::WasThere),
            Err(failed) => Err(failed.into()),
        }
    }

    fn delete(&self, path: &str, deadline: Duration) -> Result<(), Trouble> {
        let (operator, path) = (self.operator.clone(), path.to_owned());
        match within(deadline, async move { operator.delete(&path).await }) {
            Err(Failed::Error(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map_err(Trouble::from),
        }
    }

    fn creates_alone(&self) -> bool {
        self.operator.info().capability().write_with_if_not_exists
    }
}

//! Stores that a fleet shares, by their URLs.
//!
//! Invariant: no URL that is taken holds a secret, and none that is refused is shown with
//! what stands where a secret could: credentials come from each service's own environment
//! and files.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::cache::bad_value;
use super::effective::without_secrets;
pub use super::login::Login;
use super::{Config, ConfigError, registry};

/// A store that several machines share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteStore {
    name: String,
    place: RemotePlace,
    role: Role,
    timeout: Duration,
    cool_down: Duration,
    login: Option<Login>,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemotePlace {
    /// A folder that several machines mount.
    Folder(PathBuf),
    /// A bucket or container of an object store.
    Bucket {
        /// The service that runs it.
        service: Service,
        /// Name of the bucket.
        bucket: String,
        /// What all names of its objects begin with; empty or without slashes at its ends.
        prefix: String,
        /// The server, where it is not the service's own.
        endpoint: Option<String>,
        /// The region, where the service has such.
        region: Option<String>,
        /// Whether it is asked without credentials.
        anonymous: bool,
    },
    /// A Redis server.
    Redis {
        /// Scheme, host and port.
        endpoint: String,
        /// The user, where it is not the default one.
        user: Option<String>,
        /// The number of its database.
        database: i64,
    },
    /// A web server: plain GET, and `WebDAV` where it is written to.
    Web {
        /// Scheme, host and port.
        endpoint: String,
        /// The host alone, as files of credentials name it.
        host: String,
        /// The path below it, without slashes at its ends.
        path: String,
    },
    /// A registry of images, which keeps whole releases.
    Registry {
        /// Scheme, host and port.
        endpoint: String,
        /// Host and port, as files of credentials name them.
        host: String,
        /// The name of a repository.
        repository: String,
        /// The tag that is read through, or `sha256:` and the digest.
        reference: String,
    },
}

/// Who runs an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, and whatever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azblob,
}

/// What a store is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Entries are taken from it.
    #[default]
    Read,
    /// What is built here is sent to it.
    Write,
    /// Both.
    ReadWrite,
}

impl Role {
    /// Whether entries are taken from it.
    #[must_use]
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether what is built here is sent to it.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a store that failed is left alone.
const COOL_DOWN: Duration = Duration::from_mins(1);

const SCHEMES: &str = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, azblob://CONTAINER/PREFIX, redis://HOST:PORT/DB, \
                       https://HOST/PATH, oci://REGISTRY/REPOSITORY:TAG or file:///FOLDER";
const SECRETS: &str =
    "a URL holds no credentials: give them in the service's own environment or file (docs/FLEET.md)";

impl RemoteStore {
    /// The store of a URL.
    ///
    /// # Errors
    /// What would be right, in one line without any part of the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text.trim()).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => format!("expected a URL: {SCHEMES}"),
            error => format!("is not a URL ({error}): expected {SCHEMES}"),
        })?;
        let is_redis = matches!(url.scheme(), "redis" | "rediss");
        if url.password().is_some() || !url.username().is_empty() && !is_redis {
            return Err(SECRETS.to_owned());
        }
        if url.fragment().is_some() {
            return Err("nothing may follow a `#`".to_owned());
        }
        let mut options = Options::read(&url)?;
        let place = place(&url, &mut options)?;
        if let Some((name, _)) = options.0.first() {
            return Err(format!(
                "`{name}` is not an option of such a store: known are role, timeout, cool_down, of buckets \
                 endpoint, region, anonymous, and of registries plain_http"
            ));
        }
        let mut name = url.clone();
        name.set_query(None);
        // A user's name is no secret, and says nothing of where the store is.
        let _ = name.set_username("");
        let name = name.as_str().trim_end_matches('/').to_owned();
        let Fixed {
            role,
            timeout,
            cool_down,
        } = options.1;
        if role.writes() && matches!(place, RemotePlace::Web { .. }) && url.path().len() < 2 {
            return Err("a server that is written to needs a path: https://HOST/PATH".to_owned());
        }
        Ok(Self {
            name,
            place,
            role,
            timeout,
            cool_down,
            login: None,
        })
    }

    /// Its URL without options: how it is called everywhere.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &RemotePlace {
        &self.place
    }

    /// What it is used for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The longest that one request may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long it is left alone once it failed.
    #[must_use]
    pub fn cool_down(&self) -> Duration {
        self.cool_down
    }

    /// Whether entries are sent to it one by one; a registry takes whole releases.
    #[must_use]
    pub fn takes_entries(&self) -> bool {
        self.role.writes() && !matches!(self.place, RemotePlace::Registry { .. })
    }

    /// Whether it is asked over a network by this program itself.
    #[must_use]
    pub fn is_on_a_network(&self) -> bool {
        !matches!(self.place, RemotePlace::Folder(_))
    }

    /// Whom a Redis or web server, or a registry, is told that we are; other services have their own files.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The same as this user.
    #[must_use]
    pub fn with_login(self, login: Option<Login>) -> Self {
        Self { login, ..self }
    }

    /// The same for another use.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

impl fmt::Display for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// Options that all stores have.
struct Fixed {
    role: Role,
    timeout: Duration,
    cool_down: Duration,
}

/// The options of a URL that nobody took yet, and those of all stores.
struct Options(Vec<(String, String)>, Fixed);

impl Options {
    fn read(url: &Url) -> Result<Self, String> {
        let mut fixed = Fixed {
            role: Role::Read,
            timeout: TIMEOUT,
            cool_down: COOL_DOWN,
        };
        let mut rest: Vec<(String, String)> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in url.query_pairs() {
            if seen.contains(&name.to_string()) {
                return Err(format!("`{name}` is said twice"));
            }
            seen.push(name.to_string());
            match &*name {
                "role" => {
                    fixed.role = match &*value {
                        "read" => Role::Read,
                        "write" => Role::Write,
                        "read-write" => Role::ReadWrite,
                        _ => return Err("role: expected read, write or read-write".to_owned()),
                    }
                }
                "timeout" => fixed.timeout = span("timeout", &value)?,
                "cool_down" => fixed.cool_down = span("cool_down", &value)?,
                _ => rest.push((name.into_owned(), value.into_owned())),
            }
        }
        Ok(Self(rest, fixed))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    fn switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("0" | "false") => Ok(Some(false)),
            Some("1" | "true") => Ok(Some(true)),
            Some(_) => Err(format!("{name}: expected 1 or 0")),
        }
    }
}

/// A span of time from 10 ms to 10 min: `500ms`, `2s`, `1m`.
fn span(name: &str, text: &str) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").and_then(|n| n.parse().ok());
    let span = match millis {
        Some(millis) => Some(Duration::from_millis(millis)),
        None => super::parse_age(text).ok(),
    };
    let span = span.filter(|span| (Duration::from_millis(10)..=Duration::from_mins(10)).contains(span));
    span.ok_or_else(|| format!("{name}: expected a span of time from 10ms to 10m, such as 500ms or 2s"))
}

fn place(url: &Url, options: &mut Options) -> Result<RemotePlace, String> {
    let host = || match url.host() {
        Some(Host::Domain("")) | None => Err(format!("names no host or bucket: expected {SCHEMES}")),
        Some(host) => Ok(host.to_string()),
    };
    let service = match url.scheme() {
        "file" => {
            let folder = url
                .to_file_path()
                .map_err(|()| "expected file:///FOLDER, an absolute path on this machine");
            let folder = folder?;
            if folder.parent().is_none() {
                return Err("expected file:///FOLDER, below the root folder".to_owned());
            }
            return Ok(RemotePlace::Folder(folder));
        }
        "redis" | "rediss" => {
            let path = url.path().trim_matches('/');
            let database = if path.is_empty() { Ok(0) } else { path.parse() };
            let database = database.ok().filter(|n: &i64| (0..=65_535).contains(n));
            return Ok(RemotePlace::Redis {
                endpoint: format!("{}://{}:{}", url.scheme(), host()?, url.port().unwrap_or(6379)),
                user: Some(url.username().to_owned()).filter(|user| !user.is_empty()),
                database: database.ok_or("expected redis://HOST:PORT/DB, DB being a number")?,
            });
        }
        "http" | "https" => {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            let host = host()?;
            return Ok(RemotePlace::Web {
                endpoint: format!("{}://{host}{port}", url.scheme()),
                host,
                path: plain(url)?,
            });
        }
        "oci" => return registry::place(url, &host()?, options.switch("plain_http")?),
        "s3" => Service::S3,
        "gs" | "gcs" => Service::Gcs,
        "azblob" => Service::Azblob,
        _ => return Err(format!("expected {SCHEMES}")),
    };
    if url.port().is_some() {
        return Err("a bucket has no port: name the server with ?endpoint=https://HOST:PORT".to_owned());
    }
    let endpoint = options.take("endpoint").map(|text| endpoint(&text)).transpose()?;
    if service == Service::Azblob && endpoint.is_none() {
        return Err("of which account? ?endpoint=https://ACCOUNT.blob.core.windows.net names it".to_owned());
    }
    Ok(RemotePlace::Bucket {
        service,
        bucket: host()?,
        prefix: plain(url)?,
        endpoint,
        region: options.take("region"),
        anonymous: options.switch("anonymous")?.unwrap_or(false),
    })
}

/// The server of a bucket: scheme, host, port and perhaps a path.
fn endpoint(text: &str) -> Result<String, String> {
    let expected = "endpoint: expected http:// or https://, a host and perhaps a port";
    let url = Url::parse(text).map_err(|_| expected)?;
    if url.password().is_some() || !url.username().is_empty() || url.query().is_some() {
        return Err(SECRETS.to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(expected.to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The path without slashes at its ends, in letters that need no escaping anywhere.
fn plain(url: &Url) -> Result<String, String> {
    let path = url.path().trim_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-~+=@".contains(c);
    if !path.chars().all(is_plain) || path.split('/').any(|part| part.is_empty() && !path.is_empty()) {
        return Err("path: expected letters, digits and ._-~+=@, in parts between single slashes".to_owned());
    }
    Ok(path.to_owned())
}

impl Config {
    /// The stores that the fleet shares, in the order in which they are asked.
    ///
    /// # Errors
    /// A URL of none, without what could be a secret in it.
    pub fn remote(&self) -> Result<Vec<RemoteStore>, ConfigError> {
        let Some(setting) = self.text("remote") else {
            return Ok(Vec::new());
        };
        let urls = setting
            .value
            .split([',', ' ', '\n'])
            .filter(|url| !url.trim().is_empty());
        let parse = |url: &str| {
            let store = RemoteStore::parse(url).map(|store| {
                let login = self.login_of(&store);
                store.with_login(login)
            });
            store.map_err(|expected| {
                bad_value("remote", without_secrets(url), setting.source.clone(), expected)
            })
        };
        urls.map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Flags};
    use super::*;

    fn parse(text: &str) -> RemoteStore {
        RemoteStore::parse(text).expect(text)
    }

    #[test]
    fn a_store_of_each_kind_is_read_from_its_url() {
        let folder = parse("file:///mnt/share?role=read-write");
        assert_eq!(folder.place(), &RemotePlace::Folder("/mnt/share".into()));
        assert_eq!(
            (folder.name(), folder.role()),
            ("file:///mnt/share", Role::ReadWrite)
        );
        let s3 = parse("s3://fleet/a/b?endpoint=http://127.0.0.1:9000&region=eu-1&timeout=500ms&anonymous=1");
        let RemotePlace::Bucket {
            service,
            bucket,
            prefix,
            endpoint,
            region,
            anonymous,
        } = s3.place()
        else {
            panic!("{s3:?}");
        };
        assert_eq!(
            (*service, bucket.as_str(), prefix.as_str()),
            (Service::S3, "fleet", "a/b")
        );
        assert_eq!(endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((region.as_deref(), *anonymous), (Some("eu-1"), true));
        assert_eq!(
            (s3.name(), s3.timeout()),
            ("s3://fleet/a/b", Duration::from_millis(500))
        );
        let redis = parse("rediss://ops@cache:7000/3");
        assert_eq!(
            redis.place(),
            &RemotePlace::Redis {
                endpoint: "rediss://cache:7000".into(),
                user: Some("ops".into()),
                database: 3,
            }
        );
        assert_eq!(redis.name(), "rediss://cache:7000/3");
        let web = parse("https://host:8443/jitc/");
        assert!(matches!(web.place(), RemotePlace::Web { endpoint, host, path }
            if endpoint == "https://host:8443" && host == "host" && path == "jitc"));
        assert_eq!(web.role(), Role::Read, "nobody writes unasked");
        parse("gs://bucket");
        parse("azblob://container/x?endpoint=https://account.blob.core.windows.net");
    }

    #[test]
    fn a_url_of_no_store_is_refused_in_one_line_that_says_what_would_be_right() {
        for (text, words) in [
            ("", "expected a URL"),
            ("/mnt/share", "expected a URL"),
            ("s3://", "names no host or bucket"),
            ("s3:///prefix", "names no host or bucket"),
            ("s3://b:9000/x", "?endpoint="),
            ("ftp://host/x", "expected s3://"),
            ("file://host/x", "file:///FOLDER"),
            ("file:///", "file:///FOLDER"),
            ("s3://b/x?rôle=read", "is not an option"),
            ("s3://b/x?role=admin", "read, write or read-write"),
            ("s3://b/x?role=read&role=write", "said twice"),
            ("s3://b/x?timeout=0s", "from 10ms to 10m"),
            ("s3://b/x?timeout=1h", "from 10ms to 10m"),
            ("s3://b/x?endpoint=ftp://h", "endpoint: expected"),
            ("s3://b/x?anonymous=maybe", "anonymous: expected"),
            ("s3://b/a//b", "single slashes"),
            ("s3://b/a%20b", "path: expected"),
            ("s3://b/x#y", "`#`"),
            ("azblob://c/x", "of which account?"),
            ("redis://host/first", "DB being a number"),
            ("redis://host/-1", "DB being a number"),
            ("https://host?role=write", "needs a path"),
            ("https:///", "not a URL"),
        ] {
            let error = RemoteStore::parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_shown() {
        for url in [
            "s3://AKIA:hush@bucket/x",
            "https://user:hush@host/x",
            "https://hush@host/x",
            "redis://:hush@host/0",
            "s3://b/x?secret_access_key=hush",
            "s3://b/x?endpoint=https://u:hush@host",
            "azblob://c/x?endpoint=https://a.net?sig=hush",
            "https://user:hush@host:port/x",
        ] {
            let env: Environment = [("JITC_REMOTE", url)].into_iter().collect();
            let config = Config::load(Flags::default(), env).expect("settings");
            let error = config.check_values().expect_err(url).to_string();
            assert!(!error.contains("hush"), "{error}");
            assert!(error.contains("JITC_REMOTE") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn stores_keep_their_order_and_a_list_may_be_empty() {
        let env: Environment = [("JITC_REMOTE", "file:///a, s3://b ,redis://c")]
            .into_iter()
            .collect();
        let config = Config::load(Flags::default(), env).expect("settings");
        let names: Vec<String> = config
            .remote()
            .expect("stores")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["file:///a", "s3://b", "redis://c"]);
        assert!(Config::default().remote().expect("none").is_empty());
    }
}

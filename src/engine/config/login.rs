//! Who we are to a server that asks, from where its own clients have it.
//!
//! Invariant: a password is shown by nothing, and wiped from memory. It is given to the
//! host that its file names, and to no other; of a registry also to where that one has its
//! tokens made, never without TLS where it has TLS itself.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::remote::{RemotePlace, RemoteStore};
use super::{Config, registry, text_file};

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user; empty where the server has but one.
    pub user: String,
    password: Zeroizing<String>,
}

impl Login {
    /// A user with a password.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        }
    }

    /// The password, for the server alone.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Of a Redis server `REDISCLI_AUTH`, of a web server what `NETRC`, or `.netrc` in
    /// the home folder, says of its host, and of a registry what Podman's or Docker's file
    /// does.
    pub(super) fn login_of(&self, store: &RemoteStore) -> Option<Login> {
        match store.place() {
            RemotePlace::Redis { user, .. } => {
                let password = Zeroizing::new(self.env.get("REDISCLI_AUTH")?.into_owned());
                Some(Login::new(user.as_deref().unwrap_or_default(), &password))
            }
            RemotePlace::Web { host, .. } => {
                let home = || Some(self.env.path("HOME")?.join(".netrc"));
                let path: PathBuf = self.env.path("NETRC").or_else(home)?;
                let text = Zeroizing::new(text_file::read(&path).ok()?.0);
                in_netrc(&text, host)
            }
            RemotePlace::Registry { host, repository, .. } => {
                let podman = || Some(self.env.path("XDG_RUNTIME_DIR")?.join("containers/auth.json"));
                let docker = || {
                    let home = || Some(self.env.path("HOME")?.join(".docker"));
                    let folder = self.env.path("DOCKER_CONFIG").or_else(home);
                    Some(folder?.join("config.json"))
                };
                let files: Vec<PathBuf> = match self.env.path("REGISTRY_AUTH_FILE") {
                    Some(file) => vec![file],
                    None => podman().into_iter().chain(docker()).collect(),
                };
                files.iter().find_map(|file| {
                    let text = Zeroizing::new(text_file::read(file).ok()?.0);
                    registry::in_auths(&text, host, repository)
                })
            }
            RemotePlace::Folder(_) | RemotePlace::Bucket { .. } => None,
        }
    }
}

/// What a file of curl's form says of a host: the first that names it, or `default`.
fn in_netrc(text: &str, host: &str) -> Option<Login> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace).peekable();
    while let Some(word) = words.next() {
        let fits = match word {
            "machine" => words.next() == Some(host),
            "default" => true,
            _ => continue,
        };
        let (mut user, mut password) = ("", None);
        while let Some(word) = words.next_if(|word| !matches!(*word, "machine" | "default")) {
            match word {
                "login" => user = words.next().unwrap_or_default(),
                "password" => password = words.next(),
                _ => {}
            }
        }
        if fits && let Some(password) = password {
            return Some(Login::new(user, password));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Flags};
    use super::*;

    #[test]
    fn a_host_is_told_what_the_file_says_of_it_alone() {
        let text = "# machine host login no password no\nmachine other login a password b\n\
                    machine host\n  login ops\n  account x\n  password hush\nmachine host login c password d\n";
        assert_eq!(in_netrc(text, "host"), Some(Login::new("ops", "hush")));
        assert_eq!(in_netrc(text, "other"), Some(Login::new("a", "b")));
        assert_eq!(in_netrc(text, "third"), None);
        let with_default = format!("{text}default login any password e");
        assert_eq!(in_netrc(&with_default, "third"), Some(Login::new("any", "e")));
        for broken in ["machine", "machine host password", "default login", "login x", ""] {
            assert_eq!(in_netrc(broken, "host"), None, "{broken}");
        }
    }

    #[test]
    fn a_password_comes_from_the_services_own_place_and_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let netrc = folder.path().join(".netrc");
        fs_err::write(&netrc, "machine host login ops password hush\n").expect("written");
        // `hub:hush`.
        let auths = r#"{"auths": {"host": {"auth": "aHViOmh1c2g="}}}"#;
        fs_err::write(folder.path().join("config.json"), auths).expect("written");
        let env: Environment = [
            (
                "JITC_REMOTE",
                "https://host/x,https://other/x,redis://cache,redis://me@cache,s3://b,oci://host/x",
            ),
            ("REDISCLI_AUTH", "hush"),
            ("HOME", folder.path().to_str().expect("text")),
            ("DOCKER_CONFIG", folder.path().to_str().expect("text")),
        ]
        .into_iter()
        .collect();
        let stores = Config::load(Flags::default(), env)
            .expect("settings")
            .remote()
            .expect("stores");
        let logins: Vec<_> = stores.iter().map(RemoteStore::login).collect();
        let hush = |user| Login::new(user, "hush");
        assert_eq!(
            logins,
            [
                Some(&hush("ops")),
                None,
                Some(&hush("")),
                Some(&hush("me")),
                None,
                Some(&hush("hub"))
            ]
        );
        assert!(!format!("{stores:?}").contains("hush"));
    }
}

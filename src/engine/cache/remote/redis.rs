//! A Redis server as a store.
//!
//! By its own client, since through `OpenDAL` there is no conditional create, two requests a
//! get, and retries until the time is up where a server is down or refuses the password.
//!
//! Invariant: a connection that failed once is not used again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    RedisError,
};

use super::blobs::{Blobs, Done, Put, Trouble};
use super::runtime::{Failed, within};
use crate::engine::config::remote::Login;

/// What names of jitc's begin with, in a database that others may use too.
const PREFIX: &str = "jitc/";

/// A Redis server.
pub(super) struct Redis {
    client: Client,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
}

impl Redis {
    pub(super) fn new(endpoint: &str, database: i64, login: Option<&Login>) -> Result<Self, String> {
        // TLS takes the provider of the process, if it has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut settings = RedisConnectionInfo::default().set_db(database);
        if let Some(login) = login {
            settings = settings.set_password(login.password());
            if !login.user.is_empty() {
                settings = settings.set_username(&login.user);
            }
        }
        let info = endpoint
            .into_connection_info()
            .map_err(|error| trouble(&error).to_string())?;
        let client = Client::open(info.set_redis_settings(settings));
        Ok(Self {
            client: client.map_err(|error| trouble(&error).to_string())?,
            connection: Arc::default(),
        })
    }

    fn ask<T: FromRedisValue + Send + 'static>(
        &self,
        command: Cmd,
        deadline: Duration,
    ) -> Result<T, Trouble> {
        let (client, held) = (self.client.clone(), Arc::clone(&self.connection));
        let asked = within(deadline, async move {
            let known = lock(&held).clone();
            let mut connection = if let Some(known) = known {
                known
            } else {
                // The deadline is over all of it.
                let config = AsyncConnectionConfig::new().set_response_timeout(None);
                let config = config.set_connection_timeout(None);
                let made = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                *lock(&held) = Some(made.clone());
                made
            };
            command.query_async(&mut connection).await
        });
        asked.map_err(|failed| {
            *lock(&self.connection) = None;
            match failed {
                Failed::Error(error) => trouble(&error),
                Failed::Trouble(trouble) => trouble,
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In words of our own.
fn trouble(error: &RedisError) -> Trouble {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Trouble::Denied;
    }
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Trouble::Denied,
        Some("OOM") => Trouble::Failed("it is full".to_owned()),
        Some("READONLY") => Trouble::Failed("it is a replica, which is not written to".to_owned()),
        Some("LOADING") => Trouble::Failed("it is still starting".to_owned()),
        _ if error.is_connection_refusal() => Trouble::Failed("it refuses the connection".to_owned()),
        _ if error.is_io_error() => Trouble::Failed("the connection is broken, or not to be had".to_owned()),
        _ => Trouble::Failed("its answer is none that is known".to_owned()),
    }
}

fn name(path: &str) -> String {
    format!("{PREFIX}{path}")
}

impl Blobs for Redis {
    fn get(&self, path: &str, limit: u64, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble> {
        // No more than one byte over the limit is asked for; of what is absent there is none.
        let mut command = redis::cmd("GETRANGE");
        command.arg(name(path)).arg(0).arg(limit);
        let bytes: Vec<u8> = self.ask(command, deadline)?;
        match bytes.len() as u64 {
            0 => Ok(None),
            length if length > limit => Err(Trouble::TooLong(limit)),
            _ => Ok(Some(bytes)),
        }
    }

    fn put(&self, path: &str, bytes: Vec<u8>, how: Put, deadline: Duration) -> Result<Done, Trouble> {
        let mut command = redis::cmd("SET");
        command.arg(name(path)).arg(bytes);
        if how == Put::IfAbsent {
            command.arg("NX");
        }
        let set: Option<String> = self.ask(command, deadline)?;
        Ok(if set.is_some() { Done::Put } else { Done::WasThere })
    }

    fn delete(&self, path: &str, deadline: Duration) -> Result<(), Trouble> {
        let mut command = redis::cmd("DEL");
        command.arg(name(path));
        self.ask::<i64>(command, deadline).map(drop)
    }

    fn creates_alone(&self) -> bool {
        true
    }
}

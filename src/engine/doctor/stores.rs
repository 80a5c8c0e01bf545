//! The stores that the fleet shares, tried because somebody asks.

#[cfg(feature = "remote")]
use std::time::Duration;

use super::Fact;
#[cfg(feature = "remote")]
use crate::engine::cache::{Probed, Remote};
#[cfg(feature = "remote")]
use crate::engine::config::remote::Role;
use crate::engine::jit::Jit;

/// None: this build knows of no stores.
#[cfg(not(feature = "remote"))]
#[must_use]
pub fn try_stores(_: &Jit) -> Vec<Fact> {
    Vec::new()
}

/// Tries a round trip with each store; what is written there is removed again.
#[cfg(feature = "remote")]
#[must_use]
pub fn try_stores(jit: &Jit) -> Vec<Fact> {
    jit.cache()
        .remotes()
        .iter()
        .map(|remote| fact(remote, remote.probe()))
        .collect()
}

#[cfg(feature = "remote")]
fn fact(remote: &Remote, probed: Probed) -> Fact {
    let store = remote.remote_store();
    let role = match store.role() {
        Role::Read => "read",
        Role::Write => "write",
        Role::ReadWrite => "read-write",
    };
    let failed = |what: &str, reason: &str| {
        Fact::missing(
            "store",
            format!("{store} ({role}): {what}: {reason}"),
            "check its URL, its credentials and the network; until then it costs misses, and nothing else",
        )
    };
    let get = match probed.get {
        Ok(took) => format!("get {}", millis(took)),
        Err(reason) => return failed("get", &reason),
    };
    let put = match probed.put {
        None => String::new(),
        Some(Ok(took)) => format!(", put {}", millis(took)),
        Some(Err(reason)) => return failed("put", &reason),
    };
    let herd = match probed.creates_alone {
        Some(false) => {
            "; it does not honor conditional creates, so that machines may compile the same at once"
        }
        _ => "",
    };
    Fact::good("store", format!("{store} ({role}): {get}{put}{herd}"))
}

#[cfg(feature = "remote")]
fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

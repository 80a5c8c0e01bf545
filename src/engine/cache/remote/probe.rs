//! Trying a store, where somebody asks for that.
//!
//! Invariant: what is written under a name of its own is removed again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::blobs::{Blobs, Done, Put, Trouble};
use super::{Inner, Remote};

/// What a store did when it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probed {
    /// How long a get took, or why there was no answer.
    pub get: Result<Duration, String>,
    /// The same of a put, whose bytes came back; `None` where it is only read from.
    pub put: Option<Result<Duration, String>>,
    /// Whether of those who create one name at once one alone is told that it did.
    pub creates_alone: Option<bool>,
}

impl Remote {
    /// Tries a get and, where it is written to, a put, even where it is left alone.
    #[must_use]
    pub fn probe(&self) -> Probed {
        self.0.probe()
    }
}

impl Inner {
    fn probe(&self) -> Probed {
        let blobs = match self.blobs() {
            Ok(blobs) => blobs,
            Err(trouble) => {
                return Probed {
                    get: Err(trouble.to_string()),
                    put: None,
                    creates_alone: None,
                };
            }
        };
        let name = probe_name();
        let deadline = self.store.timeout();
        let started = Instant::now();
        let get = blobs.get(&name, 64, deadline).map(|_| started.elapsed());
        let mut creates_alone = None;
        let put = self.store.role().writes().then(|| {
            if let Some(releases) = blobs.releases() {
                let started = Instant::now();
                let put = releases.probe(deadline).map_err(|trouble| trouble.to_string());
                return put.map(|()| started.elapsed());
            }
            let (took, alone) = round_trip(blobs, &name, deadline).map_err(|trouble| trouble.to_string())?;
            creates_alone = Some(alone);
            Ok(took)
        });
        Probed {
            get: get.map_err(|trouble| trouble.to_string()),
            put,
            creates_alone,
        }
    }
}

fn round_trip(blobs: &dyn Blobs, name: &str, deadline: Duration) -> Result<(Duration, bool), Trouble> {
    let bytes = name.as_bytes().to_vec();
    let started = Instant::now();
    blobs.put(name, bytes.clone(), Put::IfAbsent, deadline)?;
    let took = started.elapsed();
    let tried = blobs.get(name, 256, deadline).and_then(|back| {
        if back.as_ref() != Some(&bytes) {
            return Err(Trouble::Failed("it does not give back what was put".to_owned()));
        }
        blobs.put(name, bytes, Put::IfAbsent, deadline)
    });
    // Also where that failed.
    let removed = blobs.delete(name, deadline);
    let again = tried?;
    removed?;
    Ok((took, again == Done::WasThere))
}

/// A name that nobody else takes.
fn probe_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("v2/probes/{}-{}", std::process::id(), now.as_nanos())
}

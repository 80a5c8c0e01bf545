//! Releases as artifacts of a registry: a manifest whose layers are the entries.
//!
//! A layer has the very bytes that other stores keep of an entry, so that releases share what
//! they have in common, and an entry can be read through by itself.
//!
//! Invariant: a tag leads to a manifest whose blobs are all there, since it is moved last;
//! what is taken has the digest that the manifest says, and this the one that was asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, Done, Put, Releases, Trouble};
use super::object;
use super::registry::{Registry, digest_of};
use super::release::{BUNDLE_LIMIT, Release};
use super::runtime::{Failed, within};
use super::web_client::client;
use crate::engine::build::key::CacheKey;
use crate::engine::cache::bundle::{BundleError, export_noting, notes, read_within};
use crate::engine::config::remote::{RemotePlace, RemoteStore};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What the manifest is of,
const RELEASE: &str = "application/vnd.jitc.release.v2";
/// an entry in it,
const ENTRY: &str = "application/vnd.jitc.entry.v2";
/// and what goes along with the entries: a list of texts.
const NOTES: &str = "application/vnd.jitc.notes.v2+json";
/// The configuration of what has none, as the specification of OCI has it.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const NO_CONFIG: &[u8] = b"{}";
/// What clients of registries call the file of a layer: the key.
const TITLE: &str = "org.opencontainers.image.title";

/// Registries take no longer one.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// How long it counts what a tag leads to.
const LIFE: Duration = Duration::from_secs(30);
/// So many blobs are on their way at once.
const AT_ONCE: usize = 8;

/// A repository, and the release in it that is read through.
pub(super) struct Oci {
    registry: Arc<Registry>,
    reference: String,
    known: Mutex<Option<Known>>,
}

/// What was last found under the tag.
#[derive(Clone)]
struct Known {
    /// For good, where it is of a digest.
    until: Option<Instant>,
    entries: Arc<HashMap<CacheKey, Descriptor>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest_of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }

    fn key(&self) -> Option<CacheKey> {
        (self.media_type == ENTRY)
            .then(|| self.annotations.get(TITLE)?.parse().ok())
            .flatten()
    }
}

/// What a release has, and its bytes.
type Layers = Vec<(Descriptor, Vec<u8>)>;

fn damaged(why: impl Into<String>) -> Trouble {
    Trouble::Damaged(why.into())
}

impl Manifest {
    fn read(bytes: &[u8]) -> Result<Self, Trouble> {
        let manifest: Option<Self> = serde_json::from_slice(bytes).ok();
        let manifest = manifest.filter(|manifest| manifest.artifact_type == RELEASE);
        let manifest = manifest.ok_or_else(|| damaged("what lies there is not a release of jitc"))?;
        let lengths = manifest.layers.iter().map(|layer| layer.size);
        let total = lengths.fold(0, u64::saturating_add);
        if total > BUNDLE_LIMIT || manifest.layers.iter().any(|one| one.size > object::OBJECT_LIMIT) {
            return Err(damaged("its layers are longer than those of a release"));
        }
        Ok(manifest)
    }
}

/// What is asked of a registry, apart from the deadline.
async fn manifest_of(registry: &Registry, reference: &str) -> Result<Option<Manifest>, Trouble> {
    let Some(bytes) = registry.manifest(reference, MANIFEST, MANIFEST_LIMIT).await? else {
        return Ok(None);
    };
    if reference.contains(':') && digest_of(&bytes) != reference {
        return Err(damaged(
            "the release does not fit its digest: it was altered, or cut short",
        ));
    }
    Manifest::read(&bytes).map(Some)
}

async fn layer(registry: &Registry, layer: &Descriptor) -> Result<Vec<u8>, Trouble> {
    let bytes = registry.blob(&layer.digest, layer.size).await?;
    bytes.ok_or_else(|| damaged("the release is there, and a part of it is not: was it removed?"))
}

fn wait<T: Send + 'static>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Trouble>> + Send + 'static,
) -> Result<T, Trouble> {
    within(deadline, work).map_err(|failed| match failed {
        Failed::Error(trouble) | Failed::Trouble(trouble) => trouble,
    })
}

impl Oci {
    /// Reaches for a registry; nothing is asked yet.
    pub(super) fn new(store: &RemoteStore) -> Result<Self, String> {
        let RemotePlace::Registry {
            endpoint,
            repository,
            reference,
            ..
        } = store.place()
        else {
            return Err("no registry".to_owned());
        };
        let client = client(store.timeout() / 2)?;
        let place = (endpoint.as_str(), repository.as_str());
        let registry = Registry::new(client, place, store.login(), store.role().writes())?;
        Ok(Self {
            registry: Arc::new(registry),
            reference: reference.clone(),
            known: Mutex::default(),
        })
    }

    /// The entries of the release that is read through; none where the tag leads nowhere.
    fn entries(&self, deadline: Duration) -> Result<Arc<HashMap<CacheKey, Descriptor>>, Trouble> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*lock()
            && known.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(Arc::clone(&known.entries));
        }
        let (registry, reference) = (Arc::clone(&self.registry), self.reference.clone());
        let found = wait(deadline, async move { manifest_of(&registry, &reference).await })?;
        let is_for_good = self.reference.contains(':') && found.is_some();
        let layers = found.map_or_else(Vec::new, |manifest| manifest.layers);
        let entries = layers.into_iter().filter_map(|one| Some((one.key()?, one)));
        let known = Known {
            until: (!is_for_good).then(|| Instant::now() + LIFE),
            entries: Arc::new(entries.collect()),
        };
        *lock() = Some(known.clone());
        Ok(known.entries)
    }
}

impl Blobs for Oci {
    fn get(&self, path: &str, limit: u64, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble> {
        let entries = self.entries(deadline)?;
        let Some(found) = object::key_of(path).and_then(|key| entries.get(&key).cloned()) else {
            return Ok(None);
        };
        if found.size > limit {
            return Err(Trouble::TooLong(limit));
        }
        let registry = Arc::clone(&self.registry);
        wait(deadline, async move { layer(&registry, &found).await }).map(Some)
    }

    fn put(&self, _: &str, _: Vec<u8>, _: Put, _: Duration) -> Result<Done, Trouble> {
        Err(Trouble::Failed("it takes whole releases alone".to_owned()))
    }

    fn delete(&self, _: &str, _: Duration) -> Result<(), Trouble> {
        Err(Trouble::Failed("it takes whole releases alone".to_owned()))
    }

    fn creates_alone(&self) -> bool {
        false
    }

    fn releases(&self) -> Option<&dyn Releases> {
        Some(self)
    }
}

impl Releases for Oci {
    fn push(&self, name: &str, bundle: &[u8], deadline: Duration) -> Result<String, Trouble> {
        let (layers, blobs) = split(bundle)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: RELEASE.to_owned(),
            config: Descriptor::of(EMPTY, NO_CONFIG),
            layers,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| Trouble::Failed(e.to_string()))?;
        if manifest.len() as u64 > MANIFEST_LIMIT {
            return Err(Trouble::Failed(
                "a registry takes no release of so many entries".to_owned(),
            ));
        }
        let digest = digest_of(&manifest);
        let (registry, tag) = (Arc::clone(&self.registry), name.to_owned());
        wait(deadline, async move {
            // The first alone, so that one token serves all.
            registry.put_blob(NO_CONFIG.to_vec()).await?;
            let puts = blobs.into_iter().map(|bytes| {
                let registry = Arc::clone(&registry);
                async move { registry.put_blob(bytes).await }
            });
            stream::iter(puts)
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
            registry.put_manifest(&tag, MANIFEST, manifest).await
        })?;
        // What was read through before may be what the tag no longer leads to.
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(digest.trim_start_matches("sha256:").to_owned())
    }

    fn pull(&self, release: &Release, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble> {
        let (registry, reference) = (Arc::clone(&self.registry), release.to_string());
        let pulled = wait(deadline, async move {
            let Some(manifest) = manifest_of(&registry, &reference).await? else {
                return Ok(None);
            };
            let gets = manifest.layers.into_iter().map(|one| {
                let registry = Arc::clone(&registry);
                async move { layer(&registry, &one).await.map(|bytes| (one, bytes)) }
            });
            let layers = stream::iter(gets).buffered(AT_ONCE).try_collect().await?;
            Ok(Some(layers))
        })?;
        pulled.map(|layers: Layers| join(layers)).transpose()
    }

    fn probe(&self, deadline: Duration) -> Result<(), Trouble> {
        let registry = Arc::clone(&self.registry);
        wait(
            deadline,
            async move { registry.put_blob(NO_CONFIG.to_vec()).await },
        )
    }
}

/// The layers of a bundle, and their bytes.
fn split(bundle: &[u8]) -> Result<(Vec<Descriptor>, Vec<Vec<u8>>), Trouble> {
    let failed = |error: BundleError| Trouble::Failed(error.to_string());
    let (mut layers, mut blobs) = (Vec::new(), Vec::new());
    let mut too_long = None;
    let read = read_within(&mut &*bundle, u64::MAX, |whole| {
        match object::pack(&whole) {
            Ok(bytes) => {
                let mut layer = Descriptor::of(ENTRY, &bytes);
                let key = whole.entry().manifest().key.hex();
                layer.annotations.insert(TITLE.to_owned(), key);
                layers.push(layer);
                blobs.push(bytes);
            }
            Err(why) => too_long = Some(Trouble::Failed(why)),
        }
        Ok(())
    });
    read.map_err(failed)?;
    if let Some(trouble) = too_long {
        return Err(trouble);
    }
    let notes = notes(&mut &*bundle).map_err(failed)?;
    if !notes.is_empty() {
        let bytes = serde_json::to_vec(&notes).map_err(|e| Trouble::Failed(e.to_string()))?;
        layers.push(Descriptor::of(NOTES, &bytes));
        blobs.push(bytes);
    }
    Ok((layers, blobs))
}

/// The bundle of a release's layers.
fn join(layers: Layers) -> Result<Vec<u8>, Trouble> {
    let (mut objects, mut notes) = (BTreeMap::new(), Vec::new());
    for (layer, bytes) in layers {
        if let Some(key) = layer.key() {
            objects.insert(key, bytes);
        } else if layer.media_type == NOTES {
            let read = serde_json::from_slice::<Vec<String>>(&bytes);
            notes.extend(read.map_err(|_| damaged("its notes cannot be read"))?);
        }
    }
    let keys: Vec<CacheKey> = objects.keys().copied().collect();
    let fault = Mutex::new(None);
    let entry = |key: &CacheKey| match object::unpack(key, objects.get(key)?) {
        Ok(whole) => Some(whole),
        Err(bad) => {
            let why = format!("its entry of {} is bad: {bad}", key.short());
            *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(damaged(why));
            None
        }
    };
    let mut bundle = Vec::new();
    let exported = export_noting(entry, &keys, &notes, &mut bundle);
    exported.map_err(|e| Trouble::Failed(e.to_string()))?;
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(trouble) => Err(trouble),
        None => Ok(bundle),
    }
}

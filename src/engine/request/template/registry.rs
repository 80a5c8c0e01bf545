//! All families at hand: the embedded ones, over them those that a program carries, and
//! those of a folder over both.
//!
//! Invariant: where a family's two files stand changes neither its source nor its
//! key. Files are known by one name each, whatever the layout they came in, and the
//! place that a person can open is kept beside it for messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use include_dir::{Dir, include_dir};

use super::family::TemplateFile;
use super::folder;
use super::names::check_former_names;
use super::{Family, PARAMS_HEADER, TemplateError, Templates};
use crate::engine::request::header_set::{HeaderSet, PinnedSet, STANDARD, SetName, SetUse, name_in_full};
use crate::engine::request::regions;
use crate::engine::suggest::did_you_mean;

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// Where the embedded files stand in this project, for messages.
const EMBEDDED_ROOT: &str = "templates";

/// Families by name, and the headers that they may include.
#[derive(Debug)]
pub struct Registry {
    families: BTreeMap<String, Arc<Family>>,
    headers: Arc<BTreeMap<String, Arc<str>>>,
    /// By the name that the compiler knows: where a person finds the file.
    places: BTreeMap<String, PathBuf>,
    /// The families' own header sets by folder: each is read once, when it is first needed.
    sets: BTreeMap<String, OwnSet>,
}

/// A header set that lies beside families.
#[derive(Debug)]
struct OwnSet {
    origin: Origin,
    read: Mutex<Option<Arc<HeaderSet>>>,
}

/// Where the texts of a set come from.
#[derive(Debug)]
enum Origin {
    Folder(PathBuf),
    Texts(BTreeMap<String, String>),
}

/// What a file of a templates folder is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// By the name under which sources include it.
    Header(String),
    /// A family's declarations.
    Declarations(String),
    /// A family's source.
    Source(String),
}

/// A file as it was read, and where a person finds it.
#[derive(Debug)]
struct Found {
    file: TemplateFile,
    place: PathBuf,
}

impl Registry {
    /// The families embedded in the program and, over them, those of `folder`:
    /// `<family>/family.toml` with `<family>/kernel.cu.tera`, or `<family>.toml` with
    /// `<family>.cu.tera`; headers below `include/`. A family in both layouts is an
    /// error.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        Self::load_over(&[], folder)
    }

    /// The same with the families that a program carries between the two: the later of
    /// `carried` over the earlier, and those of `folder` over all.
    pub fn load_over(carried: &[Templates], folder: Option<&Path>) -> Result<Self, TemplateError> {
        let mut embedded = BTreeMap::new();
        read_embedded(&EMBEDDED, &mut embedded);
        let mut files = by_role(Path::new(EMBEDDED_ROOT), embedded)?;
        for templates in carried {
            files.extend(by_role(Path::new(templates.folder()), templates.files())?);
        }
        if let Some(folder) = folder {
            files.extend(by_role(folder, folder::read(folder)?)?);
        }
        Self::from_roles(files, &|set| {
            if let Some(path) = folder.map(|folder| folder.join(set))
                && path.is_dir()
            {
                return Some(Origin::Folder(path));
            }
            let mut texts = carried.iter().rev().map(|templates| templates.below(set));
            texts.find(|texts| !texts.is_empty()).map(Origin::Texts)
        })
    }

    /// The folders of the families' own header sets, below that of the families.
    pub(super) fn set_folders(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// Families from texts by relative path, in either layout; the texts of their own
    /// header sets are among them.
    pub fn from_files(files: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        Self::from_roles(by_role(Path::new(EMBEDDED_ROOT), files.clone())?, &|set| {
            let below = files.iter().filter_map(|(path, text)| {
                let name = path.strip_prefix(set)?.strip_prefix('/')?;
                Some((name.to_owned(), text.clone()))
            });
            let texts: BTreeMap<String, String> = below.collect();
            (!texts.is_empty()).then_some(Origin::Texts(texts))
        })
    }

    /// `find` says where the header set of a folder is, if it is.
    fn from_roles(
        files: BTreeMap<Role, Found>,
        find: &dyn Fn(&str) -> Option<Origin>,
    ) -> Result<Self, TemplateError> {
        let mut sets = BTreeMap::new();
        let (mut families, mut headers) = (BTreeMap::new(), BTreeMap::new());
        let made = [regions::HEADER, PARAMS_HEADER];
        let known = |name: &str| made.contains(&name) || files.contains_key(&Role::Header(name.to_owned()));
        for (role, Found { file, .. }) in &files {
            match role {
                Role::Header(name) => {
                    let text = name_in_full(name, &file.text, known);
                    headers.insert(name.clone(), Arc::from(text));
                }
                Role::Declarations(name) => {
                    let source = files
                        .get(&Role::Source(name.clone()))
                        .ok_or_else(|| no_source(name, file))?;
                    let family = Family::parse(name, file, &source.file)?;
                    for used in &family.header_sets {
                        own_set(used, file, find, &mut sets)?;
                    }
                    families.insert(name.clone(), Arc::new(family));
                }
                Role::Source(_) => {}
            }
        }
        check_former_names(&families)?;
        let places = files
            .into_iter()
            .filter_map(|(role, found)| {
                let name = match role {
                    Role::Header(name) => name,
                    Role::Source(name) => families.get(&name)?.source_name(),
                    Role::Declarations(_) => return None,
                };
                Some((name, found.place))
            })
            .collect();
        Ok(Self {
            families,
            headers: Arc::new(headers),
            places,
            sets,
        })
    }

    /// Whether the compiler may call a file so: a header, or a family's source.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Where a person finds the file that the compiler calls `name`: below the
    /// folder that it was read from, else in this project's `templates/`.
    #[must_use]
    pub fn place_of(&self, name: &str) -> PathBuf {
        self.places
            .get(name)
            .cloned()
            .unwrap_or_else(|| Path::new(EMBEDDED_ROOT).join(name))
    }

    /// The family of this name, as it is called now.
    pub fn get(&self, name: &str) -> Result<&Arc<Family>, TemplateError> {
        self.families
            .get(name)
            .ok_or_else(|| TemplateError::UnknownFamily {
                name: name.to_owned(),
                hint: did_you_mean(name, self.families.keys().map(String::as_str)),
                known: self.families.keys().cloned().collect::<Vec<_>>().join(", "),
            })
    }

    /// Every family, by name.
    pub fn families(&self) -> impl Iterator<Item = &Arc<Family>> {
        self.families.values()
    }

    /// Headers by the name under which sources include them; a quoted include of a
    /// header beside one is named in full.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, Arc<str>> {
        &self.headers
    }

    /// A header set that a family uses, as a key knows it. One of the family's own is read
    /// whole the first time.
    ///
    /// # Errors
    /// One that names the folder, or a file in it, that cannot be read.
    pub fn header_set(&self, used: &SetName) -> std::io::Result<SetUse> {
        let Some(folder) = &used.folder else {
            return Ok(match PinnedSet::named(&used.name) {
                Some(pinned) => SetUse::pinned(pinned),
                None => SetUse::of(STANDARD, Arc::clone(HeaderSet::standard())),
            });
        };
        let missing =
            || std::io::Error::new(std::io::ErrorKind::NotFound, format!("{folder}: no such folder"));
        let own = self.sets.get(folder).ok_or_else(missing)?;
        let mut read = own.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = &*read {
            return Ok(SetUse::of(&used.name, Arc::clone(set)));
        }
        let set = match &own.origin {
            Origin::Folder(path) => HeaderSet::read(path)?,
            Origin::Texts(texts) => HeaderSet::from_texts(texts).map_err(|e| {
                std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{folder}: {e}"))
            })?,
        };
        let set = Arc::new(set);
        *read = Some(Arc::clone(&set));
        Ok(SetUse::of(&used.name, set))
    }
}

/// Notes where a set of a family's own is; that there is none is an error.
fn own_set(
    used: &SetName,
    declarations: &TemplateFile,
    find: &dyn Fn(&str) -> Option<Origin>,
    sets: &mut BTreeMap<String, OwnSet>,
) -> Result<(), TemplateError> {
    let Some(folder) = used.folder.as_ref().filter(|folder| !sets.contains_key(*folder)) else {
        return Ok(());
    };
    let origin = find(folder).ok_or_else(|| TemplateError::Declaration {
        file: declarations.path.clone(),
        reason: format!(
            "headers: {} = \"{folder}\": there is no such folder: expected one below the folder of templates",
            used.name
        ),
    })?;
    let read = Mutex::new(None);
    sets.insert(folder.clone(), OwnSet { origin, read });
    Ok(())
}

/// What the file at a relative path is; nothing, if no family needs it.
fn role_of(path: &str) -> Option<Role> {
    if let Some(name) = path.strip_prefix("include/") {
        return Some(Role::Header(name.to_owned()));
    }
    match path.split_once('/') {
        Some((family, "family.toml")) => Some(Role::Declarations(family.to_owned())),
        Some((family, "kernel.cu.tera")) => Some(Role::Source(family.to_owned())),
        Some(_) => None,
        None => {
            let source = path.strip_suffix(".cu.tera").map(|n| Role::Source(n.to_owned()));
            source.or_else(|| {
                let name = path.strip_suffix(".toml")?;
                Some(Role::Declarations(name.to_owned()))
            })
        }
    }
}

/// The files of one folder by what they are. One file in two layouts is an error: which
/// of them was meant nobody could tell.
fn by_role(root: &Path, files: BTreeMap<String, String>) -> Result<BTreeMap<Role, Found>, TemplateError> {
    let mut found: BTreeMap<Role, Found> = BTreeMap::new();
    for (path, text) in files {
        let Some(role) = role_of(&path) else { continue };
        let place = root.join(&path);
        let file = TemplateFile { path, text };
        if let Some(other) = found.get(&role) {
            return Err(TemplateError::Declaration {
                reason: format!(
                    "the same family is in {} as well: keep one of them",
                    other.file.path
                ),
                file: file.path,
            });
        }
        found.insert(role, Found { file, place });
    }
    Ok(found)
}

fn no_source(family: &str, declarations: &TemplateFile) -> TemplateError {
    let source = if declarations.path.contains('/') {
        "kernel.cu.tera".to_owned()
    } else {
        format!("{family}.cu.tera")
    };
    TemplateError::Declaration {
        file: declarations.path.clone(),
        reason: format!("there is no {source} beside it"),
    }
}

fn read_embedded(dir: &Dir<'_>, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
            files.insert(path.to_owned(), text.to_owned());
        }
    }
    dir.dirs().for_each(|dir| read_embedded(dir, files));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "summary = 's'\n[constants]\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
    const SOURCE: &str = "extern \"C\" __global__ void k() {}\n";

    fn files(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn a_family_is_the_same_in_a_folder_of_its_own_and_beside_others() {
        for (toml, source) in [
            ("k.toml", "k.cu.tera"),
            ("k/family.toml", "k/kernel.cu.tera"),
            ("k.toml", "k/kernel.cu.tera"),
        ] {
            let registry = Registry::from_files(&files(&[(toml, TOML), (source, SOURCE)])).expect(toml);
            let family = registry.get("k").expect("family");
            assert_eq!(family.source_name(), "k.cu.tera", "the compiler's name for it");
            assert_eq!(
                registry.place_of("k.cu.tera"),
                Path::new("templates").join(source)
            );
        }
    }

    #[test]
    fn a_family_in_both_layouts_is_an_error_that_names_both_files() {
        let both = files(&[
            ("k.toml", TOML),
            ("k.cu.tera", SOURCE),
            ("k/family.toml", TOML),
            ("k/kernel.cu.tera", SOURCE),
        ]);
        let error = Registry::from_files(&both).expect_err("refused").to_string();
        assert_eq!(
            error,
            "k/family.toml: the same family is in k.toml as well: keep one of them"
        );
    }

    #[test]
    fn a_folder_overrides_an_embedded_family_in_either_layout() {
        for source in ["stream.cu.tera", "stream/kernel.cu.tera"] {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join(source);
            fs_err::create_dir_all(path.parent().expect("folder")).expect("made");
            fs_err::write(&path, "// own\n").expect("written");
            let registry = Registry::load(Some(dir.path())).expect("registry");
            assert_eq!(registry.get("stream").expect("family").source, "// own\n");
            assert_eq!(registry.place_of("stream.cu.tera"), path);
            assert_eq!(
                registry.place_of("jitc/stream.cuh"),
                Path::new("templates/include/jitc/stream.cuh")
            );
        }
    }

    #[test]
    fn messages_name_the_files_as_they_are_called() {
        let without = files(&[("k/family.toml", TOML)]);
        let error = Registry::from_files(&without).expect_err("no source").to_string();
        assert_eq!(error, "k/family.toml: there is no kernel.cu.tera beside it");
        let undeclared = files(&[
            ("k/family.toml", TOML),
            ("k/kernel.cu.tera", "int x = {{ n }};\n"),
        ]);
        let error = Registry::from_files(&undeclared)
            .expect_err("undeclared")
            .to_string();
        assert!(
            error.starts_with("k/kernel.cu.tera: line 1 uses `n`, which k/family.toml does not declare"),
            "{error}"
        );
    }

    #[test]
    fn a_set_of_ones_own_may_be_texts_of_the_program() {
        let toml = format!("{TOML}[headers]\nlib = 'vendor/lib'\n");
        let own = [
            ("k.toml", toml.as_str()),
            ("k.cu.tera", SOURCE),
            ("vendor/lib/a.hpp", "int a;\n"),
            ("vendor/lib/d/b", "int b;\n"),
            ("vendor/library/c.h", "int c;\n"),
        ];
        let registry = Registry::from_files(&files(&own)).expect("families");
        let family = registry.get("k").expect("family");
        let used = registry.header_set(&family.header_sets[0]).expect("set");
        let set = used.set.expect("its headers");
        assert!(set.has("a.hpp") && set.has("d/b") && set.len() == 2);
        assert_eq!(used.identity, set.digest());
        let missing = Registry::from_files(&files(&own[..2])).expect_err("no folder");
        assert!(
            missing.to_string().contains("there is no such folder"),
            "{missing}"
        );
    }
}

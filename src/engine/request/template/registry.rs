//! All families at hand: the embedded ones, and those of a folder over them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, include_dir};

use super::{Family, TemplateError, name_in_full};
use crate::engine::request::regions;
use crate::engine::suggest::did_you_mean;

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// Families by name, and the headers that they may include.
#[derive(Debug)]
pub struct Registry {
    families: BTreeMap<String, Arc<Family>>,
    headers: Arc<BTreeMap<String, Arc<str>>>,
    folder: Option<PathBuf>,
    /// Relative paths of what `folder` gave.
    from_folder: BTreeSet<String>,
}

impl Registry {
    /// The families embedded in the program and, over them, those of `folder`:
    /// `<family>.toml` with `<family>.cu.tera`, headers below `include/`.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        let mut files = BTreeMap::new();
        embedded(&EMBEDDED, &mut files);
        let mut theirs = BTreeMap::new();
        if let Some(folder) = folder {
            for entry in fs_err::read_dir(folder)? {
                on_disk(folder, &entry?.path(), &mut theirs)?;
            }
        }
        let from_folder = theirs.keys().cloned().collect();
        files.extend(theirs);
        Ok(Self {
            folder: folder.map(Path::to_path_buf),
            from_folder,
            ..Self::from_files(&files)?
        })
    }

    /// Families from texts by relative path.
    pub fn from_files(files: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let headers: BTreeMap<&str, &str> = files
            .iter()
            .filter_map(|(path, text)| Some((path.strip_prefix("include/")?, text.as_str())))
            .collect();
        let known = |name: &str| headers.contains_key(name) || name == regions::HEADER;
        let headers = headers
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Arc::from(name_in_full(name, text, known))))
            .collect();
        let mut families = BTreeMap::new();
        for (path, toml) in files {
            let Some(name) = path.strip_suffix(".toml").filter(|n| !n.contains('/')) else {
                continue;
            };
            let source = files
                .get(&format!("{name}.cu.tera"))
                .ok_or_else(|| TemplateError::Declaration {
                    file: path.clone(),
                    reason: format!("there is no {name}.cu.tera beside it"),
                })?;
            families.insert(name.to_owned(), Arc::new(Family::parse(name, toml, source)?));
        }
        Ok(Self {
            families,
            headers: Arc::new(headers),
            folder: None,
            from_folder: BTreeSet::new(),
        })
    }

    /// Whether the compiler may call a file so: a header, or a family's source.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        let family = name.strip_suffix(".cu.tera");
        self.headers.contains_key(name) || family.is_some_and(|f| self.families.contains_key(f))
    }

    /// Where a person finds the file that the compiler calls `name`: below the
    /// folder that it was read from, else in this project's `templates/`.
    #[must_use]
    pub fn place_of(&self, name: &str) -> PathBuf {
        let below = if self.headers.contains_key(name) {
            format!("include/{name}")
        } else {
            name.to_owned()
        };
        match &self.folder {
            Some(folder) if self.from_folder.contains(&below) => folder.join(below),
            _ => Path::new("templates").join(below),
        }
    }

    /// The family of this name.
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
}

fn embedded(dir: &Dir<'_>, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
            files.insert(path.to_owned(), text.to_owned());
        }
    }
    dir.dirs().for_each(|dir| embedded(dir, files));
}

fn on_disk(root: &Path, path: &Path, files: &mut BTreeMap<String, String>) -> Result<(), TemplateError> {
    if path.is_dir() {
        for entry in fs_err::read_dir(path)? {
            on_disk(root, &entry?.path(), files)?;
        }
        return Ok(());
    }
    let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
        return Ok(());
    };
    let wanted = [".toml", ".cu.tera", ".cuh", ".h"]
        .iter()
        .any(|end| name.ends_with(end));
    if wanted {
        files.insert(name.to_owned(), fs_err::read_to_string(path)?);
    }
    Ok(())
}

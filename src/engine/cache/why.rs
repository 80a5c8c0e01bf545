//! Why a request missed: the nearest entry, and what differs, part by part.
//!
//! Invariant: an explanation is drawn from preimages alone, so it names exactly
//! the components that made the keys differ; texts only add the line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::carry::receipt::Drift;
use super::judge::Judged;
use super::lookup::Cache;
use super::store::entry::{Texts as Kept, Whole};
use super::store::error::Fault;
use super::store::manifest::Manifest;
use super::store::read::Load;
use super::tier::{Tier, TierName};
use crate::engine::build::key::{CacheKey, Preimage, tag};
use crate::engine::build::request::CompileRequest;
use crate::engine::request::target::ToolchainIdentity;

/// Whether a request is a hit, and why not.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// A tier has it.
    Hit(TierName),
    /// A tier has something under its key that is bad.
    Bad {
        /// The tier that has it.
        tier: TierName,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The receipt that is required does not admit it.
    Refused(Drift),
    /// No tier has it; this is the nearest entry, if there is any.
    Miss(Option<Nearest>),
}

/// The entry that differs least from a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Nearest {
    /// Key of the entry.
    pub key: CacheKey,
    /// Where it lies.
    pub tier: TierName,
    /// The compiler that made it.
    pub made_by: ToolchainIdentity,
    /// What differs, most telling first: `here` is the request.
    pub differences: Vec<Difference>,
}

impl Nearest {
    /// Whether it is the same kernel, made by another compiler.
    #[must_use]
    pub fn differs_in_compiler_alone(&self) -> bool {
        let compiler = |d: &Difference| matches!(d.component, Component::Nvrtc | Component::NvrtcBuiltins);
        self.differences.iter().all(compiler)
    }
}

/// The components of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Component {
    /// How keys are made: another jitc.
    KeyVersion,
    /// The family.
    Family,
    /// An entry point.
    Entry,
    /// A constant.
    Constant,
    /// A header.
    Header,
    /// A header set.
    HeaderSet,
    /// A compiler option.
    Option,
    /// The arch.
    Arch,
    /// libnvrtc.
    Nvrtc,
    /// libnvrtc-builtins.
    NvrtcBuiltins,
    /// A variable that NVRTC reads.
    CompilerEnv,
    /// A component that this jitc does not know.
    Other,
    /// The rendered source, which follows the constants.
    Source,
}

/// One component that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Which kind.
    pub component: Component,
    /// Which one, where there are several: a constant's or a header's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its value in the request, or in the first of two entries.
    pub here: Option<String>,
    /// Its value in the nearest, or in the second entry.
    pub there: Option<String>,
    /// The first line that differs, of a source or a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<LineDifference>,
}

/// The first line in which two texts differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LineDifference {
    /// Its number, from 1.
    pub number: u64,
    /// The line here; `None` past the end.
    pub here: Option<String>,
    /// The line there; `None` past the end.
    pub there: Option<String>,
}

impl Component {
    fn of(text: &str) -> Self {
        match text {
            tag::KEY_VERSION => Self::KeyVersion,
            tag::FAMILY => Self::Family,
            tag::ENTRY | tag::EXPRESSION => Self::Entry,
            tag::CONSTANT => Self::Constant,
            tag::SOURCE => Self::Source,
            tag::HEADER => Self::Header,
            tag::HEADER_SET => Self::HeaderSet,
            tag::OPTION => Self::Option,
            tag::ARCH => Self::Arch,
            tag::NVRTC => Self::Nvrtc,
            tag::BUILTINS => Self::NvrtcBuiltins,
            tag::COMPILER_ENV => Self::CompilerEnv,
            _ => Self::Other,
        }
    }

    /// How far apart a difference in this component puts two requests.
    fn weight(self) -> u64 {
        match self {
            Self::Family => 10_000,
            Self::Entry | Self::Other => 1_000,
            Self::Arch => 12,
            // A changed source alone says that the template was edited.
            Self::Source => 1,
            _ => 10,
        }
    }
}

/// What was judged of a request, and of a miss what stands in its way: that reads the
/// manifests of all entries of all tiers.
#[must_use]
pub fn why(cache: &Cache, request: &CompileRequest, judged: Judged) -> Why {
    match judged {
        Judged::Hit { tier, .. } => Why::Hit(tier),
        Judged::Bad { tier, fault } => Why::Bad { tier, fault },
        Judged::Refused(drift) => Why::Refused(drift),
        Judged::Absent => Why::Miss(nearest(cache.tiers(), request)),
    }
}

fn nearest(tiers: &[Arc<dyn Tier>], request: &CompileRequest) -> Option<Nearest> {
    let mut best: Option<(u64, Manifest, usize)> = None;
    for (n, tier) in tiers.iter().enumerate() {
        tier.visit(&mut |manifest| {
            let distance = distance(request.preimage(), &manifest.preimage);
            let nearer = |(d, held, _): &(u64, Manifest, _)| (distance, manifest.key) < (*d, held.key);
            if best.as_ref().is_none_or(nearer) {
                best = Some((distance, manifest, n));
            }
        });
    }
    let (_, manifest, n) = best?;
    let key = manifest.key;
    let tier = &tiers[n];
    let mut differences = compare(request.preimage(), &manifest.preimage);
    if let Load::Found(whole) = tier.whole(&key) {
        let headers = request.headers().iter().map(|(n, t)| (n.as_str(), &**t));
        add_lines(
            &mut differences,
            &Texts::new(request.source(), headers),
            &Texts::of(whole.texts()),
        );
    }
    Some(Nearest {
        key,
        tier: tier.name().clone(),
        made_by: manifest.toolchain,
        differences,
    })
}

/// What differs between two entries: `here` is the first.
#[must_use]
pub fn diff(first: &Whole, second: &Whole) -> Vec<Difference> {
    let mut differences = compare(
        &first.entry().manifest().preimage,
        &second.entry().manifest().preimage,
    );
    add_lines(
        &mut differences,
        &Texts::of(first.texts()),
        &Texts::of(second.texts()),
    );
    differences
}

/// The components in which two preimages differ, most telling first.
#[must_use]
pub fn compare(here: &Preimage, there: &Preimage) -> Vec<Difference> {
    let mut differences = Vec::new();
    let kinds: BTreeSet<(&str, &str)> = slots(here).chain(slots(there)).collect();
    for (tag, name) in kinds {
        let (ours, theirs) = (values(here, tag, name), values(there, tag, name));
        if ours == theirs {
            continue;
        }
        let component = Component::of(tag);
        let mut push = |here: Option<String>, there: Option<String>| {
            differences.push(Difference {
                component,
                name: name.to_owned(),
                here,
                there,
                line: None,
            });
        };
        let repeated = ours.len() > 1 || theirs.len() > 1;
        let lost: Vec<_> = theirs.iter().filter(|v| !ours.contains(v)).collect();
        let gained: Vec<_> = ours.iter().filter(|v| !theirs.contains(v)).collect();
        if !repeated {
            let text = |v: &[&str]| v.first().map(|v| (*v).to_owned());
            push(text(&ours), text(&theirs));
        } else if gained.is_empty() && lost.is_empty() {
            // The same ones in another order.
            push(Some(ours.join(" ")), Some(theirs.join(" ")));
        } else {
            for value in gained {
                push(Some((*value).to_owned()), None);
            }
            for value in lost {
                push(None, Some((*value).to_owned()));
            }
        }
    }
    differences.sort_by(|a, b| (a.component, &a.name).cmp(&(b.component, &b.name)));
    differences
}

fn distance(here: &Preimage, there: &Preimage) -> u64 {
    // The same answer as adding up `compare`, without its texts: a cache may
    // hold tens of thousands of entries.
    let lacking = |a: &Preimage, b: &Preimage| -> u64 {
        let absent = a.fields.iter().filter(|f| !b.fields.contains(f));
        absent.map(|f| Component::of(&f.tag).weight()).sum()
    };
    lacking(here, there) + lacking(there, here)
}

fn slots(preimage: &Preimage) -> impl Iterator<Item = (&str, &str)> {
    let fields = preimage.fields.iter();
    fields.map(|f| (f.tag.as_str(), f.name.as_str()))
}

fn values<'a>(preimage: &'a Preimage, tag: &str, name: &str) -> Vec<&'a str> {
    let fields = preimage.fields.iter();
    fields
        .filter(|f| f.tag == tag && f.name == name)
        .map(|f| f.value.as_str())
        .collect()
}

/// What a compiler was given, as texts.
struct Texts<'a> {
    source: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
}

impl<'a> Texts<'a> {
    fn new(source: &'a str, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self {
            source,
            headers: headers.collect(),
        }
    }

    fn of(kept: &'a Kept) -> Self {
        Self::new(&kept.source, kept.headers.iter().map(|(n, t)| (n.as_str(), &**t)))
    }
}

fn add_lines(differences: &mut [Difference], here: &Texts<'_>, there: &Texts<'_>) {
    for difference in differences {
        let name = difference.name.as_str();
        difference.line = match difference.component {
            Component::Source => first_line(here.source, there.source),
            Component::Header => match (here.headers.get(name), there.headers.get(name)) {
                (Some(here), Some(there)) => first_line(here, there),
                _ => None,
            },
            _ => None,
        };
    }
}

fn first_line(here: &str, there: &str) -> Option<LineDifference> {
    // Line ends count: they are hashed.
    let mut ours = here.split_inclusive('\n');
    let mut theirs = there.split_inclusive('\n');
    for number in 1.. {
        let (here, there) = (ours.next(), theirs.next());
        if here != there {
            let text = |line: Option<&str>| line.map(|l| l.trim_end_matches('\n').to_owned());
            return Some(LineDifference {
                number,
                here: text(here),
                there: text(there),
            });
        }
        if here.is_none() {
            break;
        }
    }
    None
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KeyVersion => "key version",
            Self::Family => "family",
            Self::Entry => "entry point",
            Self::Constant => "constant",
            Self::Header => "header",
            Self::HeaderSet => "header set",
            Self::Option => "option",
            Self::Arch => "arch",
            Self::Nvrtc => "NVRTC",
            Self::NvrtcBuiltins => "NVRTC builtins",
            Self::CompilerEnv => "compiler variable",
            Self::Other => "component",
            Self::Source => "source",
        })
    }
}

/// One line: `constant wo_split: 8u here, 4u there`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.component)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if let Some(line) = &self.line {
            let text = |side: &Option<String>| side.clone().unwrap_or_else(|| "(end)".to_owned());
            let (here, there) = (text(&line.here), text(&line.there));
            return write!(f, ": line {}: `{here}` here, `{there}` there", line.number);
        }
        let digest = matches!(self.component, Component::Source | Component::Header);
        let text = |side: &Option<String>| match side {
            None => "absent".to_owned(),
            Some(_) if digest => "present".to_owned(),
            Some(value) => value.clone(),
        };
        let (here, there) = (text(&self.here), text(&self.there));
        if here == there {
            return f.write_str(": differs");
        }
        write!(f, ": {here} here, {there} there")
    }
}

/// One line of all differences.
impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nearest is {} ({}); ", self.key.short(), self.tier)?;
        for (n, difference) in self.differences.iter().enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            write!(f, "{comma}{difference}")?;
        }
        Ok(())
    }
}

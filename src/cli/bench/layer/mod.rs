//! `jitc bench layer`: the decode layer as one cooperative launch, as ordinary
//! launches, and as separate kernels, beside the time to stream as many bytes.
//!
//! Invariant: every variant that is timed is held to the references first, and every
//! point to the bits of a second launch and of the other path; what is refused is not
//! timed. Of `separate` that is attention: its GEMVs have their gates elsewhere.

mod report;
mod separate;
mod sets;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::{BenchError, Session, files};
use crate::cli::{layer_copies, output, verify_layer};
use crate::jit::{Error, Jit};
use crate::reference::layer::{Kv, LayerInputs, Lengths};
use crate::spec::{KernelSpec, SpecId};
use crate::template::Family;
use crate::timing::{Plan, Summary, sample};
use crate::workspace::{Layer, LayerDims};

use separate::Separate;
use sets::Sets;

/// Positions of the sequence over which a variant is held to the references.
const GATE_LENGTH: usize = 257;

/// Launches of a graph.
const PER_GRAPH: usize = 10;

/// What only the layer takes.
pub(super) fn args(command: Command) -> Command {
    let list = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("LIST")
            .default_value(default)
            .help(help)
            .help_heading("Of the layer")
    };
    command.args([
        list("context", "1024,4096,16384,32768", "Positions of every sequence"),
        list("nat", "1,2,4,8", "Tokens of a launch"),
        list(
            "path",
            "coop,lite,separate",
            "beta_coop, beta_lite, and attention, W_O, gate_up and down as kernels of their own",
        ),
    ])
}

/// One way to run the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Coop,
    Lite,
    Separate,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::Coop => "coop",
            Self::Lite => "lite",
            Self::Separate => "separate",
        }
    }
}

/// What was asked for.
struct Ask {
    contexts: Vec<usize>,
    nats: Vec<usize>,
    paths: Vec<Path>,
}

impl Ask {
    fn new(matches: &ArgMatches) -> Result<Self, String> {
        let text = |name: &str| matches.get_one::<String>(name).map_or("", |t| t.as_str());
        let numbers = |name: &str| -> Result<Vec<usize>, String> {
            let one = |part: &str| part.trim().parse().ok().filter(|n| *n > 0);
            let parts = text(name).split(',');
            parts
                .map(|part| one(part).ok_or_else(|| format!("--{name}: `{part}` is no number of at least 1")))
                .collect()
        };
        let path = |part: &str| match part.trim() {
            "coop" => Ok(Path::Coop),
            "lite" => Ok(Path::Lite),
            "separate" => Ok(Path::Separate),
            other => Err(format!("--path: `{other}` is none of coop, lite, separate")),
        };
        Ok(Self {
            contexts: numbers("context")?,
            nats: numbers("nat")?,
            paths: text("path").split(',').map(path).collect::<Result<_, _>>()?,
        })
    }
}

/// One point of the table.
struct Point {
    context: usize,
    nat: usize,
    path: Path,
    variant: String,
    bytes: usize,
    passes: bool,
    summary: Option<Summary>,
    floor: f64,
}

pub(super) fn measure(jit: &Jit, matches: &ArgMatches, json: bool) -> Result<ExitCode, BenchError> {
    let ask = Ask::new(matches).map_err(BenchError::Request)?;
    let specs = crate::cli::specs(jit, &["beta_coop".to_owned()])?;
    let dims = roof(&specs)?;
    let tokens = &jit.registry().get("beta_coop").map_err(Error::from)?.constants["tokens"];
    let chosen = jit.config().constant("tokens", &tokens.variables).is_some();
    let session = Session::open(jit, matches, super::request(jit, matches)?)?;
    let plan = Plan {
        launches_per_graph: PER_GRAPH,
        ..session.plan
    };
    let mut points = Vec::new();
    let mut gates: HashMap<SpecId, bool> = HashMap::new();
    for nat in &ask.nats {
        for spec in &specs {
            let coop = with_tokens(spec, &spec.family, *nat, chosen)?;
            if let Entry::Vacant(place) = gates.entry(coop.id()) {
                place.insert(gate(&session, &coop)?);
            }
        }
    }
    let most = ask.nats.iter().copied().max().unwrap_or(1);
    for context in &ask.contexts {
        let lengths = Lengths(vec![*context; most]);
        let inputs = LayerInputs::with_layout(
            &dims.shape,
            &lengths,
            Kv::Random,
            dims.scale_layout(),
            session.seed,
        );
        let mut sets = Sets::new(&session, &dims, &inputs)?;
        let separate = if ask.paths.contains(&Path::Separate) {
            Some(Separate::new(&session, &dims, &inputs)?)
        } else {
            None
        };
        for nat in &ask.nats {
            let bytes = sets.bytes(*context, *nat);
            let floor = sets.floor(&session, &plan, bytes)?;
            for spec in &specs {
                let at = At {
                    context: *context,
                    nat: *nat,
                    bytes,
                    floor,
                };
                let coop = with_tokens(spec, &spec.family, *nat, chosen)?;
                let family = jit.registry().get("beta_lite").map_err(Error::from)?;
                let lite = with_tokens(spec, family, *nat, chosen)?;
                point(
                    &session,
                    &plan,
                    &ask,
                    (&coop, &lite),
                    gates.get(&coop.id()).copied().unwrap_or(false),
                    &at,
                    &mut sets,
                    separate.as_ref(),
                    &mut points,
                )?;
            }
        }
    }
    let summary = report::print(&session, &plan, &points, json);
    if let Some(out) = matches.get_one::<PathBuf>("out") {
        files::write_json(out, "summary.json", &summary)?;
        files::write(out, "timing.csv", &report::csv(&points))?;
        files::write(out, "plot.svg", &report::picture(&session, &points))?;
    }
    Ok(ExitCode::from(u8::from(points.iter().any(|p| !p.passes))))
}

/// Where a point lies.
struct At {
    context: usize,
    nat: usize,
    bytes: usize,
    floor: f64,
}

/// Gates and times one variant's paths at one point.
#[expect(
    clippy::too_many_arguments,
    reason = "a point is made of all that a run holds"
)]
fn point(
    session: &Session,
    plan: &Plan,
    ask: &Ask,
    (coop, lite): (&KernelSpec, &KernelSpec),
    gate: bool,
    at: &At,
    sets: &mut Sets,
    separate: Option<&Separate>,
    points: &mut Vec<Point>,
) -> Result<(), BenchError> {
    let nat = u32::try_from(at.nat).unwrap_or(u32::MAX);
    let layer = |spec: &KernelSpec| -> Result<Layer, BenchError> {
        let kernel = session.jit.load(spec, &session.context)?;
        Ok(Layer::new(spec, kernel)?)
    };
    let (coop_layer, lite_layer) = (layer(coop)?, layer(lite)?);
    let (coop_bound, lite_bound) = (sets.bind(&coop_layer)?, sets.bind(&lite_layer)?);
    let slots = coop_layer.dims().slots;
    let expected = sets.written(&lite_bound, nat, slots)?;
    let spread = coop.constants["geometry"].to_string() == "spread";
    for path in &ask.paths {
        let bound = if *path == Path::Coop {
            &coop_bound
        } else {
            &lite_bound
        };
        // Two launches, and the other path's; the original's geometry divides FC2's
        // sums otherwise, so it is held to itself and to the references alone.
        let passes = gate && {
            let (one, two) = (sets.written(bound, nat, slots)?, sets.written(bound, nat, slots)?);
            one == two && (!spread || one == expected)
        };
        let samples = if passes {
            Some(match (path, separate) {
                (Path::Separate, Some(separate)) => separate.sample(session, plan, &lite_bound, coop, nat)?,
                _ => sample(&session.context, plan, &mut |i, stream| {
                    layer_copies::launch(bound, i, nat, stream)
                })?,
            })
        } else {
            output::error(format!(
                "{} {} at context {}, {} tokens: other bits than in another launch, or refused by the references; not timed",
                path.name(),
                coop.variant(),
                at.context,
                at.nat
            ));
            None
        };
        points.push(Point {
            context: at.context,
            nat: at.nat,
            path: *path,
            variant: coop.variant(),
            bytes: at.bytes,
            passes,
            summary: samples.as_deref().and_then(Summary::of),
            floor: at.floor,
        });
    }
    Ok(())
}

/// Holds every stage of a variant to its reference, with as many tokens as share a pass.
fn gate(session: &Session, spec: &KernelSpec) -> Result<bool, BenchError> {
    let lengths = vec![GATE_LENGTH; spec.number("tokens").unwrap_or(1) as usize];
    let gated = verify_layer::gate(session.jit, &session.context, spec, lengths)?;
    if let Err(reason) = &gated {
        output::error(format!("{}: WRONG {reason}", spec.variant()));
    }
    Ok(gated.is_ok())
}

/// The variant in this family, for so many tokens: unless it was chosen, by
/// itself or with a preset, `tokens` is the number of tokens up to four, beyond which a pass for each four is faster.
fn with_tokens(
    spec: &KernelSpec,
    family: &std::sync::Arc<Family>,
    nat: usize,
    chosen: bool,
) -> Result<KernelSpec, BenchError> {
    let default = spec.family.constants["tokens"].default.to_string();
    let texts: Vec<(&str, String)> = spec
        .constants
        .iter()
        .filter(|(name, _)| family.constants.contains_key(name.as_str()))
        .map(|(name, value)| {
            let value = value.to_string();
            let free = name == "tokens" && !chosen && value == default;
            let tokens = nat.next_power_of_two().min(4).to_string();
            (name.as_str(), if free { tokens } else { value })
        })
        .collect();
    let set = texts.iter().map(|(name, text)| (*name, text.as_str()));
    Ok(KernelSpec::new(family, set, spec.arch)?)
}

/// Sizes that every variant fits in.
fn roof(specs: &[KernelSpec]) -> Result<LayerDims, BenchError> {
    let all: Vec<LayerDims> = specs.iter().map(LayerDims::of).collect::<Result<_, _>>()?;
    let Some(mut roof) = all.first().copied() else {
        return Err(BenchError::Request(
            "no variant of beta_coop fits this GPU".into(),
        ));
    };
    for dims in &all {
        if dims.shape != roof.shape {
            return Err(BenchError::Request(
                "a run measures one shape; lists are for wo_split, accumulate and geometry".into(),
            ));
        }
        roof.slots = roof.slots.max(dims.slots);
        roof.num_ctas = roof.num_ctas.max(dims.num_ctas);
        roof.slice_ctas = roof.slice_ctas.max(dims.slice_ctas);
    }
    Ok(roof)
}

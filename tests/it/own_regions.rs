//! Regions of a family of one's own: declared, read, refused.

use std::collections::BTreeMap;
use std::path::Path;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::{Registry, TemplateError};
use jitc::measure::region::{Active, Geometry, RegionError, Table, TickSource, Ticks, reduce};

use crate::cli::jitc;

const TOML: &str = r#"
summary = "regions of every kind"

[constants.num_regions]
type = "u32"
values = [0, 3, 6]
default = 0
help = "timing regions"

[constants.heads]
type = "u32"
range = [1, 8]
default = 2
help = "rows of blocks that attend"

[constants.launch]
type = "enum"
cxx_type = "Launch"
values = ["one", "two"]
default = "one"
help = "how it is launched"

[[entries]]
name = "own"
grid = [4, 3, 1]
block = 32

[regions]
count = "num_regions"
classes = ["work"]
waits = ["idle"]
rules = [{ rule = "heads <= grid_y", because = "a head has a row of blocks" }]
rows = [
    { id = 0, name = "first", class = "work", active = "bx == 0 and by < heads" },
    { id = 1, name = "step", class = "work", iterates = true, sum = 4, active = "others" },
    { id = 2, name = "stand", class = "idle", sets = [3] },
    { id = 2, name = "stop", class = "idle", sets = [6] },
    { id = 3, name = "gather", class = "work", active = "elected", inside = 0 },
    { id = 4, name = "steps", class = "work", sum_of = 1, active = "others" },
    { id = 5, name = "end", class = "work" },
]

[regions.active]
others = "bx > 0 or by >= heads"
"#;

fn registry(toml: &str) -> Result<Registry, TemplateError> {
    let source = "// {{ num_regions }} {{ heads }} {{ launch }}\n";
    let files = [("own.toml", toml), ("own.cu.tera", source)];
    let files: BTreeMap<String, String> = files.map(|(n, t)| (n.to_owned(), t.to_owned())).into();
    Registry::from_files(&files)
}

fn table(toml: &str, count: u32) -> Table {
    let registry = registry(toml).expect("a family");
    registry
        .regions("own")
        .expect("regions")
        .first(count)
        .expect("a table")
}

fn launch(heads: u32) -> Geometry {
    let grid = Geometry {
        slice_ctas: 4,
        num_k_tiles: 3,
        ..Geometry::default()
    };
    grid.with("heads", heads)
}

#[test]
fn a_set_is_the_rows_below_its_size_each_in_its_own_form() {
    let names = |count| -> Vec<String> {
        let table = table(TOML, count);
        table.regions.iter().map(|r| r.name.to_string()).collect()
    };
    assert_eq!(names(3), ["first", "step", "stand"]);
    assert_eq!(names(6), ["first", "step", "stop", "gather", "steps", "end"]);
    assert!(table(TOML, 6).regions[2].wait && !table(TOML, 6).regions[3].wait);
    let spec = |count: &str| {
        let registry = registry(TOML).expect("a family");
        let arch: Arch = "sm_90".parse().expect("an arch");
        KernelSpec::new(
            registry.get("own").expect("family"),
            [("num_regions", count)],
            arch,
        )
        .expect("a spec")
    };
    assert_eq!(spec("0").region_table().expect("none"), None);
    assert_eq!(spec("3").region_table().expect("a table"), Some(table(TOML, 3)));
    assert_eq!(TickSource::of_spec(&spec("3")), TickSource::GlobalTimer);
}

#[test]
fn a_buffer_reduces_by_the_familys_own_masks_and_waits() {
    let (table, geometry) = (table(TOML, 6), launch(2));
    geometry.check(&table).expect("a launch");
    let ticks = Ticks {
        pairs: vec![[100, 150]; geometry.ctas() * table.count()],
        table,
        geometry,
        source: TickSource::GlobalTimer,
        sms: None,
        launch_us: Some(1.0),
        label: String::new(),
    };
    let reduced = reduce(&ticks);
    let active: Vec<usize> = reduced.rows.iter().map(|row| row.n_active).collect();
    assert_eq!(active, [2, 10, 12, 12, 10, 12]);
    let expected: Vec<usize> = reduced.rows.iter().map(|row| row.expected).collect();
    assert_eq!(expected, [2, 10, 12, 1, 10, 12]);
    let shares: Vec<bool> = reduced
        .rows
        .iter()
        .map(|row| row.frac_of_kernel.is_finite())
        .collect();
    assert_eq!(shares, [true, true, false, false, true, true]);
    // Of a block's work a loop counts as its sum, and what is inside a region once.
    assert_eq!((reduced.busiest.work, reduced.busiest.wait), (100, 50));
    let refused = launch(4).check(&ticks.table).expect_err("refused").to_string();
    assert_eq!(
        refused,
        "geometry: heads 4 and grid_y 3: a head has a row of blocks"
    );
}

#[test]
fn a_saved_buffer_carries_the_constants_that_its_masks_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("own.npy");
    let (table, geometry) = (table(TOML, 3), launch(3));
    let ticks = Ticks {
        pairs: vec![[1, 2]; geometry.ctas() * table.count()],
        table,
        geometry,
        source: TickSource::GlobalTimer,
        sms: None,
        launch_us: None,
        label: "own".to_owned(),
    };
    ticks.save(&path).expect("saved");
    let bare = jitc::measure::region::Bare::default();
    let open = |toml: &str| Ticks::open(&path, &bare, &registry(toml).expect("a family"));
    assert_eq!(open(TOML).expect("opened"), ticks);
    // A mask is part of the table: a file of other masks is another table's.
    let other = open(&TOML.replace("by < heads\" },", "by <= heads\" },"));
    assert!(matches!(other, Err(RegionError::OtherTable { .. })));
}

#[test]
fn the_identity_may_be_anothers_name_or_one_for_each_value_of_a_constant() {
    let with = |identity: &str| TOML.replace("classes =", &format!("identity = {identity}\nclasses ="));
    let plain = table(TOML, 6).identity();
    assert_eq!(table(&with("\"own\""), 6).identity(), plain);
    assert_ne!(table(&with("\"older\""), 6).identity(), plain);
    let by = with("{ launch = { one = \"own\", two = \"older\" } }");
    let registry = registry(&by).expect("a family");
    let arch: Arch = "sm_90".parse().expect("an arch");
    let of = |launch: &str| {
        let set = [("num_regions", "6"), ("launch", launch)];
        let spec = KernelSpec::new(registry.get("own").expect("family"), set, arch).expect("a spec");
        spec.region_table().expect("a table").expect("regions").identity()
    };
    assert_eq!(of("one"), plain);
    assert_eq!(of("two"), table(&with("\"older\""), 6).identity());
    let tables = registry
        .regions("own")
        .expect("regions")
        .tables(6)
        .expect("tables");
    assert_eq!(
        tables.iter().map(Table::identity).collect::<Vec<_>>(),
        [of("one"), of("two")]
    );
}

#[test]
fn a_condition_of_a_row_and_the_same_one_by_name_are_one_mask() {
    let table = table(TOML, 3);
    let mask = |row: usize| match &table.regions[row].active {
        Active::Blocks(mask) => mask.text().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(mask(0), "bx == 0 and by < heads");
    assert_eq!(mask(1), "bx > 0 or by >= heads");
}

#[test]
fn a_table_that_cannot_be_is_refused_when_the_family_is_read() {
    for (from, to, words) in [
        (
            "count = \"num_regions\"",
            "count = \"heads\"",
            "count = `heads`: expected a u32 constant with `values`",
        ),
        (
            "class = \"idle\", sets = [3]",
            "class = \"idel\", sets = [3]",
            "class `idel` is in neither",
        ),
        ("id = 5", "id = 6", "the set of 6 has 0 regions with id 5"),
        (
            "name = \"stop\"",
            "name = \"step\"",
            "the set of 6 has two regions `step`",
        ),
        (
            "sum_of = 1",
            "sum_of = 0",
            "a sum and what it sums name each other",
        ),
        (
            "inside = 0",
            "inside = 3",
            "a sum and what it sums name each other",
        ),
        (
            "active = \"others\" },\n    { id = 2",
            "active = \"other\" },\n    { id = 2",
            "is declared nowhere (did you mean `others`?)",
        ),
        (
            "by < heads\" }",
            "by < head\" }",
            "a mask uses `head`, which is neither a place nor a u32 or bool constant (did you mean `heads`?)",
        ),
        ("by < heads\" }", "by < launch\" }", "a mask uses `launch`"),
        ("heads <= grid_y", "by <= heads", "is about one block"),
        (
            "name = \"end\"",
            "name = \"the end\"",
            "its name becomes a C++ type",
        ),
        (
            "id = 5, name = \"end\"",
            "id = 5, name = \"last\", class = \"work\", sets = [9] },\n    { id = 5, name = \"end\"",
            "region `last` is in no set",
        ),
        (
            "classes =",
            "read_only = [3]\nclasses =",
            "3 regions are declared twice",
        ),
        (
            "classes =",
            "along_k = { frist = \"FIRST\" }\nclasses =",
            "along_k: there is no region `frist` (did you mean `first`?)",
        ),
        (
            "classes =",
            "clock = \"heads\"\nclasses =",
            "clock = `heads`: expected an enum constant",
        ),
        (
            "classes =",
            "identity = { launch = { one = \"a\" } }\nclasses =",
            "identity: expected a name, or one enum constant",
        ),
        ("classes =", "colour = 1\nclasses =", "unknown field"),
    ] {
        assert!(TOML.contains(from), "{from}");
        let error = registry(&TOML.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(
            error.starts_with("own.toml: ") && error.contains(words),
            "{to}: {error}"
        );
    }
}

/// The family on the families' page.
fn example() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/family").to_owned()
}

#[test]
fn live_regions_of_the_example_family_take_a_gpu_and_nothing_else() {
    let dir = tempfile::tempdir().expect("tempdir");
    let live = |more: &[&str]| {
        let args = [
            "regions",
            "--live",
            "scale",
            "--arch",
            "sm_90a",
            "--templates",
            &example(),
        ];
        // A device list of none hides a GPU, where there is one.
        let mut command = jitc(dir.path());
        let output = command
            .env("CUDA_VISIBLE_DEVICES", "")
            .args(args)
            .args(more)
            .output();
        let output = output.expect("ran");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for more in [
        &[][..],
        &[
            "--with",
            "n=1048576",
            "--block",
            "128,512",
            "--tick-source",
            "clock64",
        ],
    ] {
        let (code, said) = live(more);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("error: measuring takes a GPU") && said.lines().count() == 1,
            "{said}"
        );
    }
    // What takes no GPU was done before: the kernels with regions and without are in the cache.
    let cached = jitc(dir.path()).args(["cache", "ls"]).output().expect("ran");
    let cached = String::from_utf8_lossy(&cached.stdout).into_owned();
    assert_eq!(cached.matches("scale").count(), 6, "{cached}");
    for (more, words) in [
        (
            &["--with", "m=3"][..],
            "scale: --with m: is not a launch size or a number that it takes: expected one of n",
        ),
        (
            &["--with", "n=some"],
            "--with n=some: is not a number of its type",
        ),
        (&["--with", "n"], "--with n: expected NAME=N"),
        (&["--num-regions", "3"], "`3` is not legal: expected one of 0, 2"),
        (
            &["--tokens", "2"],
            "--tokens: scale has launch sizes: --with NAME=N",
        ),
    ] {
        let (code, said) = live(more);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{more:?}: {said}");
    }
}

#[test]
fn a_family_without_regions_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args(["regions", "--live", "gemv"])
        .output()
        .expect("ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`gemv` is compiled without regions"), "{said}");
}

#[test]
fn the_example_familys_regions_are_read_beside_those_that_come_with_jitc() {
    let registry = Registry::load(Some(Path::new(&example()))).expect("families");
    let regions = registry.regions("scale").expect("regions");
    assert_eq!(regions.compiled_names(), ["multiply", "others"]);
    let table = regions.first(2).expect("a table");
    assert!(!table.regions[0].wait && table.regions[1].wait);
}

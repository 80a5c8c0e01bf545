//! The reducer on buffers made for it.

use std::sync::LazyLock;

use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::Registry;
use crate::measure::region::*;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::load(None).expect("families"));

pub(super) fn table_of(family: &str, count: u32) -> Table {
    REGISTRY.region_table(family, count).expect("a table")
}

pub(super) fn spec(set: &[(&str, &str)]) -> KernelSpec {
    let family = REGISTRY.get("decode_layer").expect("family");
    let arch: Arch = "sm_90a".parse().expect("an arch");
    KernelSpec::new(family, set.iter().copied(), arch).expect("a spec")
}

fn geometry(wo_split: u32, num_seqs: u32) -> Geometry {
    let grid = Geometry {
        num_seqs,
        ..Geometry::default()
    };
    grid.with("wo_split", wo_split).with("num_kv_heads", 4)
}

fn synthetic(geometry: &Geometry, count: u32) -> Ticks {
    let split = geometry.constants["wo_split"];
    super::synthetic(&REGISTRY, geometry, split, count).expect("ticks")
}

/// A buffer in which every row of every region, active or not, holds `delta`.
fn everywhere(count: u32, geometry: Geometry, delta: i64) -> Ticks {
    let table = table_of("decode_layer", count);
    Ticks {
        pairs: vec![[1000, 1000 + delta]; geometry.ctas() * table.count()],
        table,
        geometry,
        source: TickSource::GlobalTimer,
        sms: None,
        launch_us: None,
        label: String::new(),
    }
}

fn set(ticks: &mut Ticks, cta: usize, region: usize, pair: [i64; 2]) {
    let count = ticks.table.count();
    ticks.pairs[cta * count + region] = pair;
}

fn counts(ticks: &Ticks) -> Vec<usize> {
    reduce(ticks).rows.iter().map(|r| r.n_active).collect()
}

#[test]
fn stale_rows_of_inactive_blocks_never_count() {
    for (split, writers, waiters) in [(1, 4, 0), (2, 8, 4), (4, 16, 12), (8, 32, 28)] {
        for seqs in [1, 3] {
            let n = seqs as usize;
            let found = counts(&everywhere(13, geometry(split, seqs), 64));
            let all = 64 * n;
            let expected = [
                n,
                4 * n,
                writers * n,
                writers * n,
                all,
                all,
                all,
                all,
                all,
                all,
                all,
                waiters * n,
                all,
            ];
            assert_eq!(found, expected, "split {split}, {seqs} sequences");
        }
    }
}

#[test]
fn zero_and_negative_times_are_dropped() {
    let mut ticks = everywhere(13, geometry(1, 1), 0);
    assert!(counts(&ticks).iter().all(|n| *n == 0));
    let rows = reduce(&ticks).rows;
    assert!(
        rows.iter()
            .all(|r| r.mean == 0.0 && r.median == 0.0 && r.p99 == 0.0 && r.total == 0)
    );
    set(&mut ticks, 3, 5, [100, 40]);
    set(&mut ticks, 4, 5, [100, 164]);
    let row = &reduce(&ticks).rows[5];
    assert_eq!((row.n_active, row.total), (1, 64));
}

#[test]
fn an_elected_block_counts_wherever_it_is_and_more_than_one_is_said() {
    let mut ticks = everywhere(20, geometry(8, 1), 0);
    set(&mut ticks, 37, 12, [0, 96]);
    let reduced = reduce(&ticks);
    let elected = |reduced: &Reduced| {
        let said = warnings(reduced);
        said.into_iter()
            .filter(|line| line.contains("a launch elects"))
            .collect::<Vec<_>>()
    };
    assert_eq!((reduced.rows[12].n_active, reduced.rows[12].expected), (1, 1));
    assert!(elected(&reduced).is_empty());
    set(&mut ticks, 2, 12, [0, 320]);
    let said = elected(&reduce(&ticks));
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("phase1_gather_reduce: 2 blocks"),
        "{}",
        said[0]
    );
}

#[test]
fn a_row_outside_of_its_mask_and_an_empty_one_inside_are_said() {
    for (split, count) in [(1, 13), (2, 20), (4, 13), (8, 20)] {
        let mut ticks = synthetic(&geometry(split, 2), count);
        assert_eq!(warnings(&reduce(&ticks)), Vec::<String>::new(), "split {split}");
        // Block (3, 5) owns no slot of 4 heads; block (0, 1) of the second sequence does.
        set(&mut ticks, 5 * 8 + 3, 2, [100, 100]);
        set(&mut ticks, 64 + 8, 2, [0, 0]);
        assert_eq!(
            warnings(&reduce(&ticks)),
            [
                "phase1_wo_gemv: 1 blocks have ticks that do not run it in this geometry: they are not counted",
                "phase1_wo_gemv: 1 of the blocks that run it in this geometry have no ticks"
            ]
        );
        let row = reduce(&ticks).rows[2].clone();
        assert_eq!(
            (row.outside, row.silent, row.n_active),
            (1, 1, 8 * split as usize - 1)
        );
    }
    // Where every block does a part of everything, one without a share says nothing, and
    // a region that the kernel has no place for is none; one block without a region is.
    let mut ticks = everywhere(20, geometry(1, 1), 32);
    ticks.geometry.layout = Layout::Tiles;
    for cta in 0..64 {
        set(&mut ticks, cta, 16, [0, 0]);
    }
    for region in 0..20 {
        set(&mut ticks, 63, region, [0, 0]);
    }
    assert_eq!(warnings(&reduce(&ticks)), Vec::<String>::new());
    set(&mut ticks, 5, 9, [0, 0]);
    assert_eq!(warnings(&reduce(&ticks)).len(), 1);
}

#[test]
fn what_no_region_holds_is_told_by_place() {
    let mut ticks = everywhere(20, geometry(8, 1), 0);
    ticks.launch_us = Some(5.0);
    // Block 9 works longest, from 300 to 2000; another from 100 to 2400.
    set(&mut ticks, 9, 2, [300, 1300]);
    set(&mut ticks, 9, 4, [1400, 2000]);
    set(&mut ticks, 1, 11, [100, 200]);
    set(&mut ticks, 1, 14, [2390, 2400]);
    let rest = reduce(&ticks).rest;
    assert_eq!(
        rest,
        Unaccounted {
            outside: Some(2700),
            before: Some(200),
            after: Some(400),
            between: 100
        }
    );
    // The parts and what is explained are the launch.
    let reduced = reduce(&ticks);
    let known = reduced.busiest.work + reduced.busiest.wait + 2700 + 200 + 400 + 100;
    assert_eq!(known, 5000);
    ticks.source = TickSource::Clock64;
    let rest = reduce(&ticks).rest;
    assert_eq!(
        (rest.outside, rest.before, rest.after, rest.between),
        (None, None, None, 100)
    );
}

#[test]
fn mean_median_and_p99_agree_with_numpy_to_the_last_bit() {
    // numpy 2: values as of np.percentile(x, 99), np.median(x), x.mean().
    let mut ticks = everywhere(13, geometry(1, 1), 0);
    for cta in 0..14 {
        let delta = 32 + 17 * i64::try_from(cta * cta).expect("small");
        set(&mut ticks, cta, 5, [0, delta]);
    }
    let row = &reduce(&ticks).rows[5];
    assert_eq!(row.n_active, 14);
    let found = [row.mean, row.median, row.p99].map(f64::to_bits);
    assert_eq!(found, NUMPY.map(f64::to_bits), "{row:?}");
}

/// 2849.75 but for the order of its operations.
const NUMPY: [f64; 3] = [1026.5, 754.5, 2_849.749_999_999_999_5];

#[test]
fn microseconds_and_shares_need_a_clock_in_nanoseconds_and_a_measured_launch() {
    let mut ticks = everywhere(13, geometry(8, 1), 2_000);
    assert!(
        reduce(&ticks)
            .rows
            .iter()
            .all(|r| r.median_us.is_nan() && r.frac_of_kernel.is_nan())
    );
    ticks.launch_us = Some(40.0);
    for row in reduce(&ticks).rows {
        assert!((row.median_us - 2.0).abs() < 1e-12);
        let wait_or_elected = [4, 11, 12].contains(&row.region.id);
        assert_eq!(
            row.frac_of_kernel.is_nan(),
            wait_or_elected,
            "{}",
            row.region.name
        );
        assert!(wait_or_elected || (row.frac_of_kernel - 0.05).abs() < 1e-12);
    }
    ticks.source = TickSource::Clock64;
    assert!(
        reduce(&ticks)
            .rows
            .iter()
            .all(|r| r.median_us.is_nan() && r.frac_of_kernel.is_nan())
    );
}

#[test]
fn a_block_is_accounted_once_and_never_twice() {
    // Sums stand for their iterations, and what lies inside another region is in it.
    let mut ticks = everywhere(20, geometry(8, 1), 0);
    set(&mut ticks, 9, 2, [100, 1100]);
    set(&mut ticks, 9, 4, [1100, 1400]);
    set(&mut ticks, 9, 7, [1900, 2000]);
    set(&mut ticks, 9, 16, [0, 600]);
    set(&mut ticks, 9, 10, [2000, 2100]);
    set(&mut ticks, 9, 15, [2010, 2090]);
    let reduced = reduce(&ticks);
    let busiest = reduced.busiest;
    assert_eq!(
        (busiest.cta, busiest.work, busiest.wait, busiest.span),
        (9, 1700, 300, 2000)
    );
    assert_eq!(reduced.window, Some(2000));
    assert_eq!(reduced.explained(&ticks), Some(1.0));
    ticks.launch_us = Some(2.5);
    assert_eq!(reduce(&ticks).explained(&ticks), Some(0.8));
    // nvllm's column counts all regions but the waits.
    let wall = reduced.wall_minus_regions_us(10.0);
    assert!((wall - (10.0 - 1.88)).abs() < 1e-9, "{wall}");
}

#[test]
fn cycles_of_two_multiprocessors_are_never_compared() {
    let mut ticks = everywhere(13, geometry(1, 1), 0);
    ticks.source = TickSource::Clock64;
    set(&mut ticks, 0, 5, [1_000_000, 1_000_100]);
    set(&mut ticks, 1, 5, [10, 210]);
    let reduced = reduce(&ticks);
    assert_eq!(reduced.window, None);
    assert_eq!(reduced.busiest.span, 200);
    let trace = trace(&ticks);
    let spans: Vec<f64> = trace["traceEvents"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|e| e["ph"] == "X")
        .map(|e| e["ts"].as_f64().expect("number"))
        .collect();
    assert_eq!(spans, [0.0, 0.0]);
}

#[test]
fn words_of_another_table_are_a_typed_error() {
    let table = table_of("decode_layer", 13);
    let g = geometry(1, 1);
    let mut words = vec![0_u64; g.words(&table)];
    let read = |words: &[u64]| {
        let (table, g) = (table.clone(), g.clone());
        Ticks::from_words(table, g, TickSource::GlobalTimer, words)
    };
    assert!(matches!(
        read(&words),
        Err(RegionError::OtherWriter { found: 0, .. })
    ));
    *words.last_mut().expect("word") = table.identity();
    let sm = words.len() - 2;
    words[sm] = 131;
    assert_eq!(read(&words).expect("ticks").sms.expect("sms")[63], 131);
    assert!(matches!(read(&words[1..]), Err(RegionError::Words { .. })));
    let identities: std::collections::BTreeSet<u64> = [
        ("beta_coop", 13),
        ("beta_coop", 20),
        ("beta_lite", 13),
        ("wo_gemv", 4),
    ]
    .map(|(family, n)| table_of(family, n).identity())
    .into();
    assert_eq!(identities.len(), 4);
}

#[test]
fn a_kernel_never_gets_no_buffer_or_anothers() {
    let g = geometry(1, 1);
    let buffer = |n, address| RegionBuffer {
        table: table_of("decode_layer", n),
        geometry: g.clone(),
        address,
    };
    let spec = |n: &str| spec(&[("num_regions", n)]);
    let ask = |buffer: Option<&RegionBuffer>, n: &str| argument(buffer, &spec(n), &g);
    assert_eq!(ask(None, "0").expect("none"), 0);
    assert_eq!(ask(Some(&buffer(20, 512)), "20").expect("address"), 512);
    assert!(matches!(ask(None, "20"), Err(RegionError::NoBuffer { .. })));
    assert!(matches!(
        ask(Some(&buffer(20, 0)), "20"),
        Err(RegionError::NoBuffer { .. })
    ));
    assert!(matches!(
        ask(Some(&buffer(13, 512)), "20"),
        Err(RegionError::OtherTable { .. })
    ));
    let more = argument(Some(&buffer(20, 512)), &spec("20"), &geometry(1, 2));
    assert!(matches!(more, Err(RegionError::Rows { .. })));
}

#[test]
fn a_file_of_another_shape_is_one_clear_line() {
    let read = |shape: &[usize], table: Option<Table>| {
        let data = vec![0; shape.iter().product()];
        let array = Array {
            shape: shape.to_vec(),
            data,
        };
        let count = u32::try_from(shape[1]).expect("small");
        let table = table.map_or_else(|| REGISTRY.region_table_of(count), Ok);
        table
            .map_err(RegionError::from)
            .and_then(|table| {
                Ticks::from_array("t.npy", &array, table, geometry(1, 1), TickSource::GlobalTimer)
            })
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(read(&[64, 13, 2], None), Ok(()));
    assert_eq!(read(&[64, 20, 2], None), Ok(()));
    let refused = |shape: &[usize]| read(shape, None).expect_err("refused");
    assert_eq!(
        refused(&[64, 13]),
        "t.npy: shape (64, 13): expected (blocks, regions, 2)"
    );
    assert_eq!(
        refused(&[64, 13, 3]),
        "t.npy: shape (64, 13, 3): expected (blocks, regions, 2)"
    );
    assert_eq!(refused(&[32, 13, 2]), "t.npy has 32 rows: the grid has 64 blocks");
    // Among those of other families.
    let many = refused(&[64, 12, 2]);
    assert!(many.starts_with("no family has 12 regions: known are "), "{many}");
    assert!(many.contains(" decode_layer 11, 13, 16, 20, 21"), "{many}");
    let other = read(&[64, 13, 2], Some(table_of("decode_layer", 20)));
    assert_eq!(
        other.expect_err("refused"),
        "region tables differ: t.npy: 13 regions, expected decode_layer with 20 regions"
    );
}

#[test]
fn a_saved_buffer_is_opened_with_everything_that_was_known_of_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("t.npy");
    let ticks = synthetic(&geometry(8, 1), 20);
    ticks.save(&path).expect("saved");
    let bare = Bare::default();
    assert_eq!(Ticks::open(&path, &bare, &REGISTRY).expect("opened"), ticks);
    let beside = sidecar(&path);
    let text = fs_err::read_to_string(&beside).expect("text");
    for former in ["beta_coop", "beta_lite"] {
        let table = table_of(former, 20);
        let older = text
            .replace("\"decode_layer\"", &format!("\"{former}\""))
            .replace(
                &format!("{:016x}", ticks.table.identity()),
                &format!("{:016x}", table.identity()),
            );
        assert!(older.contains(former) && !older.contains("decode_layer"));
        fs_err::write(&beside, older).expect("written");
        let opened = Ticks::open(&path, &bare, &REGISTRY).expect("opened");
        assert_eq!((opened.table, opened.pairs), (table, ticks.pairs.clone()));
    }
    let wrong = text.replace(&format!("{:016x}", ticks.table.identity()), "0123456789abcdef");
    fs_err::write(&beside, wrong).expect("written");
    assert!(matches!(
        Ticks::open(&path, &bare, &REGISTRY),
        Err(RegionError::OtherTable { .. })
    ));
    fs_err::remove_file(&beside).expect("removed");
    let plain = Ticks::open(&path, &bare, &REGISTRY).expect("opened");
    assert_eq!(plain.pairs, ticks.pairs);
    assert_eq!(plain.launch_us, None);
}

#[test]
fn the_comparison_reads_as_the_published_one() {
    let run = |split| {
        let ticks = synthetic(&geometry(split, 1), 13);
        let reduced = reduce(&ticks);
        (ticks, reduced)
    };
    let (one, eight) = (run(1), run(8));
    let found = diff((&one.0, &one.1), (&eight.0, &eight.1)).expect("comparable");
    let row = |name: &str| found.rows.iter().find(|r| r.name == name).expect("row");
    assert!(row("phase1_wo_gemv").ratio().expect("ratio") > 5.0);
    assert!(row("grid_barrier_wait").ratio().expect("ratio") > 5.0);
    assert_eq!(row("phase1_pre_wo_wait").n_after, 28);
    assert_eq!(row("phase1_pre_wo_wait").ratio(), None);
    assert!(row("phase1_gather_reduce").delta() > 0.0);
    let together = one.0.table.shared.together.as_ref().expect("declared");
    let sum: f64 = together.regions.iter().map(|name| row(name).before).sum();
    let cluster = found.cluster.as_ref().expect("declared");
    assert_eq!(together.regions.len(), 4);
    assert!((cluster.before - sum).abs() < 1e-9);
    let reading = found.reading();
    for words in [
        "phase1_wo_gemv 1",
        "4 -> 32 CTAs",
        "phase1_pre_wo_wait is new",
        "the MLP regions stay",
        "together W_O and its waits 2",
    ] {
        assert!(reading.contains(words), "{words}: {reading}");
    }
    let mut cycles = eight.0.clone();
    cycles.source = TickSource::Clock64;
    assert!(matches!(
        diff((&one.0, &one.1), (&cycles, &eight.1)),
        Err(RegionError::Clocks { .. })
    ));
    assert_eq!(
        diff((&one.0, &one.1), (&one.0, &one.1))
            .expect("comparable")
            .reading(),
        "no region moved by more than 5 %"
    );
}

#[test]
fn a_full_set_explains_the_made_up_launch() {
    for split in [1, 2, 4, 8] {
        let ticks = synthetic(&geometry(split, 2), 20);
        let reduced = reduce(&ticks);
        assert!(warnings(&reduced).is_empty());
        let explained = reduced.explained(&ticks).expect("measured");
        assert!((0.95..=1.0).contains(&explained), "{explained}");
    }
}

#[test]
fn the_csv_is_nvllms() {
    let mut ticks = everywhere(13, geometry(8, 1), 64);
    ticks.launch_us = Some(40_000.0);
    let text = csv(&ticks, &reduce(&ticks), None);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 14);
    assert_eq!(
        lines[0],
        "region_id,region,n_active_ctas,cta_class,tick_source,mean_ticks,median_ticks,p99_ticks,raw_total_ticks,median_us,frac_of_kernel"
    );
    assert_eq!(
        lines[3],
        "2,phase1_wo_gemv,32,phase1,globaltimer,64.0,64.0,64.0,2048,0.064,1.6e-06"
    );
    assert_eq!(
        lines[5],
        "4,grid_barrier_wait,64,barrier_wait,globaltimer,64.0,64.0,64.0,4096,0.064,"
    );
    let with_wall = csv(&ticks, &reduce(&ticks), Some(41_000.0));
    assert!(
        with_wall
            .lines()
            .next()
            .expect("heading")
            .ends_with(",wall_minus_regions_us")
    );
}

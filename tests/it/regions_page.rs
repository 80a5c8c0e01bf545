//! The page of region timings in a real browser.

use std::path::Path;

use jitc::engine::request::template::Registry;
use jitc::families::decode_layer::regions::synthetic;
use jitc::measure::region::{Geometry, Reduced, Ticks, page, reduce, thousands};
use serde_json::Value;

use crate::webdriver::Browser;

/// A browser; or the reason why the test is skipped, which `JITC_REQUIRE_BROWSER=1`
/// makes a failure.
fn browser() -> Option<Browser> {
    match Browser::start() {
        Ok(browser) => Some(browser),
        Err(reason) => {
            let required = std::env::vars_os().any(|(n, v)| n == "JITC_REQUIRE_BROWSER" && v == "1");
            assert!(!required, "no browser: {reason}");
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("skipped: no browser: {reason}\n").as_bytes(),
            );
            None
        }
    }
}

fn runs(geometry: &Geometry, splits: &[u32]) -> Vec<(Ticks, Reduced)> {
    let registry = Registry::load(None).expect("families");
    splits
        .iter()
        .map(|&wo_split| {
            let ticks = synthetic(&registry, geometry, wo_split, 20).expect("ticks");
            let reduced = reduce(&ticks);
            (ticks, reduced)
        })
        .collect()
}

fn write(path: &Path, runs: &[(Ticks, Reduced)]) {
    let borrowed: Vec<_> = runs.iter().map(|(t, r)| (t, r)).collect();
    fs_err::write(path, page(&borrowed)).expect("written");
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(n: usize) -> f64 {
    n as f64
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

const KEY_RIGHT: char = '\u{e014}';
const KEY_DOWN: char = '\u{e015}';

#[test]
fn the_page_shows_the_numbers_and_answers_to_mouse_and_keyboard() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("page.html");
    let two = runs(&Geometry::default(), &[1, 8]);
    write(&path, &two);
    browser.prefer("light");
    browser.open(&path);
    is_quiet(&browser);
    bars_match(&browser, &two);
    comparison_matches(&browser);
    timeline_matches(&browser, &two[0].0);
    hover_and_keys(&browser);
    both_themes_are_readable(&browser);
    what_is_made_up_or_long_is_said(&browser, &path);

    // That pixels were read, which only this test does, is said too.
    let said = browser.console();
    let faults = said
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["level"] == "SEVERE");
    assert_eq!(faults.count(), 0, "{said}");

    let large = Geometry {
        slice_ctas: 132,
        ..Geometry::default()
    };
    write(&path, &runs(&large, &[1, 8]));
    browser.open(&path);
    is_quiet(&browser);
    thousand_rows_scroll(&browser);
}

fn is_quiet(browser: &Browser) {
    assert_eq!(
        browser.script("return document.documentElement.dataset.ready"),
        "true"
    );
    let console = browser.console();
    assert_eq!(console.as_array().map(Vec::len), Some(0), "{console}");
    let loaded = browser.script("return performance.getEntriesByType('resource').map((e) => e.name)");
    assert_eq!(loaded.as_array().map(Vec::len), Some(0), "{loaded}");
}

/// Every segment is as long as its number says, and the number is Rust's.
fn bars_match(browser: &Browser, runs: &[(Ticks, Reduced)]) {
    let segments = browser.script(
        "return [...document.querySelectorAll('.segments button')].map((b) => ({run: +b.dataset.run,
            region: b.dataset.region, ticks: +b.dataset.ticks, width: b.getBoundingClientRect().width,
            track: b.closest('.track').getBoundingClientRect().width}))",
    );
    let segments = segments.as_array().expect("segments");
    let longest = runs
        .iter()
        .map(|(t, _)| 1000.0 * t.launch_us.expect("measured"))
        .fold(0.0, f64::max);
    for (index, (ticks, reduced)) in runs.iter().enumerate() {
        let accounted: Vec<u32> = ticks.accounted().iter().map(|r| r.id).collect();
        let mine = segments.iter().filter(|s| s["run"] == index).count();
        let shown = reduced
            .rows
            .iter()
            .filter(|r| accounted.contains(&r.region.id) && r.total > 0);
        assert_eq!(mine, shown.clone().count());
        for row in shown {
            let segment = segments
                .iter()
                .find(|s| s["run"] == index && s["region"] == *row.region.name)
                .unwrap_or_else(|| panic!("{} has no segment", row.region.name));
            let mean = row.mean * float(row.n_active) / float(ticks.geometry.ctas());
            assert!(
                (number(&segment["ticks"]) - mean).abs() < 1e-6 * mean,
                "{segment}"
            );
            let expected = number(&segment["track"]) * mean / longest;
            assert!(
                (number(&segment["width"]) - expected).abs() < 0.5,
                "{segment}: {expected}"
            );
        }
    }
}

fn comparison_matches(browser: &Browser) {
    let row = |region: &str| {
        let script = format!(
            "return [...document.querySelectorAll('[data-region-row=\"{region}\"] td')].map((c) => c.textContent)"
        );
        browser.script(&script)
    };
    let cells = row("phase1_wo_gemv");
    assert_eq!(cells[1], "4 → 32");
    let before = runs(&Geometry::default(), &[1]);
    let median_us = before[0].1.rows[2].median / 1000.0;
    assert_eq!(cells[3], thousands(median_us), "{cells}");
    assert_eq!(row("W_O and its waits").as_array().map(Vec::len), Some(7));
    let reading = browser.script("return document.getElementById('reading').textContent");
    assert!(text(&reading).contains("phase1_pre_wo_wait is new"), "{reading}");
    let small = "document.querySelectorAll('#diff tbody tr').length";
    let few = number(&browser.script(&format!("return {small}")));
    let all = browser.script(&format!(
        "document.getElementById('small').click(); return {small}"
    ));
    assert!(number(&all) > few && number(&all) >= 20.0, "{few} {all}");
}

/// `W_O`'s span of block 8 begins and ends where its ticks say.
fn timeline_matches(browser: &Browser, ticks: &Ticks) {
    let zero = ticks
        .pairs
        .iter()
        .flatten()
        .copied()
        .filter(|t| *t > 1_000_000_000)
        .min();
    let zero = zero.expect("a tick");
    let [entry, exit] = ticks
        .pair(8, 2)
        .map(|t| float(usize::try_from(t - zero).expect("after the first")));
    let whole = 1000.0 * ticks.launch_us.expect("measured");
    browser.script("document.getElementById('order').value = 'cta'; document.getElementById('order').dispatchEvent(new Event('change'))");
    let color = |share: f64| {
        let script = format!(
            "const c = document.querySelector('.view canvas'), w = c.width - 100;
             return [...c.getContext('2d').getImageData(Math.round(92 + w * {share}), 24 + 8 * 8 + 4, 1, 1).data]"
        );
        browser.script(&script)
    };
    // As in the bars above, whatever it is.
    let own = browser.script(
        "const b = document.querySelector('.segments button[data-region=phase1_wo_gemv]');
         return [...getComputedStyle(b).backgroundColor.matchAll(/\\d+/g)].map((n) => Number(n[0])).concat(255)",
    );
    let slack = 3.0 / 1100.0;
    assert_eq!(color(entry / whole + slack), own);
    assert_eq!(color(exit / whole - slack), own);
    assert_ne!(color(entry / whole - slack), own);
    assert_ne!(color(exit / whole + slack), own);
}

fn tip(browser: &Browser) -> String {
    let tip = "const t = document.getElementById('tip'); return t.hidden ? '' : t.innerText";
    text(&browser.script(tip)).to_owned()
}

fn hover_and_keys(browser: &Browser) {
    let middle = |selector: &str| {
        let script = format!(
            "const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'center'}});
             const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2, r.left, r.top]"
        );
        let at = browser.script(&script);
        [0, 1, 2, 3].map(|i| number(&at[i]))
    };
    let [x, y, ..] = middle(".segments button[data-region=grid_barrier_wait]");
    browser.point_at(x, y);
    assert!(tip(browser).starts_with("grid_barrier_wait"), "{}", tip(browser));
    let [_, _, left, top] = middle(".view");
    browser.point_at(left + 300.0, top + 24.0 + 8.0 * 8.0 + 4.0);
    let shown = tip(browser);
    assert!(
        shown.contains("phase1_wo_gemv") && shown.contains("CTA 8 (0, 1, 0) on SM 8"),
        "{shown}"
    );

    browser.point_at(2.0, 2.0);
    browser.script("document.querySelector('.view').focus()");
    let said = || text(&browser.script("return document.getElementById('said').textContent")).to_owned();
    assert!(said().starts_with("CTA 0: prologue_pre_r0"), "{}", said());
    browser.press(&[KEY_RIGHT, KEY_RIGHT].iter().collect::<String>());
    assert!(said().starts_with("CTA 0: phase1_attn_pre_wo"), "{}", said());
    browser.press(&[KEY_RIGHT; 1].iter().chain(&[KEY_DOWN; 8]).collect::<String>());
    assert!(said().starts_with("CTA 8: "), "{}", said());
    assert!(!tip(browser).is_empty());
    let picture = || browser.script("return document.querySelector('.view canvas').toDataURL()");
    let whole = picture();
    browser.press("++");
    let zoomed = picture();
    assert_ne!(whole, zoomed);
    browser.press("0");
    assert_eq!(picture(), whole);
}

/// Numbers that were made up are called so, measured ones are not; of long labels the
/// part that differs is shown, and all of it on the element.
fn what_is_made_up_or_long_is_said(browser: &Browser, path: &Path) {
    let hidden = "return document.getElementById('synthetic').hidden";
    assert_eq!(browser.script(hidden), false);
    let mut measured = runs(&Geometry::default(), &[1, 8]);
    for (n, (ticks, _)) in measured.iter_mut().enumerate() {
        ticks.label = format!("a/long/folder/of/many/runs/wo_split_{}", [1, 8][n]);
    }
    write(path, &measured);
    browser.open(path);
    assert_eq!(browser.script(hidden), true);
    let names = browser.script(
        "return [...document.querySelectorAll('.bar-row .name')].map((n) => [n.textContent, n.title])",
    );
    assert_eq!(names[0][0], "… wo_split_1");
    assert_eq!(names[1][1], "a/long/folder/of/many/runs/wo_split_8");
}

/// Text against its ground, as the W3C's guidelines measure it: 4.5 at least.
fn both_themes_are_readable(browser: &Browser) {
    for scheme in ["dark", "light"] {
        browser.prefer(scheme);
        // The page hears of it with the next frame.
        let theme = || browser.script("return document.documentElement.dataset.theme");
        for _ in 0..100 {
            if theme() == scheme {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(theme(), scheme);
        let contrast = browser.script(
            "const of = (e, what) => getComputedStyle(document.querySelector(e))[what].match(/[\\d.]+/g).slice(0, 3).map((v) => {
                 v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
                 .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
             const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
             return [ratio(of('body', 'color'), of('body', 'backgroundColor')),
                 ratio(of('.hint', 'color'), of('#compare', 'backgroundColor')),
                 ratio(of('.less', 'color'), of('#compare', 'backgroundColor')),
                 ratio(of('.more', 'color'), of('#compare', 'backgroundColor')),
                 ratio(of('#synthetic', 'color'), of('body', 'backgroundColor')),
                 ...[...document.querySelectorAll('.segments button')].filter((b) => b.textContent).map((b) => {
                     b.id = 'measured';
                     const found = ratio(of('#measured', 'color'), of('#measured', 'backgroundColor'));
                     b.removeAttribute('id');
                     return found;
                 })]",
        );
        let contrast: Vec<f64> = contrast.as_array().expect("numbers").iter().map(number).collect();
        assert!(
            contrast.len() > 6,
            "no bar is wide enough for a name: {contrast:?}"
        );
        assert!(contrast.iter().all(|c| *c >= 4.5), "{scheme}: {contrast:?}");
    }
}

fn thousand_rows_scroll(browser: &Browser) {
    let state =
        "const v = document.querySelector('.view'); return [v.scrollHeight, v.clientHeight, v.scrollTop]";
    let before = browser.script(state);
    assert!(number(&before[0]) > 1056.0 * 3.0, "{before}");
    assert!(number(&before[1]) < 640.0, "{before}");
    browser.script("document.querySelector('.view').focus()");
    browser.press("\u{e010}"); // End
    let said = browser.script("return document.getElementById('said').textContent");
    assert!(text(&said).starts_with("CTA 1055: "), "{said}");
    assert!(number(&browser.script(state)[2]) > 2000.0);
}

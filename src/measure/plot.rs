//! Plots of times against splits, or contexts: SVG, with nothing but lines and text.
//!
//! Invariant: the floor is drawn, dashed, on the same axes as everything else, and both
//! axes are logarithmic, so equal ratios look equal. Of more lines than can be told apart
//! the fastest are drawn, and how many are not is said.

use std::fmt::Write;

/// One line of a plot.
#[derive(Debug, Clone, PartialEq)]
struct Series {
    name: String,
    /// Split or context, and microseconds.
    points: Vec<(usize, f64)>,
}

/// One frame of a plot: lines over axes of their own.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    title: String,
    series: Vec<Series>,
    floor: Vec<(usize, f64)>,
}

impl Panel {
    /// `title`: what is the same for all of its lines.
    #[must_use]
    pub fn new(title: String) -> Self {
        Self {
            title,
            ..Self::default()
        }
    }

    /// A point of a line. Of two at one place the faster one is drawn.
    pub fn put(&mut self, name: &str, at: usize, us: f64) {
        let place = self.series.iter().position(|s| s.name == name);
        let place = place.unwrap_or_else(|| {
            self.series.push(Series {
                name: name.to_owned(),
                points: Vec::new(),
            });
            self.series.len() - 1
        });
        fastest(&mut self.series[place].points, at, us);
    }

    /// A point of the streaming kernel's line.
    pub fn floor(&mut self, at: usize, us: f64) {
        fastest(&mut self.floor, at, us);
    }

    fn points(&self) -> impl Iterator<Item = &(usize, f64)> {
        let of_series = self.series.iter().flat_map(|s| &s.points);
        of_series.chain(&self.floor)
    }
}

fn fastest(points: &mut Vec<(usize, f64)>, at: usize, us: f64) {
    match points.iter_mut().find(|(there, _)| *there == at) {
        Some((_, there)) => *there = there.min(us),
        None => points.push((at, us)),
    }
    points.sort_by_key(|(at, _)| *at);
}

/// A frame's size, and what is around it.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;
const HEAD: f64 = 28.0;
const LEGEND: f64 = 18.0;
const COLORS: [&str; 8] = [
    "#1b6ca8", "#c8553d", "#3a7d44", "#8e5aa3", "#b8860b", "#4f6d7a", "#d1495b", "#00798c",
];
/// Light or dark, as whoever looks at it prefers; the lines' colors stand out on both.
const STYLE: &str = "text { fill: #222 } .paper { fill: #fff } .grid { stroke: #ddd } .floor { stroke: #222 } \
    .value { font-size: 10px } @media (prefers-color-scheme: dark) { text { fill: #ddd } .paper { fill: #12171d } \
    .grid { stroke: #333b45 } .floor { stroke: #ddd } }";
/// Between the values at the ends of lines.
const VALUE: f64 = 11.0;

/// The names of lines in the order in which they come, and how many are left out: of more than
/// there are colors those stay that are fastest, by the geometric mean of their points.
fn names_of(panels: &[Panel]) -> (Vec<&str>, usize) {
    let mut names: Vec<&str> = Vec::new();
    for series in panels.iter().flat_map(|p| &p.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    let mean = |name: &str| {
        let of_name = panels.iter().flat_map(|p| &p.series).filter(|s| s.name == name);
        let logs: Vec<f64> = of_name.flat_map(|s| &s.points).map(|(_, us)| us.ln()).collect();
        logs.iter().sum::<f64>() / number(logs.len())
    };
    let mut fastest = names.clone();
    fastest.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    fastest.truncate(COLORS.len());
    let left_out = names.len() - fastest.len();
    names.retain(|name| fastest.contains(name));
    (names, left_out)
}

/// Draws frames side by side, two at most, with the name of the axis below; a line's name
/// has the same color in all of them.
#[must_use]
pub fn svg(title: &str, axis: &str, panels: &[Panel]) -> String {
    let (names, left_out) = names_of(panels);
    let columns = panels.len().clamp(1, 2);
    let lines = panels.len().div_ceil(columns);
    let width = WIDTH * number(columns).max(2.0);
    let height = HEAD + HEIGHT * number(lines) + LEGEND * number(names.len() + 1 + left_out.min(1)) + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" class=\"paper\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        let at = (WIDTH * number(i % columns), HEAD + HEIGHT * number(i / columns));
        frame(&mut out, at, axis, panel, &names);
    }
    let legend = HEAD + HEIGHT * number(lines) + LEGEND;
    let _ = writeln!(
        out,
        "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{legend}\" y2=\"{legend}\" class=\"floor\" stroke-dasharray=\"5 4\"/>\
         <text x=\"{}\" y=\"{}\">streaming the bytes</text>",
        LEFT + 26.0,
        LEFT + 34.0,
        legend + 4.0
    );
    for (i, name) in names.iter().enumerate() {
        let y = legend + LEGEND * number(i + 1);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 26.0,
            COLORS[i % COLORS.len()],
            LEFT + 34.0,
            y + 4.0,
            escape(name)
        );
    }
    if left_out > 0 {
        let y = legend + LEGEND * number(names.len() + 1) + 4.0;
        let _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{y}\">{left_out} slower ones are not drawn</text>"
        );
    }
    out.push_str("</svg>\n");
    out
}

/// One frame, with its upper left corner at `(left, top)`.
fn frame(out: &mut String, (left, top): (f64, f64), axis: &str, panel: &Panel, names: &[&str]) {
    let mut places: Vec<usize> = panel.points().map(|p| p.0).collect();
    places.sort_unstable();
    places.dedup();
    let (Some(first), Some(end)) = (places.first(), places.last()) else {
        return;
    };
    let least = panel.points().fold(f64::INFINITY, |m, p| m.min(p.1)) * 0.85;
    let most = panel.points().fold(0.0, |m: f64, p| m.max(p.1)) * 1.15;
    let (left, right) = (left + LEFT, left + WIDTH - RIGHT);
    let (ceiling, ground) = (top + TOP, top + HEIGHT - BOTTOM);
    let x = |at: usize| {
        let part = (number(at) / number(*first)).ln() / (number(*end) / number(*first)).ln();
        // One place alone stands in the middle.
        left + (right - left) * if part.is_finite() { part } else { 0.5 }
    };
    let y = |us: f64| ground - (ground - ceiling) * (us / least).ln() / (most / least).ln();
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">us</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        ceiling - 8.0,
        escape(&panel.title),
        left - 6.0,
        ceiling - 8.0,
        f64::midpoint(left, right),
        ground + 34.0,
        escape(axis)
    );
    for tick in ticks(least, most) {
        let at = y(tick);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for at in &places {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at}</text>",
            x(*at),
            ground + 16.0
        );
    }
    let path = |points: &[(usize, f64)]| {
        let all = points
            .iter()
            .map(|(at, us)| format!("{:.1},{:.1}", x(*at), y(*us)));
        all.collect::<Vec<_>>().join(" ")
    };
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" class=\"floor\" stroke-dasharray=\"5 4\"/>",
        path(&panel.floor)
    );
    let mut values: Vec<(f64, f64)> = Vec::new();
    let ends = panel.floor.last().into_iter();
    let mut value = |point: &(usize, f64)| values.push((y(point.1), point.1));
    ends.for_each(&mut value);
    for one in &panel.series {
        let Some(place) = names.iter().position(|n| *n == one.name) else {
            continue;
        };
        one.points.last().into_iter().for_each(&mut value);
        let color = COLORS[place];
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            path(&one.points)
        );
        for (at, us) in &one.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"><title>{}: {us:.2}</title></circle>",
                x(*at),
                y(*us),
                escape(&one.name)
            );
        }
    }
    // The value at the end of each line; those that are near one another stand below.
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    for (at, us) in values {
        let at = at.max(free);
        free = at + VALUE;
        let digits = if us < 10.0 { 2 } else { 1 };
        let _ = writeln!(
            out,
            "<text class=\"value\" x=\"{}\" y=\"{:.1}\">{us:.digits$}</text>",
            right + 5.0,
            at + 3.5
        );
    }
}

fn number(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Round numbers within the range.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let mut ticks = Vec::new();
    let mut decade = 1e-3;
    while decade <= most {
        for step in [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0] {
            if (least..=most).contains(&(decade * step)) {
                ticks.push(decade * step);
            }
        }
        decade *= 10.0;
    }
    ticks
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str, name: &str) -> Vec<f64> {
        text.split(&format!(" {name}=\""))
            .skip(1)
            .map(|rest| rest.split('"').next().expect("value").parse().expect("number"))
            .collect()
    }

    #[test]
    fn every_point_lies_inside_its_own_frame_and_a_name_has_one_color() {
        let mut panels = [Panel::default(), Panel::default(), Panel::default()];
        for (i, panel) in panels.iter_mut().enumerate() {
            for (at, us) in [(1, 980.0), (8, 134.0)] {
                panel.put("a < b", at, us * number(i + 1));
                panel.floor(at, 5.5);
            }
        }
        panels[0].put("c", 2, 18.5);
        panels[0].put("c", 2, 17.5);
        let text = svg("times", "wo_split", &panels);
        let (cx, cy) = (numbers(&text, "cx"), numbers(&text, "cy"));
        assert_eq!(cx.len(), 7, "of two points at one place one is drawn");
        assert!(text.contains(": 17.50") && !text.contains(": 18.50"));
        let inside = |i: usize, at: &[usize]| {
            let (left, top) = (WIDTH * number(i % 2), HEAD + HEIGHT * number(i / 2));
            at.iter().all(|p| {
                (left + LEFT..=left + WIDTH - RIGHT).contains(&cx[*p])
                    && (top + TOP..=top + HEIGHT - BOTTOM).contains(&cy[*p])
            })
        };
        assert!(inside(0, &[0, 1, 2]) && inside(1, &[3, 4]) && inside(2, &[5, 6]));
        assert_eq!(text.matches("a &lt; b</text>").count(), 1, "one legend");
        assert_eq!(
            text.matches("fill=\"#c8553d\"").count(),
            1,
            "the second name's point"
        );
        assert_eq!(
            text.matches("stroke-dasharray").count(),
            4,
            "a floor a frame, and its name"
        );
    }

    #[test]
    fn of_more_than_eight_lines_the_fastest_are_drawn_and_the_rest_is_counted() {
        let mut panel = Panel::default();
        for n in 0..11_u32 {
            panel.put(&format!("line {n}"), 1, f64::from(100 - n));
        }
        panel.floor(1, 5.0);
        let text = svg("times", "wo_split", &[panel]);
        assert_eq!(text.matches("<circle").count(), COLORS.len());
        assert!(text.contains("3 slower ones are not drawn"));
        assert!(!text.contains("line 2<") && text.contains("line 10<") && text.contains("line 3<"));
        assert_eq!(
            text.matches("class=\"value\"").count(),
            COLORS.len() + 1,
            "and the floor's"
        );
    }

    #[test]
    fn one_place_alone_stands_in_the_middle() {
        let mut panel = Panel::default();
        panel.put("a", 4096, 90.0);
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        assert_eq!(numbers(&svg("", "", &[panel]), "cx"), [middle]);
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(ticks(4.5, 25.0), [5.0, 7.0, 10.0, 15.0, 20.0]);
    }
}

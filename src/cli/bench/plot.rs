//! A plot of times against splits, or contexts: SVG, with nothing but lines and text.
//!
//! Invariant: the floor is drawn on the same axis as everything else, and the axis
//! is logarithmic, so equal ratios look equal.

use std::fmt::Write;

/// One line of the plot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// Its name.
    pub name: String,
    /// Split or context, and microseconds.
    pub points: Vec<(u32, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] = [
    "#1b6ca8", "#c8553d", "#3a7d44", "#8e5aa3", "#b8860b", "#4f6d7a", "#d1495b", "#00798c",
];

/// Draws, with the name of the axis below. `floor`: the streaming kernel, microseconds,
/// where it is the same everywhere.
pub(super) fn svg(title: &str, axis: &str, series: &[Series], floor: Option<f64>) -> String {
    let mut splits: Vec<u32> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    splits.sort_unstable();
    splits.dedup();
    let times = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let least = times().fold(floor.unwrap_or(f64::INFINITY), f64::min) * 0.8;
    let most = times().fold(floor.unwrap_or(0.0), f64::max) * 1.25;
    let x = |split: u32| {
        let at = splits.iter().position(|s| *s == split).unwrap_or(0);
        let steps = f64::from(u32::try_from(splits.len().max(2) - 1).unwrap_or(1));
        LEFT + (WIDTH - LEFT - RIGHT) * f64::from(u32::try_from(at).unwrap_or(0)) / steps
    };
    let y = |us: f64| {
        let part = (us / least).ln() / (most / least).ln();
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for tick in ticks(least, most) {
        let at = y(tick);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for split in &splits {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{split}</text>",
            x(*split),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text x=\"{LEFT}\" y=\"34\" text-anchor=\"end\">us</text>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 10.0,
        escape(axis)
    );
    if let Some(floor) = floor {
        let at = y(floor);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#222\" stroke-dasharray=\"6 4\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">streaming the bytes: {floor:.2}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT + 6.0,
            at + 4.0
        );
    }
    for (i, one) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> = one
            .points
            .iter()
            .map(|(split, us)| format!("{:.1},{:.1}", x(*split), y(*us)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (split, us) in &one.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{us:.2}</title></circle>",
                x(*split),
                y(*us)
            );
        }
        let line = TOP + 16.0 * f64::from(u32::try_from(i).unwrap_or(0));
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT + 6.0,
            line - 9.0,
            WIDTH - RIGHT + 22.0,
            line,
            escape(&one.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// 1, 2, 5 and their tens within the range.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let mut ticks = Vec::new();
    let mut decade = 1e-3;
    while decade <= most {
        for step in [1.0, 2.0, 3.0, 5.0, 7.0] {
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

    #[test]
    fn every_point_and_the_floor_lie_inside_the_frame() {
        let series = [
            Series {
                name: "a < b".into(),
                points: vec![(1, 980.0), (8, 134.0)],
            },
            Series {
                name: "c".into(),
                points: vec![(1, 18.5), (2, 13.0), (8, 9.0)],
            },
        ];
        let text = svg("times", "wo_split", &series, Some(5.5));
        assert!(text.contains("a &lt; b") && text.contains("streaming the bytes: 5.50"));
        let numbers = |name: &str| -> Vec<f64> {
            text.split(&format!("{name}=\""))
                .skip(1)
                .map(|rest| rest.split('"').next().expect("value").parse().expect("number"))
                .collect()
        };
        assert_eq!(numbers("cx").len(), 5);
        assert!(numbers("cx").iter().all(|x| (LEFT..=WIDTH - RIGHT).contains(x)));
        assert!(numbers("cy").iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(y)));
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(ticks(4.0, 25.0), [5.0, 7.0, 10.0, 20.0]);
    }
}

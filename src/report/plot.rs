//! Line plots as SVG that stands in a page: its colours are the page's, so that it follows light and dark.
//!
//! Every colour is written as one of [`COLOURS`], names that the page's style sheet gives a value
//! (`svg [stroke="#010101"] { stroke: … }`): the SVG itself knows no theme.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

/// Size of a plot in units of its view box; the page scales it.
const SIZE: (u32, u32) = (640, 260);

/// Points of a series that are drawn; of more, those that are least and most within equal spans are kept.
const POINTS: usize = 400;

/// What the style sheet gives a colour: text and axes, grid, marks, then the series in their order.
pub const COLOURS: [RGBColor; 11] = [
    RGBColor(1, 1, 1),
    RGBColor(2, 2, 2),
    RGBColor(3, 3, 3),
    RGBColor(4, 4, 4),
    RGBColor(5, 5, 5),
    RGBColor(6, 6, 6),
    RGBColor(7, 7, 7),
    RGBColor(8, 8, 8),
    RGBColor(9, 9, 9),
    RGBColor(10, 10, 10),
    RGBColor(11, 11, 11),
];
const TEXT: RGBColor = COLOURS[0];
const GRID: RGBColor = COLOURS[1];
const MARK: RGBColor = COLOURS[2];
/// How many series have a colour of their own.
pub const SERIES_COLOURS: usize = COLOURS.len() - 3;

/// What an axis shows, and how its numbers read.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What it is, with the unit.
    pub label: &'static str,
    /// Whether equal steps are equal factors.
    pub logarithmic: bool,
    /// A number for people.
    pub format: fn(f64) -> String,
}

/// (x, y)
pub type Point = (f64, f64);

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y), ascending in x.
    pub points: Vec<Point>,
    /// Whether points alone are drawn, without a line between them.
    pub dots: bool,
}

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From below to above.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// Moments at which something happened.
    pub marks: Vec<f64>,
}

impl Plot {
    /// The SVG element; `None` where there is nothing to draw.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let mut svg = String::new();
        self.draw(&mut svg)?;
        // It scales with the page, says what it is to those who do not see it, and leaves out what is the default.
        let open = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            SIZE.0,
            SIZE.1,
            super::html::escape(&self.title)
        );
        let begins = svg.find("<svg")?;
        let body = begins + svg.get(begins..)?.find('>')? + 1;
        let mut body = svg.get(body..)?.to_owned();
        for default in [" opacity=\"1\"", " stroke-width=\"1\"", " font-family=\"sans-serif\"", "\n"] {
            body = body.replace(default, "");
        }
        Some(open + &body)
    }

    fn draw(&self, svg: &mut String) -> Option<()> {
        let scale = |axis: Axis| move |value: f64| if axis.logarithmic { value.log10() } else { value };
        let (to_x, to_y) = (scale(self.x), scale(self.y));
        let placed: Vec<(usize, &Series, Vec<Point>)> = self
            .series
            .iter()
            .enumerate()
            .map(|(index, series)| {
                let points = thinned(&series.points).into_iter().map(|(x, y)| (to_x(x), to_y(y)));
                (index, series, points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect())
            })
            .collect();
        let (x, y) = ranges(placed.iter().flat_map(|(_, _, points)| points), self.y.logarithmic)?;
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(16)
            .set_label_area_size(LabelAreaPosition::Left, 64)
            .set_label_area_size(LabelAreaPosition::Bottom, 36)
            .build_cartesian_2d(
                Scale { range: x.0..x.1, logarithmic: self.x.logarithmic },
                Scale { range: y.0..y.1, logarithmic: self.y.logarithmic },
            )
            .ok()?;
        let back = |axis: Axis| {
            move |value: &f64| (axis.format)(if axis.logarithmic { 10_f64.powf(*value) } else { *value })
        };
        let style = |size: i32| TextStyle::from(("sans-serif", size)).color(&TEXT);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(style(12))
            .axis_desc_style(style(12))
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&back(self.x))
            .y_label_formatter(&back(self.y))
            .draw()
            .ok()?;
        for mark in self.marks.iter().map(|&mark| to_x(mark)).filter(|mark| (x.0..=x.1).contains(mark)) {
            chart.draw_series(LineSeries::new([(mark, y.0), (mark, y.1)], MARK)).ok()?;
        }
        for (index, series, points) in placed {
            let colour = COLOURS[3 + index % SERIES_COLOURS];
            if series.dots || points.len() == 1 {
                chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled()))).ok()?;
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).ok()?;
            }
        }
        area.present().ok()
    }
}

/// A range of numbers with ticks at round steps; of a logarithmic axis these are 1, 2 and 5 times powers of ten, or the
/// powers alone where they are enough.
struct Scale {
    /// Of a logarithmic axis, in powers of ten.
    range: std::ops::Range<f64>,
    logarithmic: bool,
}

impl Ranged for Scale {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let Scale { range, logarithmic } = self;
        let most = hint.max_num_points().clamp(2, 8);
        if *logarithmic {
            let powers = range.start.floor() as i32..=range.end.ceil() as i32;
            let ticks = |factors: &[f64]| -> Vec<f64> {
                let all = powers
                    .clone()
                    .flat_map(|power| factors.iter().map(move |f| f64::from(power) + f.log10()));
                all.filter(|tick| range.contains(tick)).collect()
            };
            let choices = [&[1.0, 2.0, 5.0] as &[f64], &[1.0, 3.0], &[1.0]];
            return choices.map(ticks).into_iter().find(|ticks| ticks.len() <= most).unwrap_or_default();
        }
        let step = round_step((range.end - range.start) / most as f64);
        let first = (range.start / step).ceil() as i64;
        let last = (range.end / step).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&s| s >= step * 0.999)
        .unwrap_or(step)
}

/// What the axes must hold; `None` where there is no point. A linear axis of amounts begins at 0.
fn ranges<'a>(
    points: impl Iterator<Item = &'a (f64, f64)>,
    logarithmic: bool,
) -> Option<((f64, f64), (f64, f64))> {
    let mut all: Option<((f64, f64), (f64, f64))> = None;
    for &(x, y) in points {
        let ((x0, x1), (y0, y1)) = all.unwrap_or(((x, x), (y, y)));
        all = Some(((x0.min(x), x1.max(x)), (y0.min(y), y1.max(y))));
    }
    let ((x0, x1), (y0, y1)) = all?;
    let y0 = if logarithmic { y0 } else { y0.min(0.0) };
    let wide = |low: f64, high: f64| if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
    let (y0, y1) = wide(y0, y1);
    let room = (y1 - y0) * 0.05;
    Some((wide(x0, x1), (if logarithmic || y0 < 0.0 { y0 - room } else { y0 }, y1 + room)))
}

/// At most about [`POINTS`] points that look the same: of each span the first, the least, the greatest and the last.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let span = points.len().div_ceil(POINTS / 4);
    let mut kept = Vec::with_capacity(POINTS);
    for chunk in points.chunks(span) {
        let by = |pick: fn(f64, f64) -> bool| {
            let best =
                |best: usize, index: usize| if pick(chunk[index].1, chunk[best].1) { index } else { best };
            (0..chunk.len()).fold(0, best)
        };
        let mut indices = [0, by(|a, b| a < b), by(|a, b| a > b), chunk.len() - 1];
        indices.sort_unstable();
        let mut last = None;
        for index in indices {
            if last != Some(index) {
                kept.push(chunk[index]);
            }
            last = Some(index);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plot(points: Vec<(f64, f64)>, logarithmic: bool) -> Plot {
        let axis = |label, logarithmic| Axis { label, logarithmic, format: |value| format!("{value:.0}") };
        let series = Series { name: "s".to_owned(), points, dots: false };
        let (x, y) = (axis("x", false), axis("y", logarithmic));
        Plot { title: "a < b".to_owned(), x, y, series: vec![series], marks: vec![1.0] }
    }

    #[test]
    fn nothing_is_no_plot() {
        assert_eq!(plot(Vec::new(), false).svg(), None);
        // What has no logarithm has no place either.
        assert_eq!(plot(vec![(0.0, 0.0), (1.0, f64::NAN)], true).svg(), None);
    }

    #[test]
    fn a_plot_scales_names_itself_and_leaves_its_colours_to_the_page() {
        let svg = plot(vec![(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)], false).svg().unwrap();
        assert!(
            svg.starts_with("<svg viewBox=\"0 0 640 260\" role=\"img\" aria-label=\"a &lt; b\""),
            "{svg}"
        );
        assert!(!svg[..200].contains("width=\"640\""), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), svg.matches("fill=\"none\"").count());
        let colours = svg.split("=\"#").skip(1).map(|rest| rest[..6].to_owned());
        let known = COLOURS.map(|c| format!("{:02X}{:02X}{:02X}", c.0, c.1, c.2));
        assert!(colours.clone().count() > 3);
        assert_eq!(colours.filter(|colour| !known.contains(colour)).collect::<Vec<_>>(), [""; 0]);
    }

    proptest! {
        #[test]
        fn thinning_keeps_the_ends_the_extremes_and_the_order(
            values in prop::collection::vec(-1e6..1e6_f64, 1..5_000)
        ) {
            let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(x, &y)| (x as f64, y)).collect();
            let kept = thinned(&points);
            prop_assert!(kept.len() <= POINTS + 4);
            prop_assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(kept.iter().all(|point| points.contains(point)));
            prop_assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
            let extremes = |points: &[(f64, f64)]| {
                let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
                (least, points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max))
            };
            prop_assert_eq!(extremes(&kept), extremes(&points));
        }

        #[test]
        fn steps_are_round_and_not_smaller(step in 1e-9..1e9_f64) {
            let round = round_step(step);
            prop_assert!(round >= step * 0.998 && round <= step * 10.001, "{round} for {step}");
            let lead = round / 10_f64.powf(round.log10().floor() + 1e-12);
            prop_assert!([1.0, 2.0, 5.0, 10.0].iter().any(|f| (lead / f - 1.0).abs() < 1e-6), "{lead}");
        }
    }
}

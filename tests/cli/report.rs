//! `floodline report`: the same figures in every form, and a page that stands for itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{Server, run, scratch};

/// A short load that passes or fails, and its JSON.
fn load(name: &str, more: &[&str]) -> (PathBuf, Value) {
    let path = scratch(name);
    let args = ["load", "--rate", "1000", "--duration", "1s", "--connections", "4", "--payload-bytes", "64"];
    run(args.into_iter().chain(["--json", path.to_str().unwrap()]).chain(more.iter().copied()));
    let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    (path, value)
}

/// What `floodline report RESULT FORM` writes.
fn report(result: &Path, form: &str) -> String {
    let to = scratch(&format!("report{form}"));
    run(["report", result.to_str().unwrap(), form, to.to_str().unwrap()]).expect(0);
    std::fs::read_to_string(to).unwrap()
}

/// 1234.5 → "1.23 ms", as the page writes it.
fn latency(us: f64) -> String {
    floodline::units::latency_us(us)
}

#[test]
fn the_figures_on_the_page_are_those_of_the_json() {
    let (path, json) = load("page.json", &[]);
    let page = report(&path, "--html");
    for name in ["p50", "p95", "p99", "p999", "max"] {
        let figure =
            format!("<td class=\"number\">{}</td>", latency(json["latency_us"][name].as_f64().unwrap()));
        assert!(page.contains(&figure), "{name}: {figure}");
    }
    assert!(page.contains("<td class=\"number\">1,000</td>"), "due");
    for criterion in json["criteria"].as_array().unwrap() {
        assert!(page.contains(&format!("<td>{}</td>", criterion["name"].as_str().unwrap())), "{criterion}");
    }
    let verdict = json["verdict"].as_str().unwrap();
    assert!(page.contains(&format!("<p class=\"verdict {verdict}\">{}</p>", verdict.to_uppercase())));
    for title in
        ["Latency by percentile", "Latency in each second", "Messages in each second", "CPU", "Memory"]
    {
        assert!(page.contains(&format!("aria-label=\"{title}\"")), "{title}");
    }
}

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = report(&load("alone.json", &[]).0, "--html");
    for reference in ["http://", "https://", "src=", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn what_a_server_says_is_text_on_the_page() {
    let (path, mut json) = load("said.json", &[]);
    json["criteria"][0]["evidence"] = Value::from(vec!["</table><script>alert(1)</script>"]);
    std::fs::write(&path, json.to_string()).unwrap();
    let page = report(&path, "--html");
    assert!(page.contains("&lt;/table&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains("<script"));
}

#[test]
fn a_failed_load_is_a_failure_in_every_form() {
    let server = Server::start(&["--fault", "repeat-answers=1,among=100,seed=1"]);
    let (path, json) = load("failed.json", &["--target", &server.url]);
    assert_eq!(json["verdict"], "fail");
    assert!(report(&path, "--html").contains("<p class=\"verdict fail\">FAIL</p>"));
    assert!(
        report(&path, "--junit")
            .contains("<testcase name=\"duplicates\" classname=\"floodline.load\">\n            <failure ")
    );
    let markdown = report(&path, "--markdown");
    assert!(markdown.starts_with("**FAIL**: 0 of 1 cases passed"), "{markdown}");
    assert!(markdown.contains("\n- **load / duplicates** fail: 1 (limit: 0)"), "{markdown}");
}

#[test]
fn every_second_is_a_row_of_the_csv_and_every_load_an_interval() {
    let (path, json) = load("rows.json", &[]);
    let csv = report(&path, "--csv");
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|row| row.split(',').collect()).collect();
    let windows = json["windows"].as_array().unwrap();
    assert_eq!(rows.len(), windows.len());
    for (row, window) in rows.iter().zip(windows) {
        assert_eq!(row[..3], ["load", "load", &window["t_s"].to_string()]);
        assert_eq!(
            (row[3].parse().ok(), row[4].parse().ok()),
            (window["sent"].as_u64(), window["answered"].as_u64())
        );
    }
    let log = report(&path, "--hdr-log");
    let intervals: Vec<&str> = log.lines().filter(|line| line.starts_with("Tag=")).collect();
    let [interval] = intervals[..] else { panic!("{log}") };
    assert!(interval.starts_with("Tag=load.load,0"), "{interval}");
    // The largest value, in milliseconds.
    let largest: f64 = interval.split(',').nth(3).unwrap().parse().unwrap();
    let max_ms = json["latency_us"]["max"].as_f64().unwrap() / 1e3;
    assert!((largest / max_ms - 1.0).abs() < 0.002, "{largest} {max_ms}");
}

#[test]
fn several_results_are_one_page() {
    let (first, _) = load("first.json", &[]);
    let server = Server::start(&["--fault", "repeat-answers=1,among=100,seed=1"]);
    let (second, _) = load("second.json", &["--target", &server.url]);
    let to = scratch("both.html");
    let files = [&first, &second, &to].map(|path| path.to_str().unwrap());
    run(["report", files[0], files[1], "--html", files[2]]).expect(0);
    let page = std::fs::read_to_string(to).unwrap();
    assert!(
        page.contains("<p class=\"verdict fail\">FAIL</p>") && page.contains("<h1>1 of 2 cases passed</h1>")
    );
    // Each is called what its file is.
    for (file, place) in [(&first, 0), (&second, 1)] {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(page.contains(&format!("<section id=\"{name}\">")), "{place}: {name}");
    }
}

#[test]
fn what_is_no_result_is_named() {
    let file = scratch("other.json");
    let name = file.to_str().unwrap();
    let refused = |text: &str, parts: &[&str]| {
        std::fs::write(&file, text).unwrap();
        run(["report", name, "--html", "unwritten.html"]).expect(2).says(parts);
    };
    refused("{}", &[name, "`schema` is ``", "floodline.test/1"]);
    refused("{\"schema\": \"floodline.run/1\"}", &[name, "is no floodline.run/1", "missing field"]);
    refused("no", &[name, "is no JSON"]);
    run(["report", "nowhere.json", "--html", "unwritten.html"]).expect(2).says(&["nowhere.json"]);
    run(["report", name]).expect(2).says(&["--html", "--junit", "--markdown"]);
}

/// In a browser, where there is one: it opens, and draws what it is told.
#[test]
fn a_browser_shows_the_page() {
    let Some(browser) =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| is_there(name))
    else {
        println!("skipped: no Chromium on this machine");
        return;
    };
    let (path, json) = load("browser.json", &[]);
    let page = scratch("browser.html");
    run(["report", path.to_str().unwrap(), "--html", page.to_str().unwrap()]).expect(0);
    let profile = tempfile::tempdir().unwrap();
    let quiet =
        ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
    let output = Command::new(browser)
        .args(quiet)
        .args(["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let figure = latency(json["latency_us"]["p99"].as_f64().unwrap());
    assert!(dom.contains(&figure) && dom.contains("<polyline"), "{figure}: {dom:.500}");
    // What the page itself complains of goes to the console.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("CONSOLE"), "{errors}");
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

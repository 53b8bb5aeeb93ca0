//! Every text that a user writes: the configuration file, faults of the server, quantities, targets, shards.
#![no_main]

use floodline::config::HighVolumeConfig;
use floodline::server::ServerFault;
use floodline::units::{self, Rate};
use floodline::workload::{Offered, Shard, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = text.parse::<ServerFault>();
    let _ = text.parse::<Rate>();
    let _ = text.parse::<Offered>();
    let _ = text.parse::<Shard>();
    let _ = text.parse::<Target>();
    let _ = units::parse_duration(text);
    let _ = units::parse_bytes(text);
    configuration(text);
});

fn configuration(text: &str) {
    let file = std::env::temp_dir().join(format!("floodline-fuzz-{}.toml", std::process::id()));
    std::fs::write(&file, text).expect("a file");
    let of_file = HighVolumeConfig::load(Some(&file), std::iter::empty(), None);
    if let Ok(config) = of_file {
        config.validate().expect("what was loaded is valid");
        let written = config.to_toml().expect("what was loaded is TOML");
        std::fs::write(&file, written).expect("a file");
        let again = HighVolumeConfig::load(Some(&file), std::iter::empty(), None);
        assert_eq!(again.expect("what was written can be loaded"), config);
    }
    // The same text as variables of the environment, a line each.
    std::fs::write(&file, "").expect("a file");
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let _ = HighVolumeConfig::load(Some(&file), variables, None);
}

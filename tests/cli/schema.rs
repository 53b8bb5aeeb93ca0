//! The schemas of `schema/`: as the types are, and what the command writes is valid, by a validator that is not ours.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{Running, floodline, run, scratch};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");

/// Validates standard input by the schema in the first argument, with every field refused that it does not name. Exit code 77:
/// the validator is not there.
const VALIDATE: &str = r##"
import json, sys
try:
    from jsonschema import Draft202012Validator
except ImportError:
    sys.exit(77)

def strict(schema):
    if isinstance(schema, dict):
        for value in schema.values():
            strict(value)
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)

schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
strict(schema)
errors = list(Draft202012Validator(schema).iter_errors(json.load(sys.stdin)))
for error in errors[:10]:
    print(error.json_path, error.message[:300])
sys.exit(1 if errors else 0)
"##;

/// Whether `result` is valid by `schema/<name>.json`, by Python's jsonschema; skipped, and said so, where that is missing.
#[track_caller]
pub fn validates(name: &str, result: &Value) {
    if let Err(errors) = validity(name, result) {
        panic!("{name}: {errors}");
    }
}

fn validity(name: &str, result: &Value) -> Result<(), String> {
    let schema = Path::new(DIRECTORY).join(format!("{name}.json"));
    let python = Command::new("python3")
        .args(["-c", VALIDATE])
        .arg(schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("SKIPPED: no python3 to validate {name} with");
        return Ok(());
    };
    let mut stdin = python.stdin.take().unwrap();
    // It reads nothing where the validator is missing.
    let _ = stdin.write_all(result.to_string().as_bytes());
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(77) => {
            eprintln!("SKIPPED: no jsonschema for Python to validate {name} with (pip install jsonschema)");
            Ok(())
        }
        _ => Err(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let check = Command::new("python3").arg(Path::new(DIRECTORY).join("generate.py")).arg("--check").output();
    match check {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => eprintln!("SKIPPED: the schemas are not checked: python3: {error}"),
    }
}

#[test]
fn what_a_load_and_a_test_write_is_valid_and_anything_else_is_not() {
    let args =
        ["load", "--rate", "500", "--duration", "300ms", "--connections", "4", "--payload-bytes", "64"];
    let result = run(args.into_iter().chain(["--json", "-"])).expect(0).json();
    validates("run", &result);
    let closed = ["load", "--rate", "max", "--duration", "100ms", "--connections", "2", "--json", "-"];
    validates("run", &run(closed).expect(0).json());
    let test = run(["test", "ordering", "--profile", "smoke", "--json", "-"]).expect(0).json();
    validates("test", &test);
    validates("selftest", &run(["selftest", "offers-too-little", "--json", "-"]).expect(0).json());

    // The validator can say no. Where it is missing it says nothing.
    if validity("run", &Value::Null).is_err() {
        type Edit = fn(&mut Value);
        let edits: [Edit; 4] = [
            |run| run["messages"]["answered"] = Value::from("many"),
            |run| run["unknown"] = Value::Null,
            |run| drop(run.as_object_mut().unwrap().remove("verdict")),
            |run| run["schema"] = Value::from("floodline.test/1"),
        ];
        for edit in edits {
            let mut wrong = result.clone();
            edit(&mut wrong);
            assert!(validity("run", &wrong).is_err());
        }
    }
    let calibrate =
        ["calibrate", "--stage", "100ms", "--connections", "2", "--payload-bytes", "64", "--json"];
    let written = scratch("calibration.json");
    let mut calibrate = floodline(calibrate.into_iter().chain([written.to_str().unwrap()]));
    // What it keeps is nothing to the other tests, which have none.
    let kept = tempfile::tempdir().unwrap();
    calibrate.env("FLOODLINE_CACHE", kept.path());
    Running::start(calibrate).wait();
    validates("calibration", &serde_json::from_str(&std::fs::read_to_string(&written).unwrap()).unwrap());
}

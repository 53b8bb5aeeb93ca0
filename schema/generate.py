#!/usr/bin/env python3
"""Writes schema/*.json from the result types of src/: names, types, what may be null, and the docs as descriptions.

    python3 schema/generate.py           writes them
    python3 schema/generate.py --check   says which are out of date, and exits 1

It reads plain structs and enums, which results are, and stops at what it does not know. A derive of the schema would be
compiled into every user's build, for a file that changes a few times a year. Needs Python 3.8, nothing else.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SRC = HERE.parent / "src"

# Where the types of results are.
FILES = [
    "result.rs", "result/test.rs", "result/peak.rs", "result/calibration.rs", "result/compare.rs",
    "result/selftest.rs", "result/truth.rs", "result/fan_out.rs", "result/unmatched.rs", "result/unopened.rs",
    "record.rs", "sampler.rs", "ledger/mod.rs", "workload.rs", "environment.rs",
    "history/mod.rs",
]

# File, the value of `schema`, and the type.
SCHEMAS = [
    ("run", "floodline.run/1", "LoadTestResults"),
    ("test", "floodline.test/1", "TestResults"),
    ("peak", "floodline.peak/1", "PeakResults"),
    ("calibration", "floodline.calibration/1", "Calibration"),
    ("truth", "floodline.truth/1", "TruthResults"),
    ("selftest", "floodline.selftest/1", "SelftestResults"),
    ("compare", "floodline.compare/1", "CompareResults"),
    ("history", "floodline.history/1", "HistoryResults"),
]

SIMPLE = {
    "u64": {"type": "integer", "minimum": 0},
    "u32": {"type": "integer", "minimum": 0},
    "usize": {"type": "integer", "minimum": 0},
    "i64": {"type": "integer"},
    "f64": {"type": "number"},
    "String": {"type": "string"},
    "bool": {"type": "boolean"},
    "serde_json::Value": {"type": "object"},
}

ITEM = re.compile(r"((?:[ ]*///[^\n]*\n|[ ]*#\[[^\n]*\]\n)*)pub (struct|enum) (\w+) \{\n(.*?)\n\}", re.S)


def read_items():
    """name -> (kind, doc, attributes, [(field or variant, type, doc, attributes)])"""
    items = {}
    for name in FILES:
        source = (SRC / name).read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {")[0]
        for attributes, kind, item, body in ITEM.findall(source):
            if "Serialize" in attributes:
                docs = [line.strip()[4:] for line in attributes.splitlines() if line.strip().startswith("///")]
                items[item] = (kind, " ".join(docs), attributes, read_members(kind, body))
    return items


def read_members(kind, body):
    members, docs, attributes = [], [], []
    for line in map(str.strip, body.splitlines()):
        if line.startswith("///"):
            docs.append(line[4:])
        elif line.startswith("#["):
            attributes.append(line)
        elif line and not line.startswith("//"):
            pattern = r"(?:pub )?(\w+): (.*),$" if kind == "struct" else r"(\w+)(),?$"
            member = re.match(pattern, line)
            if not member:
                sys.exit(f"not understood: `{line}`")
            members.append((member[1], member[2], " ".join(docs), " ".join(attributes)))
            docs, attributes = [], []
    return members


def plain(doc):
    """Without the marks of rustdoc."""
    doc = re.sub(r"\[`([^`]*)`\](\([^)]*\))?", r"\1", doc).replace("`", "")
    return doc.replace("None while", "null while").replace("None where", "null where")


class Schema:
    def __init__(self, items, root, schema):
        self.items, self.needed = items, [root]
        definitions = {}
        while self.needed:
            name = self.needed.pop()
            if name not in definitions:
                definitions[name] = self.define(name)
        top = definitions.pop(root)
        top["properties"]["schema"] = {"const": schema}
        draft = "https://json-schema.org/draft/2020-12/schema"
        self.value = {"$schema": draft, "title": schema, **top, "$defs": dict(sorted(definitions.items()))}

    def define(self, name):
        if name not in self.items:
            sys.exit(f"no such type in the files that are read: {name}")
        kind, doc, attributes, members = self.items[name]
        if kind == "enum":
            snake = "snake_case" in attributes
            separate = (lambda word: re.sub(r"(?<!^)(?=[A-Z])", "_", word)) if snake else str
            return {"description": plain(doc), "enum": [separate(member[0]).lower() for member in members]}
        required, properties = [], {}
        self.fields(members, "serde(default)" in attributes, required, properties)
        return {"description": plain(doc), "type": "object", "required": required, "properties": properties}

    def fields(self, members, all_default, required, properties):
        for name, kind, doc, attributes in members:
            if "flatten" in attributes:
                _, _, outer, inner = self.items[kind.split("::")[-1]]
                self.fields(inner, "serde(default)" in outer, required, properties)
                continue
            properties[name] = {"description": plain(doc), **self.type_of(kind, attributes)}
            # What was added later is missing in older results.
            if not all_default and "default" not in attributes:
                required.append(name)

    def type_of(self, kind, attributes=""):
        if "hdr_base64" in attributes:
            return {"type": "string", "contentEncoding": "base64"}
        wrapped = re.match(r"(?:std::collections::)?(Option|Box|Vec|BTreeMap<String, )<?(.*)>$", kind)
        if kind in SIMPLE:
            return dict(SIMPLE[kind])
        if kind.startswith("("):
            parts = [self.type_of(part.strip()) for part in kind[1:-1].split(",")]
            return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
        if not wrapped:
            name = kind.split("::")[-1]
            self.needed.append(name)
            return {"$ref": f"#/$defs/{name}"}
        outer, inner = wrapped[1], self.type_of(wrapped[2])
        if outer == "Box":
            return inner
        if outer == "Vec":
            return {"type": "array", "items": inner}
        if outer != "Option":
            return {"type": "object", "additionalProperties": inner}
        if "type" in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


def main():
    items, outdated = read_items(), []
    for file, schema, root in SCHEMAS:
        path = HERE / f"{file}.json"
        text = json.dumps(Schema(items, root, schema).value, indent=2, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            outdated.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and outdated:
        sys.exit(f"out of date: {', '.join(outdated)}; run python3 schema/generate.py")


main()

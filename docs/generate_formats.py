"""generate_formats.py: docs/formats.md: the fields of every document, from schemas/, and the arrays of evidence.

`python docs/generate_formats.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fr_ensemble.evidence.baselines import BASELINES_FORMAT
from fr_ensemble.evidence.calibration import CALIBRATION_FORMAT
from fr_ensemble.evidence.fingerprints import FINGERPRINTS_FORMAT
from fr_ensemble.evidence.inputs import INPUTS_FORMAT
from fr_ensemble.evidence.left_out import LEFT_OUT_FORMAT
from fr_ensemble.evidence.oof import OOF_FORMAT
from pages import cell, publish

from registry_tool.archive import ArchiveFormat
from registry_tool.plugins.single_evidence import SINGLE_FORMAT
from registry_tool.toolkit import markdown_table

PAGE = Path(__file__).with_name("formats.md")
SCHEMAS = Path(__file__).parents[1] / "schemas"
INTRO = """\
# Formats

The documents this tool reads and writes, made from `schemas/`: `python docs/generate_formats.py`. Each schema is JSON
Schema, draft 2020-12, and `registry validate` checks documents by it. A field that a table does not name is kept
through every write and never read. What holds between documents (digests, order, agreement) is in
[findings.md](findings.md).
`a.b` is a field in a field, `a[]` an item of a list, `a.*` a value of any name. Names in **bold** are required.
"""
ARCHIVES_INTRO = """\
## Evidence in .npz files

Zip files of numpy arrays without pickles, declared beside their readers: `plugins/fr_ensemble/evidence/`, and
`registry_tool/plugins/single_evidence.py` for the last one, of a single model. A file has
exactly these arrays, in this order, little-endian and in C order, each as a `.npy` of version 1.0 with the header that
numpy writes, and nothing between them: other bytes are refused (`evidence-unusable`). How arrays are compressed does
not matter: it follows the zlib of the writer. `<U` is Unicode text of any length. Arrays in **bold** are required.
"""
ARCHIVES = (
    OOF_FORMAT,
    INPUTS_FORMAT,
    FINGERPRINTS_FORMAT,
    BASELINES_FORMAT,
    LEFT_OUT_FORMAT,
    CALIBRATION_FORMAT,
    SINGLE_FORMAT,
)
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
FIRST = ("registry", "fr_ensemble", "verdict")
END = r"(?![\s\S])"  # the end of the text, as patterns spell it (docs/adr/0004-portable-end-of-text.md)
Schema = Mapping[str, Any]
Row = tuple[str, str, str]


class Reader:
    """All schemas by `$id`, so that a reference leads from one file into another."""

    def __init__(self) -> None:
        paths = sorted(SCHEMAS.glob("*.json"), key=lambda path: (path.name.split(".")[0] not in FIRST, path.name))
        self.files = {path.name: json.loads(path.read_text("utf-8")) for path in paths}
        self.by_id = {schema.get("$id"): schema for schema in self.files.values()}

    def resolve(self, schema: Schema, root: Schema) -> tuple[Schema, Schema]:
        """The schema a `$ref` means, with what is beside the `$ref` on top; and the file it is in."""
        beside = dict(schema)
        while "$ref" in beside:
            where, _, pointer = beside.pop("$ref").partition("#")
            root = self.by_id[where] if where else root
            found: Any = root
            for part in pointer.strip("/").split("/") if pointer.strip("/") else ():
                found = found[part]
            beside = {**found, **beside}
        return beside, root

    def fields(self, schema: Schema, root: Schema, path: str = "", within: tuple[int, ...] = ()) -> Iterator[Row]:
        """A row for each field below `schema`, depth first. within: the schemas above, so that none is its own part."""
        schema, root = self.resolve(schema, root)
        parts = [schema[branch] for branch in ("then", "else") if branch in schema and "if" in schema]
        for part in (*parts, *schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
            if id(part) not in within:
                yield from self.fields(part, root, path, (*within, id(part)))
        required = schema.get("required", ())
        parts = [
            (f"{path}.{name}" if path else name, name, part) for name, part in schema.get("properties", {}).items()
        ]
        if isinstance(schema.get("additionalProperties"), dict):
            parts.append((f"{path}.*" if path else "*", "", schema["additionalProperties"]))
        if isinstance(schema.get("items"), dict):
            parts.append((f"{path}[]", "", schema["items"]))
        for where, name, part in parts:
            found, home = self.resolve(part, root)
            if name:
                shown = f"**`{where}`**" if name in required else f"`{where}`"
                yield (shown, _type(self, found, home), cell(str(found.get("description", ""))))
            if id(part) not in within:
                yield from self.fields(found, home, where, (*within, id(part)))


def _type(reader: Reader, schema: Schema, root: Schema) -> str:
    """What a value may be, in words."""
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(reader, *reader.resolve(s, root)) for s in schema[choice]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kinds = schema.get("type", "object" if "properties" in schema else "any value")
    words = [" or ".join(kinds) if isinstance(kinds, list) else kinds]
    if isinstance(schema.get("items"), dict):
        words[0] += f" of {_type(reader, *reader.resolve(schema['items'], root)).split(',')[0]}"
    if "pattern" in schema:
        words.append(f"`{cell(schema['pattern'].removesuffix(END))}`")
    return ", ".join([*words, *(text.format(schema[key]) for key, text in LIMITS.items() if key in schema)])


def render() -> str:
    """The page: a section a schema."""
    reader = Reader()
    parts = [INTRO]
    for name, schema in reader.files.items():
        rows = list(dict.fromkeys(reader.fields(schema, schema)))
        table = "\n".join(markdown_table([("field", "value", ""), *rows]))
        parts.append(f"## {schema['title']}\n\n`schemas/{name}`. {schema.get('description', '')}\n\n{table}\n")
    return "\n".join([*parts, ARCHIVES_INTRO, *map(archive_section, ARCHIVES)])


def archive_section(archive: ArchiveFormat) -> str:
    """One .npz file of evidence: its axes and arrays."""
    axes = "; ".join(f"`{name}`: {meaning}" for name, meaning in archive.axes.items())
    rows = [
        (
            f"`{name}`" if array.optional else f"**`{name}`**",
            f"`{'<' + array.kind if array.kind != 'U' else '<U'}`",
            " x ".join(array.axes) or "one value",
            cell(array.meaning),
        )
        for name, array in archive.arrays.items()
    ]
    table = "\n".join(markdown_table([("array", "dtype", "shape", ""), *rows]))
    folder = "" if archive is SINGLE_FORMAT else "evidence/"
    return f"### `{folder}{archive.file}`\n\n{archive.meaning} Axes: {axes}.\n\n{table}\n"


if __name__ == "__main__":
    publish(PAGE, render)

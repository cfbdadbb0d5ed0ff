"""rules.py: finding codes that are not declared beside their checks yet. Judges nothing, reads nothing."""

from __future__ import annotations

from registry_tool.findings import FindingRule, Severity

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def R(code: str, severity: Severity, title: str, why: str, fix: str, example: str) -> FindingRule:
    return FindingRule(code, title, why, fix.rstrip("."), example=example, severity=severity)


# fmt: off
TABLE: tuple[FindingRule, ...] = (
R("json-syntax", ERROR, "A document is not JSON",
  "A reader stops here, or guesses.", "Correct it at the line and column named.", "a comma after the last element"),
R("json-duplicate-key", ERROR, "A key stands twice in one object",
  "Some readers take the first, some the last: two people see two documents.", "Keep one of them.",
  '{"smoke": true, "smoke": false}'),
R("json-not-finite", ERROR, "A number is NaN, infinite, or too large to be finite",
  "Comparisons with NaN are all false, so that limits stop limiting; JSON has no such number.",
  "Write a finite number, or null where the format takes it.", '"plcc": NaN'),
R("json-huge-number", ERROR, "A number has more digits than any value needs",
  "Readers round it differently, or spend minutes on it.", "Write the number it stands for.", '"bytes": 1000...000'),
R("json-bom", ERROR, "A document starts with a byte order mark",
  "Readers disagree on whether it belongs to the text.", "Save it as UTF-8 without BOM.", "bytes EF BB BF before {"),
R("json-not-utf8", ERROR, "A document is not UTF-8",
  "Readers that guess another encoding see other names.", "Save it as UTF-8.", "an id in Latin-1"),
R("json-control-character", ERROR, "A text holds control, invisible or direction-changing characters",
  "It shows as something that it is not.", "Delete the character named.", '"id": "fr\\u202e_v1"'),
R("json-too-deep", ERROR, "A document is nested too deeply",
  "Reading it could exhaust the stack.", "Flatten it; no format here needs 32 levels.", "100,000 opening brackets"),
R("json-too-large", ERROR, "A document is too large, or holds too many values",
  "Reading it could exhaust memory.", "Move data out of it.", "a manifest of 40 MiB"),
R("schema-required", ERROR, "A field is missing",
  "Readers rely on it.", "Add the field named.", "an entry without sha256"),
R("schema-unknown-field", ERROR, "A field is not known here",
  "A misspelt field is silently ignored by whoever reads it.", "Correct the name, or remove it.", '"smokes": true'),
R("schema-type", ERROR, "A value has the wrong type",
  "A text for a number passes comparisons it should fail.", "Write the type named.", '"smoke": "false"'),
R("schema-value", ERROR, "A value has the wrong form, length or range",
  "It means nothing, or something else to another reader.", "Write a value of the form named.", '"opset": 99'),
R("schema-choice", ERROR, "None, or several, of an either-or are given",
  "It is unclear which one counts.", "Keep exactly one.", "an entry with both onnx and manifest"),
R("registry-version", ERROR, "The registry has an unknown schema_version",
  "Rules of another version would be applied to it.", "Use a registry-tool that knows it, or correct the number.",
  '"schema_version": 3'),
R("json-whitespace", ERROR, "A document holds more white space than an editor makes",
  "What is far to the right or far below is not seen in review.", "Format the document again.",
  "a megabyte of spaces before a field"),
R("file-missing", ERROR, "A named file is not there",
  "Whoever loads the entry fails.", "Restore the file, or correct the path.", "model.onnx deleted"),
R("file-escapes", ERROR, "A path leaves the registry's folder, or has a second spelling",
  "It could name any file of the machine.", "Write a plain relative path with /.", "../../etc/passwd"),
R("file-is-symlink", ERROR, "A symbolic link stands in a file's place",
  "It can point elsewhere tomorrow, on this machine or on another.", "Put the file itself there.",
  "model.onnx -> /tmp/m"),
R("file-not-regular", ERROR, "A folder, fifo, socket or device stands in a file's place",
  "Reading it could block for ever.", "Put a regular file there.", "mkfifo model.onnx"),
R("file-too-large", ERROR, "A file is larger than its limit",
  "Reading it could exhaust memory.", "Ship a smaller file, or raise `max_file_bytes` in the kind's policy.",
  "an ONNX file of 2 GiB"),
R("file-too-many", ERROR, "The registry's folder holds too much to look at",
  "Files could hide among the others.", "Keep the registry in a folder of its own.", "a registry beside node_modules"),
R("file-unreadable", ERROR, "A file cannot be read",
  "What cannot be read cannot be checked.", "Check its owner, its mode and the disk.", "permission denied"),
R("file-changed-while-reading", ERROR, "Somebody wrote to a file while it was read",
  "What was checked is not what is there.", "Run it again when nothing writes there.", "two trainings in one folder"),
R("file-annex-pointer", ERROR, "A git-annex pointer in place of a model",
  "The model itself was never fetched.", "Run `git annex get`.", "/annex/objects/SHA256E-s5--..."),
R("file-dvc-missing", ERROR, "A DVC pointer beside a model that is missing",
  "The model itself was never fetched.", "Run `dvc pull`.", "b.onnx.dvc without b.onnx"),
R("file-lfs-pointer", ERROR, "A Git-LFS pointer stands in a model's place",
  "The model itself was never fetched.", "Run `git lfs pull`.", "version https://git-lfs..."),
)
# fmt: on

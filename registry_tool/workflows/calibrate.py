"""calibrate.py: the story of `registry calibrate`: an entry's models with intervals of other rows, registered anew.

No click, no printing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from registry_tool.errors import InputError
from registry_tool.hookspec import CalibrateRequest
from registry_tool.plugins.manager import Plugins
from registry_tool.values import EMPTY, Json
from registry_tool.workflows.loading import inspected, refuse_unsound, registry_for_new_entry, usable, verified
from registry_tool.workflows.train import NewEntry, Registered, register

INHERITED_FIELDS = ("license", "license_url")  # fields of an entry that hold for its models, whatever their intervals


def calibrate(
    path: Path, plugins: Plugins, entry_id: str, request: CalibrateRequest, fields: Mapping[str, Json] = EMPTY
) -> Registered:
    """Calibrate an entry on other rows and register the result as smoke, under another id.

    fields: further ones of the new entry. Raises InputError before anything is computed for an id that is none or the
    entry's own, RejectedError for a production id and for an entry that does not validate.
    """
    plugins.need_all()
    if request.entry_id == entry_id:
        raise InputError(f"--id: found {entry_id}, expected another id: the entry that is calibrated stays as it is")
    with inspected(usable(path), plugins) as inspection:
        view = verified(inspection, entry_id)
        new = NewEntry(view.entry.kind, request.entry_id)
        registry_for_new_entry(path, new.kind, new.entry_id)
        refuse_unsound(view, inspection, "it is not calibrated")
        made = plugins.calibrate(view, request)
        kept = {name: view.entry.document[name] for name in INHERITED_FIELDS if name in view.entry.document}
    if made is None:
        known = "`registry plugins` tells which can"
        raise InputError(f"{entry_id}: the kind {new.kind!r} cannot be calibrated: {known}")
    return register(path, plugins, new, replace(made, entry={**kept, **made.entry, **fields}))

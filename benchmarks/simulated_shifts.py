"""simulated_shifts.py: what flags see, and `registry calibrate` mends, of known changes in other sources.

Trains on some of the sources of a corpus, calibrates on others, and evaluates on the rest, all by the program's own
commands. The sources that training lacks are as they are, or changed: an offset in their scores; another libvmaf, whose
features and scores are on other scales; an encoder that training has no row of, alone or among the others. Among the
others it is calibrated with all rows, and by encoder. Shares are means over sources. Last, this encoder's rows again,
the sources that training lacks divided at random many times: three draws say little.

    python benchmarks/simulated_shifts.py [CORPUS] [--splits 3] [--calibrated 0.35] [--offset -5] [--encoder libsvtav1]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fr_ensemble.artifacts.manifest import codec_block, scaler_of, spec_of
from fr_ensemble.artifacts.runtime import member_scores, standardise
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.calibration import as_unseen, offset_in, predictions_of, with_encoders
from fr_ensemble.evidence.intervals import EncoderIntervals
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.statistics import group_means
from fr_ensemble.hooks.train import SHIPPED_CORPUS
from program import registry

from registry_tool.strictjson import parse
from registry_tool.values import Json

RECORD = b"fr_ensemble.corpus"  # of how a corpus was made, in its metadata
ADM_AND_VIF, MOTION, SCORES = 1.01, 1.1, 0.97  # another libvmaf's by this one's
TRAINED, CALIBRATED = 0.4, 0.35  # shares of the sources; the rest is evaluated
LEVELS = (0.8, 0.95)
Change = Callable[[pa.Table], pa.Table]


def scaled(table: pa.Table, factors: Mapping[str, float], offset: float = 0.0) -> pa.Table:
    """Columns by factors; the score, which has an offset too, stays from 0 to 100."""
    for name, factor in factors.items():
        values = table[name].to_numpy() * factor
        values = np.clip(values + offset, 0.0, 100.0) if name == "vmaf" else values
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def by_another_libvmaf(table: pa.Table) -> pa.Table:
    """Features and scores on other scales, and a record that says so where there is one."""
    features = [name for name in table.column_names if name == "adm2" or name.startswith("vif_")]
    changed = scaled(table, {**dict.fromkeys(features, ADM_AND_VIF), "motion2": MOTION, "vmaf": SCORES})
    metadata = dict(table.schema.metadata or {})
    if RECORD in metadata:
        metadata[RECORD] = json.dumps({**json.loads(metadata[RECORD]), "libvmaf": "another"}).encode()
    return changed.replace_schema_metadata(metadata)


def of_sources(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["src"], value_set=pa.array(names)))


class Program:
    """The program on a registry of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registry = folder, folder / "model" / "registry.json"

    def __call__(self, *arguments: str) -> str:
        return registry(*arguments, "--registry", self.registry, "--quiet")

    def train(self, id: str, corpus: Path, options: argparse.Namespace) -> None:
        recipe = f"--recipe clean --epochs {options.epochs} --seeds {options.seeds} --no-baselines --license MIT"
        self("train", "fr_ensemble", "--id", id, "--corpus", str(corpus), *recipe.split())

    def predicted(self, id: str, corpus: Path) -> Oof:
        """What the members of an entry give for rows, whose encoders are told."""
        (path,) = self.registry.parent.glob(f"{id}/*/manifest.json")
        manifest = parse(path.read_bytes()).value
        rows = read_corpus(corpus, spec_of(manifest, target=True))
        block = codec_block(rows.codec, rows.conditioning, rows.spec.n_slots)
        models = [(path.parent / member["onnx"]).read_bytes() for member in manifest["members"]]
        scores = member_scores(models, *standardise(rows.features, block, scaler_of(manifest), rows.spec.n_slots))
        return with_encoders(predictions_of(rows, manifest, scores), rows.groups["encoder"])

    def evaluated(self, id: str, corpus: Path) -> dict[str, Json]:
        levels = ",".join(f"{level:g}" for level in LEVELS)
        said = self("evaluate", id, "--corpus", str(corpus), "--levels", levels, "--format", "json")
        document: dict[str, Json] = json.loads(said)
        return document


def figures(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, float]:
    """Errors and shares inside before and after, and the share of rows under each flag."""
    found = {}
    for when, document in (("before", before), ("after", after)):
        over = document["over_sources"]
        found[f"rmse {when}"] = over["rmse"]
        for level in over["levels"]:
            found[f"{level['level']:g} {when}"] = level["coverage"]
    shares = {name: one["n_rows"] / before["n_rows"] for name, one in before["flags"].items()}
    return (
        found | {"flagged": 1.0 - shares.pop("none", 0.0)} | {f"flag {name}": share for name, share in shares.items()}
    )


def split(table: pa.Table, seed: int, share: float) -> tuple[list[str], list[str], list[str]]:
    """Sources to train on, to calibrate on (such a share of them), to evaluate on."""
    names = np.random.default_rng(seed).permutation(sorted(set(table["src"].to_pylist()))).tolist()
    ends = round(TRAINED * len(names)), round((TRAINED + share) * len(names))
    return names[: ends[0]], names[ends[0] : ends[1]], names[ends[1] :]


def trial(
    table: pa.Table, seed: int, options: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """By shift, the figures of one split; and what `divided` finds in it."""
    trained, calibrated, evaluated = split(table, seed, options.calibrated)
    other_encoders = pc.not_equal(table["encoder"], options.encoder)
    changes: dict[str, tuple[str, Change]] = {
        "none": ("all", lambda rows: rows),
        f"an offset of {options.offset:+g}": ("all", lambda rows: scaled(rows, {"vmaf": 1.0}, options.offset)),
        "another libvmaf": ("all", by_another_libvmaf),
        f"{options.encoder}, not trained on": (
            "without",
            lambda rows: rows.filter(pc.equal(rows["encoder"], options.encoder)),
        ),
    }
    found = {}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = Program(folder)
        for id, rows in (("all", table), ("without", table.filter(other_encoders))):
            pq.write_table(of_sources(rows, trained), folder / f"{id}.parquet")
            program.train(id, folder / f"{id}.parquet", options)
        for number, (shift, (id, change)) in enumerate(changes.items()):
            paths = [folder / f"{part}{number}.parquet" for part in ("mine", "new")]
            for path, names in zip(paths, (calibrated, evaluated), strict=True):
                pq.write_table(change(of_sources(table, names)), path)
            mine, new = paths
            program("calibrate", id, "--corpus", str(mine), "--offset", "--id", f"mine{number}")
            found[shift] = figures(program.evaluated(id, new), program.evaluated(f"mine{number}", new))
        mine = folder / "mixed.parquet"
        pq.write_table(of_sources(table, calibrated), mine)
        for id, more in (("pooled", ()), ("apart", ("--by-encoder",))):
            program("calibrate", "without", "--corpus", str(mine), "--offset", "--id", id, *more)
        new = of_sources(table, evaluated)
        for part, rows in (
            (options.encoder, new.filter(pc.equal(new["encoder"], options.encoder))),
            ("the others", new.filter(pc.not_equal(new["encoder"], options.encoder))),
        ):
            pq.write_table(rows, folder / "part.parquet")
            both = (program.evaluated(id, folder / "part.parquet") for id in ("pooled", "apart"))
            found[f"mixed, rows of {part}"] = figures(*both)
        pq.write_table(of_sources(table, [*calibrated, *evaluated]), folder / "unseen.parquet")
        return found, divided(program.predicted("without", folder / "unseen.parquet"), len(calibrated), seed, options)


def divided(unseen: Oof, n_calibrated: int, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """By way to calibrate, the share of the encoder's rows inside 80 %: a mean over divisions and over sources.

    unseen: predictions of sources that training lacks, which tell encoders.
    """
    level, rng, target_range = LEVELS[0], np.random.default_rng(seed), (0.0, 100.0)
    found: dict[str, list[float]] = {}
    for _ in range(options.divisions):
        order = rng.permutation(len(unseen.sources)).tolist()
        parts = (order[:n_calibrated], order[n_calibrated:])
        mine, new = (unseen.of_rows(np.isin(unseen.source, part)) for part in parts)
        own = new.of_encoder(options.encoder)
        for way, rows in (("alone", mine.of_encoder(options.encoder)), ("mixed", mine), ("by encoder", mine)):
            known, moved = as_unseen(rows, True), replace(own, predictions=own.predictions + offset_in(rows))
            calibration = calibrate(known.pooled, levels=[level], target_range=target_range)
            if way == "by encoder":
                apart = EncoderIntervals.of(known, [calibration], [level]).calibrations
                (calibration,) = apart.get(options.encoder, (calibration,))
            lower, upper = calibration.interval(moved.mu, moved.sigma, level)
            inside = (lower <= own.target) & (own.target <= upper)
            found.setdefault(way, []).append(float(group_means(inside, own.source, len(own.sources)).mean()))
    return {way: float(np.mean(shares)) for way, shares in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?", default=SHIPPED_CORPUS)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--calibrated", type=float, default=CALIBRATED, help="share of the sources to calibrate on")
    parser.add_argument("--divisions", type=int, default=100, help="of the sources that training lacks")
    parser.add_argument("--offset", type=float, default=-5.0, help="points added to scores")
    parser.add_argument("--encoder", default="libsvtav1", help="that training lacks")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    table = pq.read_table(options.corpus)
    counts = ", ".join(
        f"{len(names)} to {verb}"
        for names, verb in zip(
            split(table, 0, options.calibrated), ("train on", "calibrate on", "evaluate on"), strict=True
        )
    )
    print(f"{options.corpus.name}: sources: {counts}; {options.splits} splits")
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; before: as trained; after: calibrate --offset; "
        "mixed: calibrate --offset, before, and with --by-encoder, after"
    )
    trials, divisions = zip(*(trial(table, seed, options) for seed in range(options.splits)), strict=True)
    for shift in trials[0]:
        names = dict.fromkeys(name for one in trials for name in one[shift])
        mean = {name: float(np.mean([one[shift].get(name, 0.0) for one in trials])) for name in names}
        pairs = [f"RMSE {mean['rmse before']:.2f} -> {mean['rmse after']:.2f}"]
        pairs += [f"{level:.0%}: {mean[f'{level:g} before']:.2f} -> {mean[f'{level:g} after']:.2f}" for level in LEVELS]
        flags = [f"{name[5:]} {share:.0%}" for name, share in mean.items() if name.startswith("flag ")]
        print(f"{shift:<28} {'  '.join(pairs)}  flagged {mean['flagged']:.0%} ({', '.join(flags)})")
    shares = ", ".join(f"{way} {np.mean([one[way] for one in divisions]):.2f}" for way in divisions[0])
    print(f"{options.encoder}, not trained on, {options.divisions} divisions a split: {LEVELS[0]:.0%}: {shares}")


if __name__ == "__main__":
    main()

"""commands: `registry fr-ensemble ...`: each parses and prints. Other rooms do the work, and load when asked for."""

from __future__ import annotations

import click

from fr_ensemble.commands.corpus_build import build_
from fr_ensemble.commands.corpus_import import import_
from fr_ensemble.commands.corpus_looks import info_, split_
from fr_ensemble.commands.questions import exchangeable_, recommend_


@click.group("fr-ensemble")
def group() -> None:
    """Corpora of encodes, and what an ensemble is for.

    \b
    Examples:
      registry fr-ensemble corpus import logs/ --pattern "{src}_{encoder}_{crf}.json" -o corpus.parquet
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble recommend my_model --corpus rows.parquet --target 92
      registry fr-ensemble exchangeable my_model --corpus rows.parquet
    """


@group.group()
def corpus() -> None:
    """Make and look at corpora: rows to train on.

    \b
    Examples:
      registry fr-ensemble corpus build --test-patterns --encoders libx264 --crf 20,32 -o corpus.parquet
      registry fr-ensemble corpus import logs/ --pattern "{src}_{encoder}_{crf}.json" -o corpus.parquet
      registry fr-ensemble corpus info corpus.parquet
      registry fr-ensemble corpus split corpus.parquet --train train.parquet --aside aside.parquet
    """


for command in (import_, build_, info_, split_):
    corpus.add_command(command)
for command in (exchangeable_, recommend_):
    group.add_command(command)

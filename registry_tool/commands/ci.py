"""ci.py: a pull request in one command, and what a team that adopts it may leave for later: ci, known-findings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_tool.commands.shared import PATH, add_summary, find, level_option, plugins_of, registry_option, show
from registry_tool.errors import ExitCode, RegistryError
from registry_tool.report import reporters
from registry_tool.toolkit import counted, note

if TYPE_CHECKING:
    from registry_tool.workflows.ci import CiRun

KNOWN_FILE = Path("known-findings.json")


@click.command()
@click.option("--base", metavar="REF", help="The revision to compare with.  [default: what GitHub or GitLab names]")
@click.option("--require-base", is_flag=True, help="Without a base: exit 2, since promotions were not judged.")
@level_option()
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--known-findings", "known", type=PATH, metavar="FILE", help="Do not count these.")
@click.option(
    "--evidence", type=PATH, metavar="DIR", help="Version 1: a folder with the loso_seed*.json files of an ensemble."
)
@click.option("--github", is_flag=True, help="Print annotations, and add the summary to GITHUB_STEP_SUMMARY.")
@click.option("--summary", type=PATH, metavar="FILE", help="Write the summary as Markdown.")
@click.option("--sarif", type=PATH, metavar="FILE", help="Write the findings for code scanning.")
@click.option("--junit", type=PATH, metavar="FILE", help="Write everything as a test report.")
@click.option("--json", type=PATH, metavar="FILE", help="Write everything for programs.")
@registry_option
@click.pass_context
def ci(
    ctx: click.Context,
    base: str | None,
    require_base: bool,
    level: str,
    strict: bool,
    known: Path | None,
    evidence: Path | None,
    github: bool,
    summary: Path | None,
    sarif: Path | None,
    junit: Path | None,
    json: Path | None,
    registry: str | None,
) -> None:
    """Validate the registry and gate what a pull request does to production, in one run.

    Neither keeps the other from running, and the exit code is the worst of both. The base is the target of the pull or
    merge request, as GitHub and GitLab name it in their variables; without one, promotions are not judged, and the
    output says so. Every output is written whatever was found, also for exit codes 2 and 3. --known-findings reads the
    list from the base revision: see `registry known-findings write`.

    \b
    Examples:
      registry ci                                       on a CI system: everything, as text
      registry ci --base origin/main                    the same by hand
      registry ci --github --sarif registry.sarif
      registry ci --junit registry.xml --require-base
      registry ci --known-findings known-findings.json
    """
    from registry_tool import toolkit
    from registry_tool.hookspec import Level
    from registry_tool.workflows import ci as ci_workflow

    toolkit.refuse_shared(sarif, junit, json, summary)
    for output in (sarif, junit, json, summary):
        if output is not None:
            toolkit.refuse_overwriting(output, known)
    request = ci_workflow.CiRequest(registry, base, require_base, Level(level), strict, known, evidence)
    with toolkit.progress_bar() as progress:
        run = ci_workflow.ci(request, plugins_of(ctx), os.environ, Path.cwd(), progress)
    code = run.exit_code
    printed = reporters.renderer("github" if github else "text", "ci")(run)
    show(printed.lines)
    if github:
        add_summary(printed.summary)
    files = {"sarif": sarif, "junit": junit, "json": json}
    code = max(code, _write(run, {name: path for name, path in files.items() if path is not None}, summary))
    ctx.exit(code)


def _write(run: CiRun, files: Mapping[str, Path], summary: Path | None) -> ExitCode:
    """Write each document; one that cannot be written is said and raises the exit code, and the others are written."""
    from registry_tool.toolkit import output_file

    texts = {
        path: "".join(f"{line}\n" for line in reporters.renderer(form, "ci")(run).lines) for form, path in files.items()
    }
    if summary is not None:
        texts[summary] = "".join(f"{line}\n" for line in reporters.renderer("github", "ci")(run).summary)
    code = ExitCode.OK
    for path, text in texts.items():
        try:
            with output_file(path) as file:
                file.write(text.encode())
        except RegistryError as error:
            code = max(code, ExitCode(error.exit_code))
            with contextlib.suppress(OSError):
                click.echo(f"registry: {error}", err=True)
    return code


@click.group("known-findings")
def known_findings() -> None:
    """Findings of the day a team adopts `registry ci`: listed, they fail no job.

    \b
    Example:
      registry known-findings write -o known-findings.json
    """


@known_findings.command("write")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    default=KNOWN_FILE,
    show_default=True,
    help="The list; the one there is replaced.",
)
@level_option("As in the job that reads the list.")
@registry_option
@click.pass_context
def write(ctx: click.Context, output: Path, level: str, registry: str | None) -> None:
    """List what `registry validate` finds today.

    Commit the list: `registry ci --known-findings FILE` reads it from the base of a pull request, which can only shrink
    it. A finding counts all the same where the pull request changes its lines, and where another value is found.
    Findings about promotion cannot be listed.

    \b
    Examples:
      registry known-findings write
      registry known-findings write -o ci/known.json --registry model
    """
    from registry_tool import toolkit
    from registry_tool.documents.store import Loaded
    from registry_tool.hookspec import Level
    from registry_tool.workflows import known_findings as known_workflow
    from registry_tool.workflows.validate import validate

    plugins = plugins_of(ctx)
    plugins.need_all()
    with toolkit.progress_bar() as progress:
        found = validate(find(registry), plugins, Level(level), progress)
    if found.lacks_plugins and isinstance(found.loaded, Loaded):
        plugins.need(found.loaded.registry.requires)
    count = known_workflow.write(output, found)
    note(f"{output}: {counted(count, 'known finding')}")
    refused = [item for item in found.findings if not known_workflow.listable(item)]
    if refused:
        click.echo(f"{len(refused)} about promotion cannot be listed, and fail a job: repair them", err=True)
        show(str(item) for item in refused)

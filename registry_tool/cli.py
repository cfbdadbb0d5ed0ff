"""cli.py: the program: its commands, and where errors become exit codes. Decides nothing."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator

import click

from registry_tool.commands import attest, audit, ci, evaluation, gate, inspect, models, reference, sign
from registry_tool.commands.plugin import plugin as plugin_group
from registry_tool.commands.shared import plugins_of, quiet_option, quietable, without_plugin_option
from registry_tool.errors import ExitCode, RegistryError, environment_error
from registry_tool.plugins.contract import error_line
from registry_tool.storage.streams import drop, fill_closed, keep_output_apart, outlive_readers
from registry_tool.values import visible
from registry_tool.version import __version__

PROGRAM_NAME, COMPLETION_VARIABLE = "registry", "_REGISTRY_COMPLETE"
INTERRUPTED_CODE = 130  # as shells say of SIGINT


class Main(click.Group):
    """The built-in commands, then those that plugins add; plugins load only when one of theirs is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._of_plugins(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name) or self._of_plugins(ctx).get(name)
        if command is None:
            plugins_of(ctx).need_all()  # it may be a command of a plugin that does not load
        return command

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        added = plugins_of(ctx).commands(self.commands)
        return {name: quietable(command) for name, command in added.items()}


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", package_name="registry-tool", message="%(package)s %(version)s")
@without_plugin_option
def cli() -> None:
    """Govern a model registry kept in git: validate it, train, gate and flip models on evidence.

    \b
    Examples:
      registry validate                        check every byte and every claim
      registry train fr_ensemble --id NAME     train on the corpus that ships with the plugin
      registry gate NAME                       PROMOTE or HOLD
      registry flip NAME                       smoke -> production, on that evidence

    \b
    Exit codes:
      0 done, nothing to object to      1 judged and rejected
      2 cannot be judged: usage, input  3 environment error: disk, permission, plugin
    """


for _command in (
    *(inspect.init, inspect.validate, inspect.list_, inspect.show_, inspect.paths, inspect.card, inspect.report),
    *(inspect.prune, reference.rule, reference.metrics, reference.plugins, reference.schema),
    *(models.add, models.evidence, models.train, models.calibrate),
    *(evaluation.evaluate, evaluation.compare, evaluation.predict),
    *(gate.gate, gate.flip, gate.repromote, ci.ci, ci.known_findings),
    *(audit.migrate, audit.export, audit.history, audit.reproduce, plugin_group),
    *(sign.sign, sign.verify_signature, attest.attest, attest.verify_attestation, attest.bom),
):
    cli.add_command(quietable(_command))
cli.params.append(quiet_option())


def main() -> None:
    """Run the program; the one place where errors become exit codes."""
    sys.exit(_complete() if COMPLETION_VARIABLE in os.environ else _run())


def start() -> None:
    """`main` as a process of its own: it ends without freeing object by object what the system frees at once."""
    fill_closed()
    keep_output_apart()
    try:
        main()
    except SystemExit as end:
        if threading.active_count() > 1:
            raise  # other processes are waited for
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):  # `_run` reported it, or standard output has no reader
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


def _complete() -> int:
    """What a shell asks for on TAB; `eval "$(_REGISTRY_COMPLETE=bash_source registry)"` turns it on."""
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, PROGRAM_NAME, COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE])


def _run() -> int:
    """The exit code of a run: fixed by what was found. Output that does not arrive can only raise it."""
    outlive_readers()
    code, words = _invoke()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if words:
            click.echo(words, err=True)
    except OSError as error:
        _drop_output()
        code = max(code, ExitCode.BROKEN)
        with contextlib.suppress(OSError):
            click.echo(f"registry: output: {error.strerror}: free or unlock it and run again", err=True)
    return code


def _invoke() -> tuple[int, str | None]:
    """Run the command; its exit code, and the line that says why it ended early."""
    try:
        with interrupts_arrive(), cli.make_context(PROGRAM_NAME, sys.argv[1:]) as ctx:
            cli.invoke(ctx)
        return ExitCode.OK, None
    except click.exceptions.Exit as stop:
        return stop.exit_code, None
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        return ExitCode.UNUSABLE, text.getvalue().rstrip("\n")
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED_CODE, "registry: interrupted, nothing was changed"
    except RegistryError as error:
        return error.exit_code, f"registry: {visible(str(error))}"
    except OSError as error:
        _drop_output()
        return ExitCode.BROKEN, f"registry: {environment_error(error)}"
    except MemoryError as error:
        return ExitCode.BROKEN, f"registry: {error_line(error)}: use less, or free some"


@contextlib.contextmanager
def interrupts_arrive() -> Iterator[None]:
    """Ctrl-C is raised again where Python drops it: inside `__del__`, or a callback that compiled code makes.

    By a signal proper, which ends what the command waits for, too; once, however often it was dropped.
    """
    before, runner, again = sys.unraisablehook, threading.get_ident(), list[threading.Timer]()

    def report(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            for timer in again:
                timer.cancel()
            # once that code has been left
            again[:] = [threading.Timer(0.05, signal.pthread_kill, (runner, signal.SIGINT))]
            again[0].daemon = True
            again[0].start()
        else:
            before(dropped)

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in again:
            timer.cancel()


def _drop_output() -> None:
    """What could not be written is not tried again when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard output may be no file, in a test
        drop(sys.stdout.fileno())


if __name__ == "__main__":
    start()

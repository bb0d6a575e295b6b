"""The commands of ``exan`` and what their errors become. Importing it imports neither torch nor engines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial

import rich_click as click
from click.exceptions import NoArgsIsHelpError

import exan_verify
from exan_verify.cli.attack import attack_command
from exan_verify.cli.audit import audit_command
from exan_verify.cli.bench import bench_command
from exan_verify.cli.campaign import campaign_command
from exan_verify.cli.certify import certify_command, check_command
from exan_verify.cli.compare import compare_command
from exan_verify.cli.demo import demo_command
from exan_verify.cli.mitigate import mitigate_command
from exan_verify.cli.prove import prove_command
from exan_verify.cli.show import show_command
from exan_verify.cli.smt import export_smt_command, smt_command
from exan_verify.cli.sweep import sweep_command
from exan_verify.cli.terminal.examples import epilog
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.cli.theorems import theorems_command
from exan_verify.errors import BudgetExhausted, CertificateRejected, ExanError, fitting_into_memory

EPILOG = (
    "Exit codes: 0 decided or done; 1 a --fail-on gate was hit or a certificate rejected; "
    "2 usage or bad input; 3 undecided; 130 interrupted. "
    "Start with: exan demo. What a command takes, with examples: exan COMMAND --help."
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(exan_verify.__version__, prog_name="exan")
def exan() -> None:
    """What a neural network's gradient reveals about its training batch: decided, certified, attacked."""


COMMANDS = (
    demo_command,
    show_command,
    audit_command,
    certify_command,
    check_command,
    prove_command,
    attack_command,
    mitigate_command,
    compare_command,
    sweep_command,
    bench_command,
    campaign_command,
    export_smt_command,
    smt_command,
    theorems_command,
)
for command in COMMANDS:
    assert command.name is not None
    command.epilog = epilog(command.name)
    exan.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run ``exan`` with ``arguments`` (default: the process's) and return its exit code.

    Where the reader of its output has gone, it raises what click does: SystemExit out of BrokenPipeError.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    fail = partial(_fail, as_json="--json" in given)
    try:
        with fitting_into_memory("this command"):
            code = exan.main(args=None if arguments is None else given, standalone_mode=False)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f"\n{context.get_usage()}" if context is not None else ""
        return fail(error.format_message(), ExitCode.USAGE, "UsageError", usage=usage)
    except CertificateRejected as error:
        return fail(str(error), ExitCode.REFUSED, type(error).__name__)
    except BudgetExhausted as error:
        return fail(f"undecided: {error}", ExitCode.UNDECIDED, type(error).__name__)
    except ExanError as error:
        return fail(str(error), ExitCode.USAGE, type(error).__name__)
    except (KeyboardInterrupt, click.Abort):
        return fail("interrupted", ExitCode.INTERRUPTED, "Interrupted")
    return int(code or 0)


def _fail(message: str, code: ExitCode, kind: str, *, as_json: bool, usage: str = "") -> int:
    """Say on stderr what went wrong, with ``--json`` as one object on one line; returns ``code``."""
    if as_json:
        record = {"schema": "exan/error/1", "error": kind, "message": message, "exit_code": int(code)}
        print(json.dumps(record), file=sys.stderr)
    else:
        print(f"error: {message}{usage}", file=sys.stderr)
    return code

"""The commands of ``exan`` and what their errors become. Importing it imports neither torch nor engines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
from exan_verify.cli.output import ExitCode
from exan_verify.cli.prove import prove_command
from exan_verify.cli.smt import export_smt_command, smt_command
from exan_verify.cli.sweep import sweep_command
from exan_verify.cli.theorems import theorems_command
from exan_verify.errors import BudgetExhausted, CertificateRejected, ExanError, fitting_into_memory

EPILOG = (
    "Exit codes: 0 decided or done; 1 a --fail-on gate was hit or a certificate rejected; "
    "2 usage or bad input; 3 undecided; 130 interrupted."
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(exan_verify.__version__, prog_name="exan")
def exan() -> None:
    """What a neural network's gradient reveals about its training batch: decided, certified, attacked."""


COMMANDS = (
    demo_command,
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
    exan.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run ``exan`` with ``arguments`` (default: the process's) and return its exit code.

    Where the reader of its output has gone, it raises what click does: SystemExit out of BrokenPipeError.
    """
    try:
        with fitting_into_memory("this command"):
            code = exan.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f"\n{context.get_usage()}" if context is not None else ""
        return _fail(f"{error.format_message()}{usage}", ExitCode.USAGE)
    except CertificateRejected as error:
        return _fail(str(error), ExitCode.REFUSED)
    except BudgetExhausted as error:
        return _fail(f"undecided: {error}", ExitCode.UNDECIDED)
    except ExanError as error:
        return _fail(str(error), ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    return int(code or 0)


def _fail(message: str, code: ExitCode) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code

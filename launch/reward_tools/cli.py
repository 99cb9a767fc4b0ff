"""`ponder rewards`: work on verifiers without a run. One thin command each; what it does has a file of its own.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 1
_WIDTH = 120

app = typer.Typer(
    name="rewards",
    help="Score answers, and examine verifiers, without a training run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def score(
    data: Annotated[Path, typer.Option(help="JSON lines with `reference` and `completion`, optionally `prompt`.")],
    out: Annotated[Path, typer.Option(help="File to write: one row with status, score and reason for each.")],
    verifier: Annotated[str, typer.Option(help="A registered name, package.module:function or file.py:function.")],
    settings: Annotated[str, typer.Option(help="The verifier's settings, as JSON.")] = "{}",
    workers: Annotated[int, typer.Option(min=1, help="Processes that run the verifier.")] = 2,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that one answer may take.")] = 3.0,
) -> None:
    """Judge a file of answers as training would.

    Rows are judged in order and safely: an answer that hangs, explodes or crashes the verifier costs only its own row.

    Example:

    ponder rewards score --verifier math --data answers.jsonl --out scores.jsonl
    """
    import json

    from launch.reward_tools import score as rewards_score

    try:
        parsed = json.loads(settings)
    except ValueError as error:
        raise typer.BadParameter(f"--settings is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter(f"--settings must be a JSON object, got {settings}")
    rewards_score.score(
        verifier, data, out, num_workers=workers, max_seconds=max_seconds, settings=parsed, say=typer.echo
    )


class AdapterChoice(StrEnum):
    """The call shapes, for `--adapter`; `rewards.config.AdapterName` is the same list."""

    NATIVE = "native"
    VERL = "verl"
    TRL = "trl"
    TRL_CHAT = "trl_chat"
    OPENRLHF = "openrlhf"
    OPENRLHF_HTTP = "openrlhf_http"
    VERIFIERS = "verifiers"
    VERIFIERS_TEXT = "verifiers_text"


Plugin = Annotated[
    str,
    typer.Argument(
        help="A registered name, path/to/file.py:function, package.module:function, or the address of a remote one."
    ),
]
Adapter = Annotated[
    AdapterChoice | None, typer.Option(help="Its call shape, where the names of its parameters do not tell.")
]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option("--range", metavar="LOW HIGH", help="Lowest and highest number it returns; 0 1 if left out."),
]
AnswerOnly = Annotated[bool, typer.Option("--answer-only", help="Hide the thinking from it.")]
MaxSeconds = Annotated[float | None, typer.Option(min=0.001, help="Seconds that one call may take.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command("list")
def list_rewards(
    plugin: Annotated[list[str] | None, typer.Argument(help="Further functions to look at, by path or name.")] = None,
    as_json: Json = False,
) -> None:
    """What can be named as a verifier: name, kind, where from, capabilities."""
    from launch.reward_tools import listing as rewards_list

    rewards_list.list_rewards(plugin or [], as_json=as_json, console=_console(as_json))


@app.command()
def check(
    plugin: Plugin,
    data: Annotated[Path, typer.Option(help="Golden cases: a JSONL file, see docs/write_a_reward.md.")],
    adapter: Adapter = None,
    score_range: Range = None,
    answer_only: AnswerOnly = False,
    max_seconds: MaxSeconds = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="PROBE", help="A probe that it may reward; may be given several times.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Examine a reward function before it rewards a model.

    Golden cases, faults, latency, determinism, dependence on order and batch, and probes that try to be rewarded
    without solving the task. Exit code 1 when anything failed.

    Example: ponder rewards check examples/units.py:verify --data examples/units.jsonl
    """
    from launch.reward_tools import check as rewards_check

    spec = _spec(plugin, adapter, score_range, answer_only, max_seconds)
    if not rewards_check.check(spec, data, skip=skip or [], as_json=as_json, console=_console(as_json)):
        raise typer.Exit(FAILED)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="A run directory that has trained.")],
    plugin: Plugin,
    component: Annotated[
        str | None, typer.Option(help="Component of the run's reward that it takes the place of.")
    ] = None,
    first: Annotated[int, typer.Option("--first", min=1, help="First training step to look at.")] = 1,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Last training step to look at.")] = None,
    adapter: Adapter = None,
    score_range: Range = None,
    answer_only: AnswerOnly = False,
    max_seconds: MaxSeconds = None,
    as_json: Json = False,
) -> None:
    """Score a finished run again with another reward function, without a model.

    Says how many attempts would be scored otherwise, and whose advantage would change sign.
    """
    from launch.reward_tools import replay as rewards_replay

    spec = _spec(plugin, adapter, score_range, answer_only, max_seconds)
    steps = None if first == 1 and last is None else range(first, (last or 10**9) + 1)
    rewards_replay.replay(run, spec, component=component, steps=steps, as_json=as_json, console=_console(as_json))


def _spec(plugin: str, adapter: AdapterChoice | None, score_range: Any, answer_only: bool, max_seconds: Any) -> Any:
    from launch.reward_tools.plugin import spec_of

    name = None if adapter is None else adapter.value
    return spec_of(plugin, adapter=name, score_range=score_range, answer_only=answer_only, max_seconds=max_seconds)


def _console(as_json: bool) -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() and not as_json else _WIDTH)

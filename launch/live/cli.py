"""`ponder ctl`: talk to a run that is going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.terminal import console

app = typer.Typer(
    name="ctl", help="Look at a running training, pause it, save, evaluate, change settings.", no_args_is_help=True
)
RunDir = Annotated[Path, typer.Argument(help="The run directory, such as runs/quickstart.")]


@app.command()
def status(directory: RunDir) -> None:
    """Step, whether it is paused, what it waits for, and the settings that may change."""
    _show(_ask(directory, "GET", "/status"))


@app.command()
def pause(directory: RunDir) -> None:
    """Stop after the step under way; engines and learner stay up."""
    _show(_ask(directory, "POST", "/pause"))


@app.command()
def resume(directory: RunDir) -> None:
    """Go on after a pause."""
    _show(_ask(directory, "POST", "/resume"))


@app.command()
def checkpoint(directory: RunDir) -> None:
    """Save after the step under way."""
    _show(_ask(directory, "POST", "/checkpoint"))


@app.command()
def evaluate(directory: RunDir) -> None:
    """Evaluate after the step under way."""
    _show(_ask(directory, "POST", "/evaluate"))


@app.command()
def trace(directory: RunDir) -> None:
    """Write the timeline of the next whole step to traces/ in the run directory, for Perfetto or chrome://tracing."""
    _show(_ask(directory, "POST", "/trace"))


@app.command(name="set")
def change(
    directory: RunDir,
    settings: Annotated[list[str], typer.Argument(metavar="SECTION.KEY=NUMBER...", help="One or more settings.")],
) -> None:
    """Change settings from the next step on, together; refused with the rule if they do not fit the run.

    Example: ponder ctl set runs/quickstart learner.lr=1e-5 rollout.group_size=16
    """
    wanted: dict[str, float] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            wanted[name] = json.loads(value)
        except ValueError:
            raise typer.BadParameter(f"{setting!r} is not SECTION.KEY=NUMBER") from None
    _show(_ask(directory, "POST", "/set", json=wanted))


@app.command()
def log(directory: RunDir) -> None:
    """Every action so far; works on a run that has ended, too."""
    from launch.rundir import RunDirectory
    from rl.control import read_log

    for entry in read_log(RunDirectory.open(directory).control_log):
        console().print(json.dumps(entry), markup=False, highlight=False, soft_wrap=True)


@app.command()
def branch(
    directory: RunDir,
    name: Annotated[str, typer.Argument(help="Name of the new run, beside the old one.")],
    step: Annotated[int | None, typer.Option(min=1, help="Checkpoint to go on from; the newest by default.")] = None,
) -> None:
    """A new run that goes on from a checkpoint of this one, which stays as it is: a roll-back that loses nothing."""
    from launch.live import branches

    made = branches.branch(directory, name, step=step)
    console().print(f"made {made}; go on with: ponder train --resume {made}", markup=False, highlight=False)


def _ask(directory: Path, method: str, path: str, **content: Any) -> Any:
    import httpx

    from launch.rundir import RunDirectory

    place = RunDirectory.open(directory).control
    if not place.is_file():
        raise ValueError(f"{directory} is not training now, or was started with cluster.control = false")
    found = json.loads(place.read_text(encoding="utf-8"))
    headers = {"Authorization": f"Bearer {found['token']}"}
    try:
        answer = httpx.request(method, found["url"] + path, headers=headers, timeout=60.0, trust_env=False, **content)
    except httpx.TransportError as error:
        raise ValueError(
            f"the run does not answer at {found['url']} ({error}): process {found['process']} is gone or busy; is this "
            "the machine it runs on?"
        ) from error
    if answer.status_code >= 400:
        raise ValueError(answer.json().get("detail", answer.text))
    return answer.json()


def _show(found: Any) -> None:
    console().print_json(json.dumps(found))

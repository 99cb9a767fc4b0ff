"""`ponder eval RUN`, `modes`, `alignment`, `search`: one group whose first word is a command or, as before, a run.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

SOURCE = "held-out"  # the command behind `ponder eval RUN`


class _RunOrCommand(TyperGroup):
    """Takes a first word that is no command for the run or recipe of `ponder eval held-out`, or, with --search, for the
    policy of `ponder eval search`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            if any(word == "--search" or word.startswith("--search=") for word in args):
                args = ["search", *([] if args[0].startswith("-") else ["--policy"]), *args]
            else:
                args = [SOURCE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="eval",
    cls=_RunOrCommand,
    help="Measure held-out accuracy of a run (ponder eval RUN), compare thinking modes (ponder eval modes), see what a "
    "model can do before RL (ponder eval alignment), or search with step scores (ponder eval search).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be given several times."),
]
Policy = Annotated[
    str | None,
    typer.Option(help="A run, a model directory, a model's name, or the URL of an OpenAI-compatible server."),
]
Tasks = Annotated[str, typer.Option(help="A file (.jsonl, .json, .parquet, .csv), held_out, train, or a recipe.")]
Modes = Annotated[
    str | None,
    typer.Option("--modes", help="Comma-separated: efforts of the recipe, numbers of tokens, auto, on, off."),
]
Samples = Annotated[int, typer.Option(min=1, help="Attempts per task and mode.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the results; runs/modes-POLICY by default.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many tasks.")]
Recipe = Annotated[str | None, typer.Option(help="Recipe for format, efforts, tasks and verifier.")]
Base = Annotated[str | None, typer.Option(help="Mode to compare with; the first effort by default.")]
Against = Annotated[Path | None, typer.Option(help="A modes.json whose base mode the ACT score is against.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of samples and intervals.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature; the recipe's if not given.")]
Instruction = Annotated[
    str | None, typer.Option(help="What a numeric mode says in the prompt, with {tokens}; may be empty.")
]
Enforce = Annotated[bool, typer.Option(help="Keep the caps of numeric modes in decoding, or only ask for them.")]
Saved = Annotated[
    Path | None, typer.Option(help="Measure saved attempts again: a run, or a directory of this command.")
]
KeepVerdicts = Annotated[bool, typer.Option(help="With --from-trajectories: do not judge again.")]
Verifier = Annotated[str | None, typer.Option(help="Verifier of the tasks of a file.")]
PromptColumn = Annotated[str | None, typer.Option(help="Column of the question in a file.")]
AnswerColumn = Annotated[str | None, typer.Option(help="Column of the answer in a file.")]
Model = Annotated[str | None, typer.Option(help="Model that a server is asked for; its first by default.")]
KeyName = Annotated[str | None, typer.Option(help="Environment variable that holds a server's key.")]
Request = Annotated[
    list[str] | None,
    typer.Option(metavar="MODE=JSON", help="Fields of a mode's requests to a server; null takes one away."),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests to a server at a time.")]


@app.command(SOURCE)
def held_out(
    source: Annotated[
        str, typer.Argument(help="A run directory (its newest model is used), a recipe, or a shipped recipe.")
    ],
    overrides: Overrides = None,
    model: Annotated[Path | None, typer.Option(help="Evaluate this model directory instead.")] = None,
) -> None:
    """Measure held-out accuracy per effort; also `ponder eval RUN`.

    With 95 % intervals and mean thinking tokens; sampled and greedy as the recipe says.
    """
    from launch import phases, sessions
    from launch.terminal import console

    config, directory, model_dir = sessions.for_evaluation(source, model=model, overrides=overrides or [])
    phases.evaluate(config, directory, model_dir, console())


@app.command()
def modes(
    policy: Policy = None,
    tasks: Tasks = "held_out",
    names: Modes = None,
    samples: Samples = 4,
    out: Out = None,
    limit: Limit = None,
    recipe: Recipe = None,
    base: Base = None,
    against: Against = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    numeric_instruction: Instruction = None,
    enforce: Enforce = True,
    from_trajectories: Saved = None,
    keep_verdicts: KeepVerdicts = False,
    verifier: Verifier = None,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    model: Model = None,
    api_key_env: KeyName = None,
    request: Request = None,
    concurrency: Concurrency = 32,
    overrides: Overrides = None,
) -> None:
    """Compare thinking modes on the same tasks.

    Accuracy, tokens and kept budgets of each mode, with paired intervals. Interrupted, the same command goes on.

    Example: ponder eval modes --policy runs/quickstart --modes high,low,auto,40
    """
    from launch.evaluation import modes as eval_modes
    from launch.evaluation.question import EvalOptions, ServerOptions
    from launch.terminal import console

    table = {"verifier": verifier, "prompt": prompt_column, "answer": answer_column}
    options = EvalOptions(
        policy=policy,
        tasks=tasks,
        modes=names,
        num_samples=samples,
        out=out,
        limit=limit,
        recipe=recipe,
        overrides=overrides or [],
        base=base,
        against=against,
        seed=seed,
        temperature=temperature,
        numeric_instruction=numeric_instruction,
        is_enforced=enforce,
        saved=from_trajectories,
        keeps_verdicts=keep_verdicts,
        table={name: value for name, value in table.items() if value is not None},
        server=ServerOptions(model, api_key_env, _fields(request or []), concurrency),
    )
    eval_modes.run(options, console())


@app.command()
def alignment(
    policy: Annotated[
        str, typer.Argument(help="A run, a model directory, a model's name, or the URL of an OpenAI-compatible server.")
    ],
    tasks: Tasks = "held_out",
    samples: Annotated[int, typer.Option(min=2, help="Attempts per task; 32 decide between strong and weak.")] = 32,
    mode: Annotated[str | None, typer.Option(help="Mode to sample in; the recipe's first effort by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results; runs/alignment-POLICY by default.")
    ] = None,
    limit: Limit = None,
    recipe: Recipe = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    verifier: Verifier = None,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    level_column: Annotated[
        str | None, typer.Option(help="What tasks name their level in; difficulty or level by default.")
    ] = None,
    model: Model = None,
    api_key_env: KeyName = None,
    concurrency: Concurrency = 32,
    overrides: Overrides = None,
) -> None:
    """Measure pass@k before any RL, and advise on which tricks can work.

    By source and difficulty, with intervals. Interrupted, the same command goes on.

    Example: ponder eval alignment models/smollm2 --recipe smollm2 --tasks data/math.jsonl --samples 32
    """
    from launch.evaluation import alignment as eval_alignment
    from launch.evaluation.question import EvalOptions, ServerOptions
    from launch.terminal import console

    table: dict[str, Any] = {"verifier": verifier, "prompt": prompt_column, "answer": answer_column}
    table["meta"] = None if level_column is None else (level_column,)
    options = EvalOptions(
        policy=policy,
        tasks=tasks,
        modes=mode,
        num_samples=samples,
        out=out,
        limit=limit,
        recipe=recipe,
        overrides=overrides or [],
        seed=seed,
        temperature=temperature,
        table={name: value for name, value in table.items() if value is not None},
        server=ServerOptions(model, api_key_env, {}, concurrency),
    )
    eval_alignment.run(options, console(), level=level_column)


@app.command()
def search(
    policy: Annotated[str, typer.Option(help="A run, a model directory, or a model's name.")],
    searches: Annotated[
        str,
        typer.Option("--search", help="Comma-separated: beam:2x4, lookahead:2x4x1, tree:20x4, revisions:4."),
    ] = "",
    samples: Annotated[int, typer.Option(min=2, help="Independent attempts per task.")] = 16,
    tasks: Tasks = "held_out",
    effort: Annotated[str | None, typer.Option(help="Mode to search in; the recipe's first effort by default.")] = None,
    aggregate: Annotated[
        str, typer.Option(help="Step scores as one number: last, min, product, mean, soft_min.")
    ] = "min",
    out: Annotated[Path | None, typer.Option(help="Directory of the results; runs/search-POLICY by default.")] = None,
    limit: Limit = None,
    recipe: Recipe = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    max_step_tokens: Annotated[int, typer.Option(min=1, help="Longest step of a search.")] = 512,
    max_depth: Annotated[int, typer.Option(min=1, help="Most steps of a search.")] = 40,
    bins: Annotated[int, typer.Option(min=1, help="Bins of difficulty for the mix of methods.")] = 5,
    coreset: Annotated[
        bool, typer.Option("--coreset", help="Also: in what order should a verifier look at the samples?")
    ] = False,
    verifier: Verifier = None,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    overrides: Overrides = None,
) -> None:
    """Choose among attempts, and search for them, with step scores.

    Accuracy against generated tokens of each method, compared with majority voting at equal tokens. Interrupted, the
    same command goes on.

    Example: ponder eval search --policy runs/quickstart --search beam:2x4,tree:20x4 --samples 32
    Also: ponder eval runs/quickstart --search beam:2x4,tree:20x4 --samples 32
    """
    from launch.search import job as eval_search
    from launch.terminal import console

    table = {"verifier": verifier, "prompt": prompt_column, "answer": answer_column}
    options = eval_search.SearchOptions(
        policy=policy,
        tasks=tasks,
        searches=searches,
        num_samples=samples,
        effort=effort,
        aggregate=aggregate,
        out=out,
        limit=limit,
        recipe=recipe,
        overrides=overrides or [],
        seed=seed,
        temperature=temperature,
        max_step_tokens=max_step_tokens,
        max_depth=max_depth,
        num_bins=bins,
        coreset=coreset,
        table={name: value for name, value in table.items() if value is not None},
    )
    eval_search.run(options, console())


def _fields(texts: list[str]) -> dict[str, dict[str, Any]]:
    """`MODE=JSON` options by mode. Raises ValueError for one that is not that."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        mode, _, value = text.partition("=")
        try:
            fields = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                f'--request {text!r} must read MODE=JSON, for example low={{"top_p": 0.9}}: {error}'
            ) from error
        if not mode or not isinstance(fields, dict):
            raise ValueError(f"--request {text!r} must read MODE=JSON with an object of fields")
        found.setdefault(mode, {}).update(fields)
    return found

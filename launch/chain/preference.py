"""A stage of preference optimization: attempts, pairs, optimization; each is kept when it is finished.

Runs in a run directory: groups/ holds the attempts as every record of groups does, so `ponder show` pages through them;
pairs.parquet the pairs as tokens, pairs.json what became of the attempts; model/ what came out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from budgets.effort import token_budgets
from launch import cluster, phases, plugins, work
from launch.batch_policies import tokenizer_fingerprint
from launch.chain import optimize
from launch.chain.config import PreferenceStage
from launch.chain.pair_files import verified_rows
from launch.config import RunConfig
from launch.manifest import write_json
from launch.rundir import RunDirectory
from launch.work import Work
from rl.preference.config import FilePairs, PairsConfig, RecordedPairs, SampledPairs
from rl.preference.pairs import Candidate, Pair, PairSet, build_pairs
from rl.verdict import CORRECT_AT
from rollout.schema import Finish, Job, Purpose, Sampling, ScoredGroup, Task, TokenBudget

if TYPE_CHECKING:  # they import Ray, which must wait for a session
    from rl.record import Settled

ATTEMPTS, PAIRS, OPTIMIZE = "attempts", "pairs", "preference optimization"
TASKS_A_FILE = 64
COLUMNS = ["task_key", "token_ids", "sampled", "prompt_len", "score", "finish"]
SCHEMA = pa.schema(
    [("task_key", pa.string()), *((name, pa.list_(pa.int32())) for name in ("prompt", "chosen", "rejected"))]
)


def run(stage: PreferenceStage, config: RunConfig, directory: RunDirectory, terminal: Console) -> None:
    """The whole stage, or what is left of it. Raises ValueError when the attempts give too few pairs."""
    with work.session(config, directory, terminal) as job:
        tasks = phases.prepare(job).train
        pairs = directory.root / "pairs.parquet"
        if not pairs.is_file():
            if isinstance(stage.pairs, SampledPairs):
                with job.phase(ATTEMPTS, total=min(stage.pairs.num_tasks, len(tasks))):
                    asyncio.run(_attempt(job, stage.pairs, tasks))
            with job.phase(PAIRS):
                _make_pairs(job, stage, pairs)
        if directory.has_model(directory.model):
            return
        with job.phase(OPTIMIZE, total=stage.optimize.num_steps):
            result = cluster.run_isolated(
                optimize.preference,
                stage.optimize,
                num_threads=stage.optimize.num_threads,
                on_progress=lambda report: job.console.progress(report[0], note=f"loss {report[1]:.3f}"),
                pairs_file=str(pairs),
                model_dir=str(directory.start_model),
                out_dir=str(directory.model),
                seed=config.run.seed,
            )
            write_json(directory.root / "preference.json", result)


# ------------------------------------------------------------------------------------------------ attempts


async def _attempt(job: Work, wanted: SampledPairs, tasks: Sequence[Task]) -> None:
    """Attempts at the first tasks of the split, a file of groups for every `TASKS_A_FILE`; what is there stays."""
    from launch import build
    from rewards.actor import start_judge
    from rl.record import Recorder

    config, directory = job.config, job.directory
    tasks = tasks[: wanted.num_tasks]
    verifiers = plugins.verifier_targets(config.rewards, tasks)
    budgets = _budgets(config, wanted)
    recorder = Recorder(directory.groups)
    starts = range(0, len(tasks), TASKS_A_FILE)
    missing = [start for start in starts if not (directory.groups / _file_name(start)).is_file()]
    if not missing:
        return
    engines = await build.in_thread(build.start_engine_pool, config, directory, directory.start_model)
    judge = await build.in_thread(start_judge, config.rewards, verifiers, directory.reward_failures)
    try:
        for start in missing:
            numbers = range(start, min(start + TASKS_A_FILE, len(tasks)))
            jobs = [_job(config, wanted, n, tasks[n], budgets[n % len(budgets)]) for n in numbers]
            settled = await asyncio.gather(*(_answered(one, engines, judge, step=_step(start)) for one in jobs))
            await recorder.write_evaluation(_step(start), settled)
            job.console.progress(numbers[-1] + 1, note="tasks")
    finally:
        engines.close()


async def _answered(job: Job, engines: Any, judge: Any, *, step: int) -> Settled:
    from rl.record import Fate, Settled

    group = await engines.generate(job)
    outcomes = await judge.judge(group)
    scored = ScoredGroup(group=group, outcomes=outcomes, steps=(None,) * job.num_siblings)
    return Settled(scored=scored, fate=Fate(name="evaluated", step=step, reason="sampled"))


def _job(config: RunConfig, wanted: SampledPairs, number: int, task: Task, budget: TokenBudget) -> Job:
    rollout = config.rollout
    return Job(
        group_id=f"pairs-{number}-{task.key}",
        task=task,
        num_siblings=wanted.group_size,
        budget=budget,
        sampling=Sampling(
            temperature=wanted.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            seed=config.run.seed * 1_000_003 + number,
        ),
        purpose=Purpose.EVAL,
    )


def _budgets(config: RunConfig, wanted: SampledPairs) -> list[TokenBudget]:
    known = token_budgets(config.budgets)
    names = wanted.efforts or tuple(known)
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"pairs.efforts names {', '.join(unknown)}, and the recipe's efforts are {', '.join(known)}")
    return [known[name] for name in names]


def _step(start: int) -> int:
    return start // TASKS_A_FILE + 1


def _file_name(start: int) -> str:
    return f"eval-{_step(start):06d}.parquet"


# ------------------------------------------------------------------------------------------------ pairs


def _make_pairs(job: Work, stage: PreferenceStage, path: Path) -> None:
    wanted, seed = stage.pairs, job.config.run.seed
    if isinstance(wanted, FilePairs):
        made = _of_files(job, wanted, max_length=stage.optimize.max_length)
    else:
        made = build_pairs(
            _candidates(job, wanted),
            max_per_task=wanted.max_per_task,
            match=wanted.match,
            max_length=stage.optimize.max_length,
            seed=seed,
        )
    report = {"num_pairs": len(made.pairs), "num_tasks": made.num_tasks, "left_out": dict(made.left_out)}
    report |= mean_lengths(made.pairs)
    write_json(path.with_suffix(".json"), report)
    if len(made.pairs) < wanted.min_pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items()) or "no attempts at all"
        raise ValueError(
            f"{made.num_tasks} tasks gave {len(made.pairs)} pairs, fewer than pairs.min_pairs = {wanted.min_pairs}: "
            f"{reasons}; take tasks that the model solves sometimes, more of them, or more attempts at each"
        )
    save_pairs(path, made.pairs)


def _candidates(job: Work, wanted: PairsConfig) -> list[Candidate]:
    if isinstance(wanted, RecordedPairs):
        runs = [RunDirectory.open(Path(name)) for name in wanted.runs]
        own = tokenizer_fingerprint(job.directory.start_model)
        for run_ in runs:
            if tokenizer_fingerprint(run_.newest_model()) != own:
                raise ValueError(f"{run_.root} was sampled with another tokenizer than the model's; take other runs")
        return [found for run_ in runs for found in read_candidates(run_.groups)]
    return read_candidates(job.directory.groups)


def read_candidates(groups: Path) -> list[Candidate]:
    """Every recorded attempt of a folder of groups. Raises ValueError when there is none."""
    files = sorted(groups.glob("*.parquet"))
    if not files:
        raise ValueError(f"{groups} holds no recorded groups to make pairs of")
    return [_candidate(row) for file in files for row in pq.read_table(file, columns=COLUMNS).to_pylist()]


def _candidate(row: dict[str, Any]) -> Candidate:
    sampled = row["sampled"][row["prompt_len"] :]
    first = sampled.index(True) if True in sampled else len(sampled)
    score = row["score"]
    return Candidate(
        task_key=row["task_key"],
        token_ids=tuple(row["token_ids"]),
        num_given=row["prompt_len"] + first,
        is_right=None if score is None or row["finish"] == Finish.ABORTED else score >= CORRECT_AT,
        is_own=all(sampled[first:]),
    )


def _of_files(job: Work, wanted: FilePairs, *, max_length: int) -> PairSet:
    """Rows whose verdicts agree with them, rendered in a process of their own."""
    config = job.config
    rows, left_out = verified_rows(wanted, config)
    budgets = token_budgets(config.budgets)
    effort = wanted.effort or next(iter(budgets))
    if effort not in budgets:
        raise ValueError(f"pairs.effort is {effort!r}, and the recipe's efforts are {', '.join(budgets)}")
    pairs: list[Pair] = cluster.run_isolated(
        optimize.rendered,
        config.format,
        rows,
        num_threads=1,
        instruction=budgets[effort].instruction,
        model_dir=str(job.directory.start_model),
    )
    kept = [p for p in pairs if len(p.prompt) + max(len(p.chosen), len(p.rejected)) <= max_length]
    if len(kept) < len(pairs):
        left_out["pair longer than max_length"] = len(pairs) - len(kept)
    return PairSet(pairs=tuple(kept), num_tasks=len({row["prompt"] for row in rows}), left_out=left_out)


def mean_lengths(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Mean tokens of chosen and rejected responses: far apart, they say that length would be learned."""
    if not pairs:
        return {"chosen_tokens": None, "rejected_tokens": None}
    return {
        "chosen_tokens": round(sum(len(p.chosen) for p in pairs) / len(pairs), 3),
        "rejected_tokens": round(sum(len(p.rejected) for p in pairs) / len(pairs), 3),
    }


def save_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Written aside and renamed."""
    aside = path.with_name(f".{path.name}.part")
    pq.write_table(pa.Table.from_pylist([asdict(p) for p in pairs], schema=SCHEMA), aside, compression="zstd")
    aside.replace(path)

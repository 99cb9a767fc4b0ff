"""The summary has exactly the promised form, and its speeds are totals by totals."""

from pathlib import Path

from launch.summary import summarize
from rl.report.curves import series_of
from rl.report.data import RunData, evaluations_of

SECONDS = {"cold_start": 100.0, "train": 200.0, "eval": 5.0, "total": 320.0}


def run_with(numbers: dict[str, list[tuple[int, float | None]]]) -> RunData:
    series = {name: series_of(name, rows) for name, rows in numbers.items()}
    return RunData(
        directory=Path("run"),
        phases={},
        series=series,
        evaluations=evaluations_of(series.values()),
        config={},
        manifest={},
        summary={},
    )


def evaluation(step: int, effort: str, mode: str, accuracy: float) -> dict[str, list[tuple[int, float | None]]]:
    values = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "thinking_tokens": 20.0}
    return {f"eval/{effort}/{mode}/{name}": [(step, value)] for name, value in values.items()}


def test_the_summary_has_the_promised_form() -> None:
    numbers = evaluation(0, "high", "sampled", 0.4)
    for name, rows in evaluation(9, "high", "sampled", 0.7).items():
        numbers[name] += rows
    numbers |= evaluation(9, "high", "greedy", 0.8)
    summary = summarize(run_with(numbers), seconds=SECONDS, peak_gib=3.14159)
    assert list(summary) == ["seconds", "tokens_per_s", "peak_rss_gib", "efforts", "greedy"]
    assert summary["seconds"] == SECONDS
    assert summary["peak_rss_gib"] == 3.142
    before = {"accuracy": 0.4, "low": 0.35, "high": 0.45, "thinking_tokens": 20.0}
    assert summary["efforts"]["high"]["before"] == before
    assert summary["efforts"]["high"]["after"]["accuracy"] == 0.7
    assert summary["greedy"]["high"]["before"] is None
    assert summary["greedy"]["high"]["after"]["accuracy"] == 0.8


def test_speeds_are_totals_by_totals() -> None:
    summary = summarize(
        run_with(
            {
                "generate/tokens_per_s": [(1, 100.0), (2, 400.0)],
                "time/generate_s": [(1, 3.0), (2, 1.0)],
                "learner/loss_tokens": [(1, 300.0), (2, 400.0)],
                "time/learn_s": [(1, 1.0), (2, 1.0)],
            }
        ),
        seconds=SECONDS,
        peak_gib=1.0,
    )
    assert summary["tokens_per_s"] == {"generate": 175.0, "train": 350.0}  # 700 tokens in 4 s and in 2 s


def test_a_run_without_steps_has_no_speeds() -> None:
    assert summarize(run_with({}), seconds=SECONDS, peak_gib=1.0)["tokens_per_s"] == {"generate": None, "train": None}

r"""How fast are mathematical answers verified, beside plain math-verify in the same run?

Answers in the style of GSM8K (a worked solution and a number) and of MATH-500 (boxed fractions, roots, tuples,
intervals, polynomials, matrices), three in five of them right, some in another spelling. Both sides have two worker
processes of the same pool and are measured in turn, three times; medians are reported.

    ratio_cold     answers per second over those of math-verify, every answer asked once and nothing cached
    ratio_cached   the same where every answer is asked eight times, as groups of attempts repeat answers
    p99_easy_ms    99th percentile of the time for one easy answer (a plain number), asked alone
    hangs          answers, bombs among them, without a verdict within the time limit plus one second

`--data` takes JSONL files instead of the generator: `reference` (or `answer`, behind a `####` if there is one), and
`completion` (or else right and wrong answers are made of the references).
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from reflexivity import mutants, sample
from result import arguments, finish

from rewards.config import RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.outcome import Sample
from rewards.sandbox import ReplyStatus, WorkerPool
from rewards.verifier import BUILT_IN_VERIFIERS
from rollout.schema import Status

LIMIT_S = 3.0
ROUNDS = 3
REPEATS = 8
GROUP = 64
SANDBOX = SandboxConfig(num_workers=2, max_seconds=LIMIT_S)
BOMBS = [r"9^{9^{9^9}}", r"(10^8)!", r"\sum_{k=1}^{10^9} k", "(" * 400 + "1" + ")" * 400, "x" * 10**6, r"2^{99999999}"]


def plain(pair: tuple[str, str]) -> bool:
    """What a training script does with math-verify, its signals off. Runs in a worker."""
    from math_verify import parse, verify

    reference, text = pair
    gold = parse(f"${reference}$", parsing_timeout=None)
    return bool(verify(gold, parse(text, parsing_timeout=None), timeout_seconds=None))


def generated(count: int, chance: random.Random) -> list[tuple[str, str]]:
    """(reference, completion) pairs, half in each style, nearly all distinct."""
    pairs = []
    for index in range(count):
        reference, other = _number(chance) if index % 2 else _formula(chance)
        if chance.random() < 0.4:
            other = next((text for _, text in mutants(other, chance)), "0")
        work = f"First {chance.randint(2, 99)} and then {chance.randint(2, 99)} more.\n" * chance.randint(1, 6)
        pairs.append((reference, f"{work}#### {other}" if index % 4 == 1 else rf"{work}So it is $\boxed{{{other}}}$."))
    return pairs


def _number(chance: random.Random) -> tuple[str, str]:
    value = chance.randint(0, 200_000)
    return str(value), chance.choice([str(value), str(value), f"{value:,}", f"{value}.00"])


def _formula(chance: random.Random) -> tuple[str, str]:
    """A reference and the same answer, spelled alike or otherwise."""
    a, b, c = (chance.randint(2, 97) for _ in range(3))
    return chance.choice(
        [
            (rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{a}}}{{{b}}}"),
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
            (rf"{a} + {b}i", rf"{b}i+{a}"),
            (rf"\left( {a}, \frac{{{b}}}{{{c}}} \right)", rf"({a}, {b}/{c})"),
            (rf"(-\infty, {a}] \cup ({a + b}, \infty)", rf"({a + b},\infty)\cup(-\infty,{a}]"),
            (rf"x^2 - {a + b}x + {a * b}", rf"(x-{a})(x-{b})"),
            (rf"{a}x^2 + {b}x - {c}", rf"{b}x + {a}x^2 - {c}"),
            (rf"\begin{{pmatrix}} {a} & {b} \\ {c} & 1 \end{{pmatrix}}",) * 2,
            (rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}}\pi"),
            (rf"{a}, {b}, -{c}", rf"-{c}, {a}, {b}"),
            (rf"{a}\text{{ cm}}^2", rf"{a} \text{{ square centimeters}}"),
            (rf"y = {a}x + {b}", rf"{a}x + {b}"),
        ]
    )


def read(paths: Sequence[Path], chance: random.Random) -> list[tuple[str, str]]:
    """Pairs of the files."""
    pairs = []
    for line in (line for path in paths for line in path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        reference = str(row.get("reference", row.get("answer"))).rpartition("####")[2].strip()
        answer = reference
        if chance.random() < 0.4:
            answer = next((text for _, text in mutants(reference, chance)), "0")
        pairs.append((reference, str(row.get("completion", rf"So it is $\boxed{{{answer}}}$."))))
    return pairs


def as_sample(pair: tuple[str, str]) -> Sample:
    return sample(pair[0], "", text=pair[1])


def rate(run: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    run()
    return count / (time.perf_counter() - started)


async def judge_in_groups(judge: Judge, pairs: list[tuple[str, str]]) -> None:
    """As a run asks: some groups at a time, later ones while earlier verdicts are remembered."""
    for start in range(0, len(pairs), GROUP):
        await judge.judge([as_sample(pair) for pair in pairs[start : start + GROUP]])


def measure(pairs: list[tuple[str, str]], cache_size: int, pool: WorkerPool) -> tuple[float, float, float]:
    """Answers per second of ours and of plain math-verify, and the hit rate of the cache."""
    judge = Judge(RewardsConfig(sandbox=SANDBOX, cache_size=cache_size, deadline_s=3600), BUILT_IN_VERIFIERS)
    target = f"{Path(__file__).resolve()}:plain"
    warm = [as_sample((r"\int_0^1 x dx", rf"\boxed{{\frac{{1}}{{{n}}}}}")) for n in range(64)]
    try:
        asyncio.run(judge.judge(warm))
        pool.call(target, pairs[:64])
        before = judge.stats()
        ours = rate(lambda: asyncio.run(judge_in_groups(judge, pairs)), len(pairs))
        theirs = rate(lambda: pool.call(target, pairs), len(pairs))
        stats = {name: judge.stats()[name] - before[name] for name in ("cached", "cache_missed")}
    finally:
        judge.close()
    return ours, theirs, stats["cached"] / max(1, sum(stats.values()))


def latencies(pairs: list[tuple[str, str]]) -> tuple[list[float], int]:
    """Milliseconds for each pair asked alone, and how many (bombs included) had no verdict in time."""

    async def ask(judge: Judge) -> tuple[list[float], int]:
        times, hangs = [], 0
        for reference, text in pairs:
            started = time.perf_counter()
            (outcome,) = await judge.judge([as_sample((reference, text))])
            times.append(1000 * (time.perf_counter() - started))
            hangs += outcome.status in (Status.TIMEOUT, Status.CRASH) or times[-1] > 1000 * (LIMIT_S + 1)
        for bomb in BOMBS:
            started = time.perf_counter()
            (outcome,) = await judge.judge([as_sample(("8", rf"\boxed{{{bomb}}}"))])
            hangs += outcome.score != 0.0 or time.perf_counter() - started > LIMIT_S + 1
        return times, hangs

    judge = Judge(RewardsConfig(sandbox=SANDBOX, cache_size=0, deadline_s=3600), BUILT_IN_VERIFIERS)
    try:
        return asyncio.run(ask(judge))
    finally:
        judge.close()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="JSONL files with answers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    count, rounds = (200, 1) if options.quick else (2000, ROUNDS)
    cold, cached, hit_rates = [], [], []
    pool = WorkerPool(num_workers=2, max_seconds=LIMIT_S, max_memory_mib=SANDBOX.max_memory_mib)
    try:
        for _ in range(rounds):
            pairs = read(options.data, chance) if options.data else generated(count, chance)
            cold.append(measure(pairs, 0, pool)[:2])
            repeated = pairs[: len(pairs) // 4] * REPEATS
            chance.shuffle(repeated)
            *rates, hit_rate = measure(repeated, 65_536, pool)
            cached.append(rates)
            hit_rates.append(hit_rate)
        failed = sum(reply.status is not ReplyStatus.OK for reply in pool.call(f"{__file__}:plain", pairs[:200]))
    finally:
        pool.close()
    easy = [_number(chance) for _ in range(count)]
    times, hangs = latencies([(reference, rf"\boxed{{{answer}}}") for reference, answer in easy])
    metrics = {
        "answers_per_s": statistics.median(ours for ours, _ in cold),
        "plain_answers_per_s": statistics.median(theirs for _, theirs in cold),
        "ratio_cold": statistics.median(ours / theirs for ours, theirs in cold),
        "ratio_cached": statistics.median(ours / theirs for ours, theirs in cached),
        "cache_hit_rate": statistics.median(hit_rates),
        "p99_easy_ms": statistics.quantiles(times, n=100)[98],
        "hangs": hangs,
    }
    details = {"answers": len(pairs), "rounds": rounds, "workers": 2, "cold": cold, "cached": cached, "failed": failed}
    finish("verifier_quick" if options.quick else "verifier", metrics, details, store=options.store)


if __name__ == "__main__":
    main()

"""How much of a bare packed forward's speed does the step-scoring service keep?

The same solutions are scored twice in this run, in turns: by a plain loop (sorted by length, as many as fit into
`batch_tokens` positions, one forward pass of the backbone, the head at the ends of steps), and by the service, a Ray
actor that gets one group at a time from many concurrent callers, packs them itself and sends scores back. Counted are
tokens of solutions a second, the median of ROUNDS rounds. Both sides use one thread.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from result import arguments, finish

ROUNDS = 5
BATCH_TOKENS = 8192


def model_dir(root: Path, *, quick: bool) -> str:
    """A random classifier: 8 layers of width 256, or a tiny one."""
    import torch

    from prm.models.discriminative import new_classifier, save_classifier
    from rl.learner.config import ScratchModel
    from rl.learner.scratch import build_model

    width, layers = (64, 2) if quick else (256, 8)
    spec = ScratchModel(
        hidden_size=width, num_layers=layers, intermediate_size=2 * width, num_heads=width // 32, max_positions=2048
    )
    build_model(spec, str(root / "base"), seed=0)
    torch.manual_seed(0)
    model = new_classifier(str(root / "base"), "hard", "float32")
    save_classifier(model, str(root / "base"), str(root / "prm"), {"kind": "discriminative", "labels": "hard"})
    return str(root / "prm")


def solutions(count: int, longest: int) -> list[tuple[np.ndarray[Any, Any], list[tuple[int, int]]]]:
    """Token ids and spans of steps, of lengths as reasoning has them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        size = int(np.clip(rng.lognormal(np.log(longest / 4), 0.5), 32, longest))
        cuts = [16, *sorted(rng.choice(np.arange(17, size), size=min(8, size // 16), replace=False).tolist()), size]
        ids = rng.integers(8, 40, size).astype(np.int32)
        found.append((ids, list(itertools.pairwise(cuts))))
    return found


class Bare:
    """What anybody would write."""

    def __init__(self, path: str) -> None:
        import torch

        from prm.models.discriminative import load_classifier

        torch.set_num_threads(1)
        self._torch = torch
        self._model = load_classifier(path, "float32")[0].eval()

    def score(self, given: list[tuple[np.ndarray[Any, Any], list[tuple[int, int]]]]) -> list[list[float]]:
        torch = self._torch
        order = sorted(range(len(given)), key=lambda i: -len(given[i][0]))
        scores: list[list[float]] = [[] for _ in given]
        while order:
            width = len(given[order[0]][0])
            rows, order = order[: BATCH_TOKENS // width], order[BATCH_TOKENS // width :]
            ids = torch.zeros(len(rows), width, dtype=torch.int64)
            for at, index in enumerate(rows):
                ids[at, : len(given[index][0])] = torch.from_numpy(given[index][0].astype(np.int64))
            with torch.inference_mode():
                hidden = self._model.model(input_ids=ids, use_cache=False).last_hidden_state
                for at, index in enumerate(rows):
                    ends = [end - 1 for _, end in given[index][1]]
                    scores[index] = torch.softmax(self._model.score(hidden[at, ends]), -1)[:, 1].tolist()
        return scores


def groups_of(given: list[tuple[np.ndarray[Any, Any], list[tuple[int, int]]]], size: int) -> list[list[Any]]:
    """Items in groups, as the training loop would bring them."""
    from prm.items import ScoreItem

    items = [ScoreItem(token_ids=ids, sampled=np.arange(len(ids)) >= 16, spans=tuple(spans)) for ids, spans in given]
    return [items[at : at + size] for at in range(0, len(items), size)]


async def serve(client: Any, groups: list[list[Any]]) -> list[list[float]]:
    """All groups at once through the client's own way to the actor, back-pressure included."""
    answers = await asyncio.gather(*(client.ask(group) for group in groups))
    return [answer.scores.tolist() for found in answers for answer in found]


def main() -> None:
    parser = arguments(__doc__ or "")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    given = solutions(32 if options.quick else 192, 128 if options.quick else 768)
    tokens = sum(len(ids) for ids, _ in given)
    with tempfile.TemporaryDirectory() as place:
        path = model_dir(Path(place), quick=options.quick)
        import ray

        from prm.actor_model import start_model_scorer
        from prm.models.config import DiscriminativePrmConfig

        ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        config = DiscriminativePrmConfig(path=path, batch_tokens=BATCH_TOKENS, max_tokens=2048)
        client = start_model_scorer(config, state_dir=str(Path(place) / "service"))
        bare, groups = Bare(path), groups_of(given, 8)
        seconds: dict[str, list[float]] = {"bare": [], "service": []}
        scores: dict[str, list[list[float]]] = {}
        loop = asyncio.new_event_loop()
        for number in range(ROUNDS + 1):
            start = time.perf_counter()
            scores["bare"] = bare.score(given)
            middle = time.perf_counter()
            scores["service"] = loop.run_until_complete(serve(client, groups))
            end = time.perf_counter()
            if number:  # the first round warms up
                seconds["bare"].append(middle - start)
                seconds["service"].append(end - middle)
            print(f"bare {middle - start:.2f} s, service {end - middle:.2f} s", file=sys.stderr, flush=True)
        client.close()
        ray.shutdown()
    worst = max(abs(a - b) for x, y in zip(*scores.values(), strict=True) for a, b in zip(x, y, strict=True))
    speed = {name: tokens / statistics.median(values) for name, values in seconds.items()}
    ratios = [b / s for b, s in zip(seconds["bare"], seconds["service"], strict=True)]
    metrics = {
        "ratio_bare_forward": statistics.median(ratios),
        "service_tokens_per_s": speed["service"],
        "bare_tokens_per_s": speed["bare"],
        "largest_difference": worst,
    }
    details = {"seconds": seconds, "tokens": tokens, "solutions": len(given), "batch_tokens": BATCH_TOKENS}
    finish("prm_speed_quick" if options.quick else "prm_speed", metrics, details, store=options.store)


if __name__ == "__main__":
    main()

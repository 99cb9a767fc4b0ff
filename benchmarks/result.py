"""What every benchmark prints and stores: one JSON object {"name", "metrics", "details"} as its last line.

`--store` also writes it to benchmarks/results/NAME.json with the date, the versions,
the machine and the command that made it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.manifest import machine, versions

RESULTS = Path(__file__).parent / "results"


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version that only shows that the benchmark works")
    parser.add_argument("--store", action="store_true", help="write the result to benchmarks/results/")
    return parser


def finish(name: str, metrics: Mapping[str, float], details: Mapping[str, Any], *, store: bool) -> None:
    """Print the result as the last line; store it when asked."""
    result = {"name": name, "metrics": dict(metrics), "details": dict(details)}
    if store:
        context = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": "python " + shlex.join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "versions": versions(),
            "machine": machine(),
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result | context, indent=1) + "\n")
    print(json.dumps(result))

"""A query against a real SQLite database: right when it returns the rows that the reference query returns.

    ponder rewards check examples/sql.py:verify --data examples/sql.jsonl

The task's column `database` names a database file, or an .sql script from which one is built in memory.
"""

import re
import sqlite3
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path

from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.plugins.contract import declare
from rollout.schema import Outcome, Status

MAX_SECONDS, MAX_ROWS, MAX_CELL_CHARS = 0.25, 10_000, 100_000
FENCED = re.compile(r"```(?:sql)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


@lru_cache(maxsize=32)
def connect(name: str) -> sqlite3.Connection:
    path = Path(__file__).parent / name  # an absolute name stays as it is
    if path.suffix == ".sql":
        database = sqlite3.connect(":memory:")
        database.executescript(path.read_text())
    else:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_CHARS)
    return database


def rows(database: sqlite3.Connection, query: str) -> list[tuple[object, ...]]:
    """Raises sqlite3.Error for a query that is wrong, not allowed or too slow, ValueError for too many rows."""
    deadline = time.monotonic() + MAX_SECONDS
    database.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
    found = database.execute(query).fetchmany(MAX_ROWS + 1)
    if len(found) > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows")
    return found


@declare(reads_thinking=False)
def verify(sample: Sample) -> Outcome:
    try:
        wanted = rows(database := connect(sample.meta["database"]), sample.reference)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    query = (FENCED.findall(sample.answer) or [sample.answer])[-1].strip()
    try:
        found = rows(database, query)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return unparseable(f"the query failed: {error}")
    ordered = re.search(r"\border\s+by\b", sample.reference, re.IGNORECASE)
    return judged(float(found == wanted if ordered else Counter(found) == Counter(wanted)))

"""Tasks from files, data sets and generators: what is read, and which row is named when it cannot be."""

import csv
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rollout.config import FilesSource, HuggingFaceSource, ReasoningGymSource, TasksConfig
from rollout.schema import Message, Task, task_key
from rollout.tasks.files import load_files
from rollout.tasks.huggingface import load_huggingface
from rollout.tasks.load import MAX_GENERATED, far_seed, load_tasks
from rollout.tasks.reasoning_gym import load_reasoning_gym

ROWS: list[dict[str, Any]] = [
    {"question": "1+1?", "answer": "so 2\n#### 2", "level": 1},
    {"question": "Zwei f\u00fcnf?", "answer": "#### 7", "level": 2},
]


def write(path: Path, rows: list[Any]) -> str:
    """Write rows in the format that the file's name asks for."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def gsm_style(path: str, **settings: Any) -> FilesSource:
    columns = {"prompt": "question", "meta": ["level"]}
    return FilesSource.model_validate(
        {"paths": [path], "columns": columns, "answer_pattern": r"####\s*(.+)", **settings}
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_file_format_gives_the_same_tasks(tmp_path: Path, suffix: str) -> None:
    tasks = load_files(gsm_style(write(tmp_path / f"tasks{suffix}", ROWS), system="Be brief."))
    assert [task.answer for task in tasks] == ["2", "7"]
    assert tasks[1].prompt == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Zwei f\u00fcnf?"),
    )
    assert tasks[0].key == task_key(tasks[0].prompt, "2")
    assert [int(task.meta["level"]) for task in tasks] == [1, 2]
    assert tasks[0].verifier == "math"


def test_patterns_limits_and_templates(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", ROWS[1:])
    write(tmp_path / "a.jsonl", ROWS[:1])
    source = gsm_style(str(tmp_path / "*.jsonl"), prompt_template="Q: {prompt} {x}")
    assert [task.prompt[0].content for task in load_files(source)] == ["Q: 1+1? {x}", "Q: Zwei f\u00fcnf? {x}"]
    assert len(load_files(source.model_copy(update={"limit": 1}))) == 1


def test_an_object_as_answer_reaches_the_verifier_as_json(tmp_path: Path) -> None:
    tests = {"inputs": ["1\n"], "outputs": ["yes"]}
    path = write(tmp_path / "tasks.jsonl", [{"prompt": "?", "answer": tests}])
    (task,) = load_files(FilesSource(paths=(path,), verifier="code"))
    assert json.loads(task.answer) == tests


def test_messages_skills_and_split_keys_come_from_columns(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = write(tmp_path / "t.jsonl", [{"prompt": turns, "answer": 3, "tags": ["a", "b"], "family": 9}])
    source = FilesSource.model_validate({"paths": [path], "columns": {"skills": "tags", "split_key": "family"}})
    (task,) = load_files(source)
    assert (task.answer, task.skills, task.meta["split_key"]) == ("3", ("a", "b"), "9")
    assert [m.role for m in task.prompt] == ["system", "user"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": "", "level": 1}, "row 3: a task must have an answer"),
        ({"question": "q", "answer": None, "level": 1}, "row 3: a task must have an answer"),
        ({"question": "q", "answer": "no mark", "level": 1}, "row 3: answer_pattern .* finds no answer in 'no mark'"),
        ({"question": " ", "answer": "#### 1", "level": 1}, "row 3: the prompt in column 'question' is empty"),
        ({"question": 5, "answer": "#### 1", "level": 1}, "row 3: a prompt must be text or a list of messages"),
        ({"answer": "#### 1", "level": 1}, r"row 3: there is no column 'question', only \['answer', 'level'\]"),
        ([1], "a row must be an object with named columns, row 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "tasks.jsonl", [*ROWS, row])
    with pytest.raises(ValueError, match=message):
        load_files(gsm_style(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"question": "q", "answer": "1"}\n{"question', "row 2"),
        ("t.json", '{"a": 1}', "must hold a list of objects"),
        ("t.json", "[", "is not valid .json"),
        ("t.parquet", "PAR1", "is not valid .parquet"),
        ("t.txt", "", r"must end in one of \['.csv', '.json', '.jsonl', '.parquet'\]"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_files(FilesSource.model_validate({"paths": [str(tmp_path / name)], "columns": {"prompt": "question"}}))
    assert name in str(caught.value) or "question" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("none.jsonl", "none*.jsonl"):
        with pytest.raises(ValueError, match=r"a task file must exist, .*none"):
            load_files(FilesSource(paths=(str(tmp_path / name),)))


@pytest.mark.parametrize("settings", [{"prompt_template": "x"}, {"answer_pattern": "("}, {"answer_pattern": "a(b)(c)"}])
def test_impossible_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        FilesSource.model_validate({"paths": ["x.jsonl"], **settings})


def test_saved_and_plain_data_set_directories(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": "1+1?", "answer": "2"}]
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain" / "test.jsonl", rows)
    for name in ("saved", "plain"):
        (task,) = load_huggingface(HuggingFaceSource(path=str(tmp_path / name), split="test"))
        assert (task.answer, task.prompt[0].content) == ("2", "1+1?")
        with pytest.raises(ValueError, match="no split 'dev', only"):
            load_huggingface(HuggingFaceSource(path=str(tmp_path / name), split="dev"))


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the data set .*absent' cannot be loaded"):
        load_huggingface(HuggingFaceSource(path=str(tmp_path / "absent")))


def test_a_reasoning_gym_task_carries_what_its_scorer_needs() -> None:
    from reasoning_gym.factory import get_score_answer_fn

    (task, _) = load_reasoning_gym(ReasoningGymSource(family="knights_knaves", num_tasks=2), seed=7)
    assert task.verifier == "reasoning_gym"
    entry = {"question": task.prompt[-1].content, "answer": task.answer, "metadata": task.meta["metadata"]}
    score = get_score_answer_fn(task.meta["family"])
    assert score(answer=task.answer, entry=entry) == 1.0
    assert score(answer="nobody", entry=entry) < 1.0
    json.dumps(dict(task.meta))


@pytest.mark.parametrize(
    ("family", "params", "message"),
    [
        ("no_such", {}, "no reasoning-gym family 'no_such'; families: .*chain_sum"),
        ("chain_sum", {"min_tems": 2}, "refuses params"),
        ("chain_sum", {"min_terms": 9, "max_terms": 2}, "refuses params"),
        ("chain_sum", {"seed": 2}, "seed and size of a family are set by"),
    ],
)
def test_a_bad_family_is_explained(family: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_reasoning_gym(ReasoningGymSource(family=family, num_tasks=3, params=params), seed=0)


def test_train_and_held_out_seeds_never_meet() -> None:
    seeds = [0, 1, 2, 3, 10**9, *random.Random(0).sample(range(2**62), 200)]
    for seed in seeds:
        train, held_out = far_seed(seed, "train"), far_seed(seed, "held_out")
        assert 0 <= train < train + MAX_GENERATED <= held_out < held_out + MAX_GENERATED <= 2**32


def generate_numbers(*, num_tasks: int, seed: int, offset: int = 0) -> list[Task]:
    numbers = random.Random(seed).sample(range(10_000), num_tasks)
    prompts = [(Message(role="user", content=str(n + offset)),) for n in numbers]
    return [Task(key=task_key(p, "0"), prompt=p, answer="0", verifier="math", source="numbers") for p in prompts]


def procedural_config(**source: Any) -> TasksConfig:
    train = {"type": "procedural", "name": "numbers", "num_tasks": 20, **source}
    return TasksConfig.model_validate({"train": train, "held_out": {"num_tasks": 5}})


def test_a_registered_generator_is_a_source() -> None:
    registry = {"numbers": generate_numbers}
    splits = load_tasks(procedural_config(), seed=1, procedural=registry)
    assert (len(splits.train), len(splits.held_out)) == (15, 5)
    again = load_tasks(procedural_config(), seed=1, procedural=registry)
    assert [t.key for t in again.train] == [t.key for t in splits.train]
    other = load_tasks(procedural_config(), seed=2, procedural=registry)
    assert [t.key for t in other.train] != [t.key for t in splits.train]


def test_bad_generators_are_explained() -> None:
    registry = {"numbers": generate_numbers, "none": lambda **_: [], "rows": lambda **_: [{}]}
    for source, message in (
        ({"name": "nmbers"}, r"no task generator is registered as 'nmbers'; registered: \['none', 'numbers', 'rows'\]"),
        ({"params": {"of": 1}}, "does not take params"),
        ({"name": "none"}, "must not be empty, tasks.train of type 'procedural'"),
        ({"name": "rows"}, "must return tasks, got dict"),
    ):
        with pytest.raises(ValueError, match=message):
            load_tasks(procedural_config(**source), seed=0, procedural=registry)


def test_loading_tasks_loads_no_torch() -> None:
    script = (
        "import sys; from rollout.config import *; from rollout.tasks.load import load_tasks\n"
        "train = {'type': 'reasoning_gym', 'family': 'chain_sum', 'num_tasks': 9}\n"
        "load_tasks(TasksConfig(train=train, held_out={'num_tasks': 2}), seed=0, procedural={})\n"
        "import datasets, rollout.actor\n"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=Path(__file__).parents[3])


def test_a_mixture_names_its_parts(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "answer": "1"} for n in range(8)]
    mixture = {
        "type": "mixture",
        "sources": {
            "general": {"type": "files", "paths": [write(tmp_path / "general.jsonl", rows)]},
            "numbers": {"type": "procedural", "name": "numbers", "num_tasks": 12},
        },
    }
    settings = {"train": mixture, "held_out": {"num_tasks": 5}, "seed": 3}
    config = TasksConfig.model_validate(settings)
    assert [source.type for source in config.plain_sources()] == ["files", "procedural"]
    splits = load_tasks(config, seed=config.seed_in(9), procedural={"numbers": generate_numbers})
    tasks = (*splits.train, *splits.held_out)
    assert Counter(task.source for task in tasks) == {"general": 8, "numbers": 12}
    assert len(splits.held_out) == 5
    with pytest.raises(ValueError, match="at least 2 items"):
        TasksConfig.model_validate({"train": {"type": "mixture", "sources": {"a": mixture["sources"]["general"]}}})


def test_an_empty_part_of_a_mixture_is_named() -> None:
    parts = {n: {"type": "procedural", "name": n, "num_tasks": 4} for n in ("numbers", "none")}
    config = TasksConfig.model_validate({"train": {"type": "mixture", "sources": parts}})
    with pytest.raises(ValueError, match=r"must not be empty, tasks\.train\.sources\.none of type 'procedural' is"):
        load_tasks(config, seed=0, procedural={"numbers": generate_numbers, "none": lambda **_: []})

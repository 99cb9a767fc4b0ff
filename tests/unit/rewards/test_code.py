"""Code rewards: which tests are read, which program is taken, what passes."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code.cases import BadTestsError, parse_cases
from rewards.code.compare import is_same_output, is_same_value
from rewards.code.verify import check_reference, find_program, verify
from rollout.schema import Outcome, Status
from tests.fakes.rewards import kernel_grants_namespaces, sample

pytestmark = pytest.mark.skipif(not kernel_grants_namespaces(), reason="the kernel refuses namespaces")
DOUBLE = json.dumps({"inputs": ["1\n", "2\n", "30\n"], "outputs": ["2\n", "4", "60"]})
ADD = json.dumps({"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [3, [1, 2]]})


def judge(program: str, reference: str = DOUBLE, **settings: object) -> Outcome:
    return verify(sample(f"So:\n```python\n{program}\n```\n", reference, settings=settings))


@pytest.mark.parametrize(
    ("program", "score", "pass_rate", "reason"),
    [
        ("print(int(input()) * 2)", 1.0, 1.0, ""),
        ("n = int(input())\nprint(n + n if n < 9 else 0)", 0.0, 2 / 3, "test 2: wrong output"),
        ("print(2)", 0.0, 1 / 3, "test 1: wrong output"),
        ("def f(:", 0.0, 0.0, "test 0: exit status 1: SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", 0.0, 0.0, "test 0: wrong output"),
        ("print(int(input()) * 2)\nraise SystemExit(3)", 0.0, 0.0, "test 0: exit status 3"),
        ("import os\nos._exit(0)", 0.0, 0.0, "test 0: wrong output"),
    ],
)
def test_a_program_scores_1_only_when_all_tests_pass(program: str, score: float, pass_rate: float, reason: str) -> None:
    outcome = judge(program)
    assert (outcome.status, outcome.score, outcome.reason) == (Status.JUDGED, score, reason)
    assert outcome.parts == {"pass_rate": pytest.approx(pass_rate), "namespaces": 1.0}


@pytest.mark.parametrize(
    ("program", "score"),
    [
        ("def add(a, b):\n    print('noise')\n    return a + b", 1.0),
        ("class Solution:\n    def add(self, a: List[int], b: List[int]) -> List[int]:\n        return a + b", 1.0),
        ("add = lambda a, b: a", 0.0),
        ("def sum(a, b): return a + b", 0.0),
        ("class Any:\n    def __eq__(self, other): return True\ndef add(a, b): return Any()", 0.0),
        ("def add(a, b): raise SystemExit(0)", 0.0),
    ],
)
def test_a_function_is_called_and_its_value_compared_outside(program: str, score: float) -> None:
    assert judge(program, ADD).score == score


def test_a_program_may_end_after_the_first_failure_only() -> None:
    assert judge("print(4)").parts["pass_rate"] == pytest.approx(1 / 3)
    assert judge("print(4)", stop_at_first_failure=True).parts["pass_rate"] == 0.0


def test_packages_are_shown_where_they_are_allowed(tmp_path: object) -> None:
    with open(f"{tmp_path}/twice.py", "w") as file:
        file.write("def twice(n): return 2 * n\n")
    os.chmod(f"{tmp_path}", 0o755)
    program = "from twice import twice\nprint(twice(int(input())))"
    assert judge(program, packages=[str(tmp_path)]).score == 1.0
    assert "ModuleNotFoundError" in judge(program).reason


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\na\n```\nthen\n```py\nb\n```", "b\n"),
        ("```\na\n```", "a\n"),
        ("~~~python\na\n```\n~~~", "a\n```\n"),
        ("````\n```\na\n```\n````", "```\na\n```\n"),
        ("```python\na\n```\n```bash\nls\n```", None),
        ("```python\na\n```\n```python\nb", None),
        ("print(1)", None),
        ("```python\n\n```", None),
        ("", None),
    ],
)
def test_the_last_fenced_block_is_the_program(answer: str, program: str | None) -> None:
    assert find_program(answer) == program


def test_an_answer_without_a_program_scores_0() -> None:
    assert verify(sample("print(1)", DOUBLE)).status is Status.UNPARSEABLE_ANSWER
    long = "x = 1\n" * 20_000
    assert "characters" in judge(long).reason


@pytest.mark.parametrize(
    ("reference", "cases"),
    [
        ({"inputs": ["a"], "outputs": ["b"]}, [("a", "b", None)]),
        ({"inputs": [["a", "b"]], "outputs": [["c"]]}, [("a\nb", "c", None)]),
        ([{"input": "a", "output": "b", "testtype": "stdin"}], [("a", "b", None)]),
        ([{"input": "[1]\n2", "output": "3", "fn_name": "f"}], [([[1], 2], 3, "f")]),
        ({"test_cases": [{"type": "function_call", "fn_name": "f", "input": [1], "output": 2}]}, [([1], 2, "f")]),
    ],
)
def test_the_layouts_of_public_sets(reference: object, cases: list[tuple[object, object, str | None]]) -> None:
    assert [(c.given, c.expected, c.function) for c in parse_cases(json.dumps(reference))] == cases


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no", "not JSON"),
        ("[]", "no tests"),
        ("3", "no tests"),
        ('{"inputs": ["1"], "outputs": []}', "one length"),
        ('[{"input": "1"}]', "test 0 is not"),
        ('[{"input": 1, "output": 2}]', "must be texts, got int"),
        ('[{"input": 1, "output": 2, "fn_name": "f"}]', "list of its arguments"),
        ('[{"input": "x", "output": "1", "fn_name": "f"}]', "must be JSON"),
        ('[{"input": [], "output": 1, "fn_name": "os.system"}]', "must be a name"),
        ('[{"input": "", "output": "", "testtype": "functional"}]', "names none"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_tests_leave_the_answer_unjudged(reference: str, message: str) -> None:
    with pytest.raises(BadTestsError, match=message):
        parse_cases(reference)
    assert judge("print(1)", reference).status is Status.BAD_REFERENCE
    assert check_reference(sample("", reference)).status is Status.BAD_REFERENCE


def test_a_solution_in_the_data_must_pass_its_own_tests() -> None:
    assert check_reference(sample("", DOUBLE)).score == 1.0
    right, wrong = "print(int(input()) * 2)", "```python\nprint(2)\n```"
    assert check_reference(sample("", DOUBLE, meta={"solution": right})).score == 1.0
    assert check_reference(sample("", DOUBLE, meta={"solution": wrong})).score == 0.0


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("1 2\n3", "1\n2 3\n", True),
        ("0.3333333", "0.333333333", True),
        ("0.3334", "0.333333333", False),
        ("1", "1.0", True),
        ("1.0", "1", False),
        ("1_0", "10.0", False),
        ("nan", "nan", True),
        ("1e400", "1e308", False),
        ("yes", "YES", False),
        ("1 1", "1", False),
        ("", "", True),
    ],
)
def test_words_of_output(got: str, expected: str, same: bool) -> None:
    assert is_same_output(got, expected) is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (1.0000001, 1, False),
        (10**400, 1.0, False),
        (True, 1, True),
        ("1", 1, False),
        ([1, [2.0]], [1, [2]], True),
        ([1], 1, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
        (None, 0, False),
        (float("nan"), float("nan"), True),
    ],
)
def test_values_of_functions(got: object, expected: object, same: bool) -> None:
    assert is_same_value(got, expected) is same


def test_wrapped_values_are_read_both_ways_only_where_all_are_wrapped() -> None:
    wrapped = json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]})
    mixed = json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], 2]})
    assert judge("def f(a): return a", wrapped).score == 1.0
    assert judge("def f(a): return [a]", wrapped).score == 1.0
    assert judge("def f(a): return a", mixed).parts["pass_rate"] == 0.5


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_a_value_equals_itself_after_its_journey(value: object) -> None:
    assert is_same_value(json.loads(json.dumps(value)), value)

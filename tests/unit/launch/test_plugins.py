"""Names become code through entry points, dotted paths and files; errors say what was tried and what is expected."""

from pathlib import Path

import pytest

from launch import plugins
from launch.plugins import PluginError


def test_a_registered_name_is_a_target_and_nothing_is_imported() -> None:
    assert plugins.target("ponder.verifiers", "math") == "rewards.math_answer:verify"


def test_a_dotted_path_is_taken_as_it_is() -> None:
    assert plugins.target("ponder.verifiers", "my_package.rewards:score") == "my_package.rewards:score"


def test_a_file_becomes_an_absolute_target_and_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("def build(settings):\n    return settings['a'] + 1\n")  # a name that is taken
    monkeypatch.chdir(tmp_path)
    assert plugins.target("ponder.credit", "json.py:build") == f"{tmp_path}/json.py:build"
    assert plugins.load("ponder.credit", "json.py:build")({"a": 1}) == 2


def test_a_near_miss_names_the_nearest_and_what_was_tried() -> None:
    with pytest.raises(
        PluginError, match=r"did you mean 'math'.*exact, format, .*math, .*dotted path.*file.*must export"
    ):
        plugins.target("ponder.verifiers", "maths")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"gone\.py, which does not exist"):
        plugins.target("ponder.verifiers", f"{tmp_path}/gone.py:verify")


def test_a_missing_attribute_names_the_contract(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("")
    with pytest.raises(PluginError, match=r"has no 'build'; a plugin of this group must export a factory"):
        plugins.load("ponder.credit", f"{tmp_path}/rules.py:build")


def test_something_that_cannot_be_called_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("build = 3\n")
    with pytest.raises(PluginError, match=r"is a int; a plugin of this group must export"):
        plugins.load("ponder.credit", f"{tmp_path}/rules.py:build")


def test_a_plugin_that_fails_on_import_is_named_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("raise OSError('no such disk')\n")
    with pytest.raises(PluginError, match=r"rules\.py failed: OSError\('no such disk'\)"):
        plugins.load("ponder.credit", f"{tmp_path}/rules.py:build")


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(PluginError, match=r"unknown plugin group 'ponder\.rewards'.*ponder\.verifiers"):
        plugins.target("ponder.rewards", "math")

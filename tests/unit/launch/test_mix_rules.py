"""What joins the fresh samples, as a recipe says it: defaults, unions, and the rules between sections."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from launch import batch_policies, demonstrations, recipe, texts
from launch.recipe import RecipeError
from rl.hybrid.config import TextConfig
from rl.learner.config import ScratchModel
from rl.learner.scratch import build_model
from rl.losses.estimator_config import StreamEstimators
from rl.replay.config import RoRecomp, ShareReplay
from rollout.config import FormatConfig
from rollout.tasks.sums import generate

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


def test_nothing_joins_unless_it_is_named() -> None:
    config = recipe.load(QUICKSTART)
    assert config.mix.replay is None and config.mix.reweight is None
    assert batch_policies.stream_estimators(config) == StreamEstimators()


def test_replay_by_name() -> None:
    share = recipe.load(QUICKSTART, ["mix.replay.type=share", "mix.replay.estimator.mask.drift=0.05"])
    assert isinstance(share.mix.replay, ShareReplay)
    estimator = batch_policies.stream_estimators(share).replay
    assert estimator.mask.drift == 0.05
    assert estimator.denominator == "sampler" and estimator.mask.band_high == 5.0, "one setting changes no other"
    recomposed = recipe.load(QUICKSTART, ["mix.replay.type=rorecomp", "mix.replay.alpha=0.25"])
    assert isinstance(recomposed.mix.replay, RoRecomp) and recomposed.mix.replay.estimator.max_weight == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["mix.replay.type=share", "learner.zero_stage=3"], "set zero_stage = 2 or watch_every = 0"),
        (["mix.replay.type=share", "loss.entropy.type=top_fraction"], "leave these out or set watch_every = 0"),
        (["mix.replay.type=rorecomp", "mix.replay.p_start=0.1"], "compensation fades"),
        (["mix.replay.type=share", "mix.replay.share=0.9"], "0.5"),
    ],
)
def test_rules(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(QUICKSTART, settings)


def test_equal_tokenizers_have_one_fingerprint(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text)
    a, b, c = (batch_policies.tokenizer_fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c


def test_text_is_found_cut_and_refused_where_it_is_not(tmp_path: Path) -> None:
    model = ScratchModel(characters="0123456789+;=", hidden_size=64, intermediate_size=64, num_heads=2)
    build_model(model, str(tmp_path / "model"), seed=0)
    (tmp_path / "a.txt").write_text("1+2=3;4+5=9")  # 11 tokens: 4, 4 and 3
    (tmp_path / "b.txt").write_text("12345")  # 4 and 1, which teaches nothing
    section = TextConfig(paths=(str(tmp_path / "*.txt"),))
    out = tmp_path / "out.parquet"
    texts.cut(
        FormatConfig(), texts.files(section), chunk_tokens=4, model_dir=str(tmp_path / "model"), out_path=str(out)
    )
    assert [len(row) for row in pq.read_table(out).column("token_ids").to_pylist()] == [4, 4, 3, 4]
    (tmp_path / "c.jsonl").write_text('{"text": "1+2=3;", "skip": [[4, 5]]}\n{"text": "45", "skip": [[1, 2]]}\n')
    marked = TextConfig(paths=(str(tmp_path / "c.jsonl"),))
    texts.cut(FormatConfig(), texts.files(marked), chunk_tokens=9, model_dir=str(tmp_path / "model"), out_path=str(out))
    (row,) = pq.read_table(out).to_pylist()  # of the second text nothing is left to learn
    assert row["learned"] == [False, True, True, True, False, True]
    (tmp_path / "d.jsonl").write_text('{"words": "1"}\n')
    with pytest.raises(ValueError, match=r"line 1 of .*d\.jsonl must be"):
        list(texts.passages(tmp_path / "d.jsonl"))
    with pytest.raises(ValueError, match="there is no such file"):
        texts.files(TextConfig(paths=(str(tmp_path / "e*"),)))
    with pytest.raises(RecipeError, match="cannot hold a chunk"):
        recipe.load(QUICKSTART, ["mix.text.paths=['a']", "mix.text.chunk_tokens=9000"])
    with pytest.raises(RecipeError, match="leave one of the two out"):
        recipe.load(QUICKSTART, ["mix.hints.steps=3", "budgets.efforts.high.prefix='1'"])


def test_solutions_are_rendered_and_judged(tmp_path: Path) -> None:
    model = ScratchModel(characters="0123456789+;=", hidden_size=64, intermediate_size=64, num_heads=2)
    build_model(model, str(tmp_path / "model"), seed=0)
    tasks = generate(num_tasks=40, seed=0, flaw=1.0, min_terms=4, max_terms=6)
    config = recipe.load(QUICKSTART)
    out = tmp_path / "out.parquet"
    efforts = {"high": config.budgets.efforts["high"]}
    demonstrations.render(config.format, tasks, efforts=efforts, model_dir=str(tmp_path / "model"), out_path=str(out))
    rows = {row["task_key"]: row for row in pq.read_table(out).to_pylist()}
    assert len(rows) == 40 and {row["effort"] for row in rows.values()} == {"high"}
    for task in tasks:  # a careless teacher stops early from five terms on
        assert rows[task.key]["is_right"] == (task.skills == ("4_terms",))
        assert 0 < rows[task.key]["num_given"] < len(rows[task.key]["token_ids"])

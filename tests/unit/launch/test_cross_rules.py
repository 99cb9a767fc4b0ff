"""Rules between sections: each names the values and what to change."""

from pathlib import Path

import pytest

from launch import recipe
from launch.chain import resolve
from launch.recipe import RecipeError

RECIPES = Path(__file__).parents[3] / "launch/recipes"
QUICKSTART = RECIPES / "quickstart.toml"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.group_size=1"], r"rollout\.group_size must be at least 2, got 1; 8 is usual"),
        (["sampling.min_judged=9", "rollout.group_size=8"], r"min_judged = 9 is more than rollout\.group_size = 8"),
        (["rollout.temperature=0"], r"rollout\.temperature = 0 makes all siblings"),
        (
            ["budgets.max_prompt_tokens=50", "budgets.efforts.high.max_thinking_tokens=200"],
            r"rollout\.max_model_len = \d+ is shorter than effort 'high' may become: .* 50 \+ max_thinking_tokens 200",
        ),
        (["rollout.max_model_len=4096"], r"rollout\.max_model_len = 4096 is more than model\.max_positions = \d+"),
        (
            ["rollout.thinking_cap=engine", "budgets.efforts.low.forced_close=;</think>"],
            r"closes with the mark alone, and budgets\.efforts\.low\.forced_close = ';</think>' has more",
        ),
        (["budgets.efforts.low.forced_close=;"], r"must contain format\.thinking_close '</think>' exactly once"),
        (["budgets.efforts.low.prefix=[Easy]"], r"budgets\.efforts\.low\.prefix = '\[Easy\]' has characters"),
        (["sft.mix.ultra=0.5"], r"sft\.mix names unknown efforts \['ultra'\]; budgets\.efforts has \['high', 'low'"),
        (
            ["prm.type=none", "credit.type=grpo", "credit.process={ weight = 0.2 }"],
            r"credit\.process needs step scores, and prm\.type is 'none'; set prm\.type = 'exact'",
        ),
        (
            ["prm.type=none", "credit.type=gdpo", "credit.weights={ outcome = 1.0, process = 0.3 }"],
            r"credit\.weights\.process needs step scores",
        ),
        (
            ["credit.process={ type = 'leave_one_out' }", "prm.type=implicit", "prm.online={}", "prm.kind=q"],
            r"'leave_one_out' reads step scores of kind logratio or prob, .* gives 'q'; .* kind = 'logratio'",
        ),
        (
            ["credit.process={ type = 'min_form' }", "prm.type=implicit", "prm.online={}"],
            r"'min_form' reads step scores of kind prob, and the scorer gives 'logratio'; .* use leave_one_out",
        ),
        (["credit.process={ type = 'progress' }"], r"prm\.type = 'exact' says whether one step is right; use"),
        (["credit.process={ type = 'minform' }"], r"credit\.process: .*'minform'.*'min_form'"),
        (
            ["credit.type=w_reinforce"],
            r"'w_reinforce' also learns from groups .*judge_on = 'outcome' drops them; set sampling\.judge_on = 'off'",
        ),
        (["sampling.min_judged=1"], r"sampling\.min_judged must be at least 2, got 1"),
        (
            ["loss.kl={ estimator = 'k3', placement = 'loss', coefficient = 0.01 }"],
            r"loss\.kl compares the policy with a reference model, and there is no \[reference\] section; add one",
        ),
        (
            [
                "loss.kl={ estimator = 'k1', placement = 'reward', coefficient = 0.01 }",
                "reference.dtype=float32",
                "credit.type=gdpo",
            ],
            r"adds to the final reward, which credit\.type = 'gdpo' does not read",
        ),
        (
            ["sampling.exploration.weight=0.1", "credit.type=gdpo", "credit.weights={ outcome = 1.0 }"],
            r"exploration has none; add credit\.weights\.exploration",
        ),
        (
            ["sampling.exploration.weight=0.1", "credit.type=w_reinforce", "sampling.judge_on=off"],
            r"sampling\.exploration adds to the final reward, which credit\.type = 'w_reinforce' does not read",
        ),
        (["reference.dtype=float32"], r"\[reference\] \(placement 'actor'\) would load a model that nothing reads"),
        (
            ["prm.type=exact", "credit.process={ weight = 0.2 }", "loss.type=gspo"],
            r"gives each token an advantage of its own .* loss\.type = 'gspo' takes one a sequence",
        ),
        (
            ["credit.type=reinforce_pp", "credit.gamma=0.9", "loss.type=rloo", "sampling.judge_on=off"],
            r"'reinforce_pp' .* a discount.* loss\.type = 'rloo' takes one a sequence",
        ),
        (["loss.kl={ estimator = 'k2', placement = 'loss', coefficient = 0.1 }"], r"there is no \[reference\] section"),
        (["reference.placement=actor"], r"would load a model that nothing reads"),
        (["evaluate.num_tasks=100000"], r"evaluate\.num_tasks = 100000 is more than tasks\.held_out\.num_tasks"),
        (["model.num_heads=8"], r"128 / 8 = 16, and the engine's attention has kernels for head sizes 32, 64"),
        (["budgets.efforts.high.instruction='<huge>'"], r"instruction = '<huge>' has characters .* add them to"),
        (["format.thinking_open='[think]'"], r"format\.thinking_open = '\[think\]' has characters"),
        (
            ["learner.micro_batch_tokens=158"],
            r"micro_batch_tokens = 158 cannot hold the longest sample, rollout\.max_model_len 160 - 1 = 159 positions",
        ),
        (["learner.micro_batch_tokens=158", "rollout.max_model_len=none"], r"longest sample, .* 160 - 1 = 159"),
        (
            ["diagnostics.geometry_every=5", "diagnostics.geometry_tasks=401"],
            r"diagnostics\.geometry_tasks = 401 is more than tasks\.held_out\.num_tasks = 400; lower the first",
        ),
        (
            ["diagnostics.gradient_every=5", "learner.zero_stage=3"],
            r"gradient_every = 5 needs whole .* learner\.zero_stage = 3 splits them; set zero_stage = 2",
        ),
        (
            ["diagnostics.gradient_every=5", "learner.lora.rank=8"],
            r"gradient_every = 5 reads the gradients .* with learner\.lora they are frozen; leave learner\.lora out",
        ),
        (["learner.dtype=bfloat16", "learner.zero_stage=0"], r"dtype bfloat16 needs zero_stage >= 1"),
    ],
)
def test_an_impossible_combination_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(QUICKSTART, overrides)


@pytest.mark.parametrize("credit", ["w_reinforce", "reinforce_pp", "remax"])
def test_an_estimator_without_siblings_may_have_one(credit: str) -> None:
    alone = [f"credit.type={credit}", "rollout.group_size=1", "sampling.min_judged=1"]
    config = recipe.load(QUICKSTART, [*alone, "sampling.judge_on=off"])
    assert config.rollout.group_size == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["learner.micro_batch_tokens=159"],
        ["diagnostics.geometry_every=5", "diagnostics.geometry_tasks=400"],
        ["diagnostics.gradient_every=5", "learner.zero_stage=2"],
        ["diagnostics.geometry_every=5", "learner.lora.rank=8"],
        ["learner.zero_stage=3", "diagnostics.geometry_every=5"],
    ],
)
def test_what_is_just_possible_is_accepted(overrides: list[str]) -> None:
    assert recipe.load(QUICKSTART, overrides).warnings() == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.num_ranks=4", "cluster.num_cpus=2", "learner.threads_per_rank=1"], "= 4 threads share"),
        (["rollout.num_engines=3", "cluster.num_cpus=2", "rollout.threads_per_engine=1"], "= 3 threads share"),
        (["rollout.dtype=bfloat16"], "set them equal"),
        (["loss.covariance.type=kl_cov", "learner.num_optimizer_steps=1"], "zero until the second update"),
        (["rollout.top_p=0.9"], "sample from another distribution"),
        (["diagnostics.gradient_every=9", "loop.num_steps=5", "budgets.phases=[]"], "no gradient is ever measured"),
        (["diagnostics.geometry_every=9", "diagnostics.geometry_tasks=99"], "alpha-ReQ needs a model at least 99 wide"),
        (["budgets.phases=[{ until_step = 9, mix = { high = 1.0 } }]", "loop.num_steps=5"], "never used"),
    ],
)
def test_a_doubtful_combination_is_warned_about(overrides: list[str], message: str) -> None:
    (found,) = [w for w in recipe.load(QUICKSTART, overrides).warnings() if message in w]
    assert "; " in found  # the remedy follows


def test_shipped_recipes_need_no_warning() -> None:
    configs = []
    for path in sorted(RECIPES.glob("*.toml")):
        configs += resolve.load(path).stages.values() if "stages" in recipe.read(path) else [recipe.load(path)]
    assert [found for config in configs for found in config.warnings()] == []

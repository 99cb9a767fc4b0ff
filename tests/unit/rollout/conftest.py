"""Tokenizers of a few kinds, written once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.config import FormatConfig
from rollout.render import Renderer
from tests.tiny_model import SPECIAL, build_tokenizer

BARE = SPECIAL[:3]  # no thinking marks: they are spelled with several tokens


@pytest.fixture(scope="session")
def tokenizer_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`marks`: each mark is one token; `bare`: marks are spelled out."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name, special in (("marks", SPECIAL), ("bare", BARE)):
        build_tokenizer(special=special).save_pretrained(root / name)
    return {name: root / name for name in ("marks", "bare")}


@pytest.fixture(scope="session")
def make_renderer(tokenizer_dirs: dict[str, Path]) -> Callable[..., Renderer]:
    known: dict[tuple[str, FormatConfig], Renderer] = {}

    def make(kind: str = "marks", **format_settings: object) -> Renderer:
        format = FormatConfig.model_validate(format_settings)
        if (kind, format) not in known:
            known[kind, format] = Renderer.load(str(tokenizer_dirs[kind]), format)
        return known[kind, format]

    return make

"""One process group for all tests that build a learner in the test process: DeepSpeed cannot join twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    yield
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def rank_environment(process_group: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the actor's runtime environment sets; the folder is where DeepSpeed would compile kernels."""
    compiled = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("LOCAL_RANK", "0")
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        patch.setenv("TORCH_EXTENSIONS_DIR", str(compiled))
        yield compiled

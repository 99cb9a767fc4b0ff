"""What the preflight makes of what the nodes say."""

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from launch.preflight import Facts, Probe, report_of

HERE = Facts(
    host="a",
    address="10.0.0.1",
    cores=8,
    memory_gib=30.0,
    disk_gib=100.0,
    gpus=0,
    versions={"torch": "2.11.0", "ray": "2.60.0"},
    clock=1000.0,
    sees_run_dir=True,
)


def problems(facts: Facts, device: str = "cpu") -> tuple[str, ...]:
    return report_of(facts, HERE, 999.5, 1000.5, [], device).problems


def test_a_fit_node_has_nothing_to_mend() -> None:
    assert problems(HERE) == ()
    assert problems(replace(HERE, clock=1002.0)) == ()  # within the wait and the tolerance


def test_each_fault_is_named_with_its_remedy() -> None:
    (version,) = problems(replace(HERE, versions={"torch": "2.10.0", "ray": "2.60.0"}))
    assert version == "torch 2.10.0 instead of 2.11.0 (on a); install one lock everywhere"
    (missing,) = problems(replace(HERE, versions={"torch": "2.11.0"}))
    assert missing.startswith("ray missing instead of 2.60.0")
    for clock, offset in ((990.0, "9.5"), (1010.5, "10.0")):
        assert problems(replace(HERE, clock=clock)) == (f"clock is {offset} s off; run a time service",)
    (disk,) = problems(replace(HERE, disk_gib=0.5))
    assert disk.startswith("0.5 GiB of disk left")
    (storage,) = problems(replace(HERE, sees_run_dir=False))
    assert "put run.dir on storage that all nodes share" in storage
    assert problems(HERE, "cuda") == ("no GPU, and the learner wants one",)
    assert problems(replace(HERE, gpus=8), "cuda") == ()


def test_a_probe_says_what_it_finds_and_why_it_cannot_connect(tmp_path: Path) -> None:
    probe = Probe("127.0.0.1")
    (tmp_path / "mark").touch()
    facts = probe.facts(str(tmp_path), "mark")
    assert facts.sees_run_dir and facts.cores >= 1 and facts.versions["python"].startswith("3.")
    assert abs(facts.clock - time.time()) < 60
    assert not probe.facts(str(tmp_path / "not made yet"), "mark").sees_run_dir
    assert probe.reach("127.0.0.1", probe.listen()) == ""
    assert "refused" in probe.reach("127.0.0.1", probe.free_port())


def test_a_lone_rank_meets_itself() -> None:
    probe = Probe("127.0.0.1")
    address = f"tcp://127.0.0.1:{probe.free_port()}"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:  # a process has one default group
        alone.submit(probe.meet, 0, 1, address, "gloo").result(timeout=100)

"""Memory: workers run at a time when they fit, one after the other when they do not, and every stage says its peak."""

from __future__ import annotations

import os
import re
import threading

import miniature
import psutil
import pytest
from build_space import BuildSpace, wait_until

from sam3_build import registry
from sam3_build.execution.memory import Admission, expected_peak, free_bytes, resident_bytes
from sam3_build.execution.session import open_session

GB = 1_000_000_000


class Crowd:
    """Threads that each ask to be let in and, once in, stay until all are sent home."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._home = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *error: object) -> None:
        self._home.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def gets_in(self, need: int) -> bool:
        """Tell whether a newcomer is let in at once; one who is not goes on waiting."""
        entered, waited = threading.Event(), threading.Event()

        def come() -> None:
            with self._admission.admit(need, lambda free: waited.set()):
                entered.set()
                self._home.wait()

        self._threads.append(threading.Thread(target=come))
        self._threads[-1].start()
        assert wait_until(lambda: entered.is_set() or waited.is_set(), 10)
        return entered.is_set()


def test_what_fits_beside_what_runs_is_let_in_and_what_does_not_waits() -> None:
    with Crowd(Admission(free=lambda: 10 * GB, resident=lambda pid: 0)) as crowd:
        assert crowd.gets_in(6 * GB)
        assert crowd.gets_in(4 * GB)
        assert not crowd.gets_in(1)


def test_what_a_worker_already_took_is_not_counted_twice() -> None:
    free, taken = [10 * GB], [0]
    admission = Admission(free=lambda: free[0], resident=lambda pid: taken[0])
    with Crowd(admission) as crowd, admission.admit(8 * GB, lambda left: None) as entry:
        entry.pid = os.getpid()
        free[0], taken[0] = 4 * GB, 6 * GB  # 2 GB of the 8 are still to come
        assert not crowd.gets_in(3 * GB)
        assert crowd.gets_in(2 * GB)
        assert not crowd.gets_in(1)


def test_what_fits_nowhere_runs_alone() -> None:
    with Crowd(Admission(free=lambda: 1 * GB, resident=lambda pid: 0)) as crowd:
        assert crowd.gets_in(50 * GB)
        assert not crowd.gets_in(1)


def test_free_memory_and_a_process_s_own_are_the_system_s() -> None:
    assert 0 < free_bytes() <= psutil.virtual_memory().total
    assert resident_bytes(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert resident_bytes(2**22 + 1) == 0  # above the largest process number


@pytest.mark.workers
@pytest.mark.parametrize(("peak", "order"), [(1, "run run built built"), (10**15, "run run wait built built")])
def test_workers_that_do_not_fit_do_not_run_at_a_time(fresh: BuildSpace, peak: int, order: str) -> None:
    fresh.edit("sam3_build/stages/build.py", "Memory(base=1)", f"Memory(base={peak})")
    fresh.edit("sam3_build/stages/build.py", "time.sleep(", "print('began', time.time_ns()), time.sleep(")
    fresh.edit(
        "sam3_build/stages/build.py", '    return {"inputs"', '    print("ended", time.time_ns())\n    return {"inputs"'
    )
    fresh.build("precision:head.fp16")
    run = fresh.build("-n", "2", "build:head.fp16", TOY_SLOW="0.5")
    assert sorted(re.findall(r"^  (run|wait|built) +build:", run.output, re.M)) == sorted(order.split()), run.output
    logs = [(fresh.view / "logs" / f"build.head.fp16.{target}.log").read_text() for target in ("cpu", "ada")]
    spans = sorted(tuple(int(n) for n in re.findall(r"(?:began|ended) (\d+)", log)) for log in logs)
    assert (spans[0][1] < spans[1][0]) == (peak > 1), spans


@pytest.mark.ci
def test_every_stage_stays_below_the_peak_that_it_states() -> None:
    session = open_session(miniature.ROOT, miniature.MANIFEST, os.environ)
    widest = {a.stage: a for a in session.plan.actions if not a.blocked}  # the decoder's come last
    assert len(widest) > 8
    for action in widest.values():
        peak = miniature.provenance(action.name)["peak_bytes"]
        assert 0 < peak <= expected_peak(action, session.manifest.family, session.resolver), action.name


def test_the_largest_tensor_of_sam_3_is_its_attention() -> None:
    family = registry.family("sam3_image")
    config = {
        "vision_config": {"backbone_config": {"image_size": 1008, "patch_size": 14, "num_attention_heads": 16}},
        "detr_encoder_config": {"hidden_size": 256, "num_attention_heads": 8},
        "text_config": {"max_position_embeddings": 32},
        "detr_decoder_config": {"num_queries": 200},
    }
    assert family.largest_tensor("vision_encoder", config) == 16 * 5184 * 5184 * 4
    assert family.largest_tensor("decoder", config) == 8 * 5184 * 5184 * 4
    assert family.largest_tensor("text_encoder", config) == 0
    assert family.resized is not None
    smaller = family.resized(config, (560, 1008))
    assert family.largest_tensor("vision_encoder", smaller) == 16 * (40 * 72) ** 2 * 4
    assert family.largest_tensor("detector", smaller) == 8 * (40 * 72) ** 2 * 4

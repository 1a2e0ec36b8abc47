"""In which order doit begins what has to be built."""

from __future__ import annotations

from pathlib import Path

from build_space import copy_manifests
from doit.control import TaskControl

from sam3_build.commands import doit_tasks
from sam3_build.execution.session import open_session


def test_a_build_begins_with_the_export_that_most_steps_wait_for(tmp_path: Path) -> None:
    copy_manifests(tmp_path)
    session = open_session(tmp_path, "sam3_mini", {})
    control = TaskControl(doit_tasks.tasks(session, {}))
    control.process(["build"])
    dispatched = control.task_dispatcher().generator
    begun: list[str] = []
    node = next(dispatched)
    while node is not None:
        begun.append(node.task.name)
        node.run_status = "successful"
        node = dispatched.send(node) if node.task.name != "build" else None
    exports = [name for name in begun if name.startswith("export:")]
    patched = {f"export:{c}" for c in session.manifest.components if f"patch:{c}" in begun}
    assert 0 < len(patched) < len(exports)
    assert set(exports[: len(patched)]) == patched
    assert max(map(begun.index, exports)) < begun.index("precision:text_encoder.fp32")

"""The committed protobuf code is what ``proto/`` generates; ``CHARRNN_WRITE_PROTO=1`` writes it first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "python" / "charrnn" / "_pb"
PROTO = "charrnn/v1/charrnn.proto"


def test_generated_code_is_committed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    subprocess.run([*command, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", PROTO], check=True)
    generated = sorted((tmp_path / PROTO).parent.iterdir())
    assert [path.name for path in generated] == ["charrnn_pb2.py", "charrnn_pb2.pyi"]
    if os.environ.get("CHARRNN_WRITE_PROTO") == "1":
        for path in generated:
            shutil.copyfile(path, COMMITTED / path.name)
    for path in generated:
        assert path.read_text() == (COMMITTED / path.name).read_text(), (
            f"{path.name} is stale: run make proto"
        )
    strays = {path.name for path in COMMITTED.glob("*.py*")} - {path.name for path in generated}
    assert strays == {"__init__.py"}

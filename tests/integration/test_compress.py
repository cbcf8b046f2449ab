"""Files through ``charrnn compress`` and back, with a real model and its ONNX graph."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charrnn import coding
from charrnn.cli import main
from charrnn.errors import DataError
from tests.servers import run_charrnn

PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "int8"])


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """English of the model's corpus, characters it does not know, and bytes that are no text at all."""
    path = tmp_path / "original"
    text = (json.__doc__ or "").encode()
    path.write_bytes(text * 3 + "né€😀".encode() + b"\xff\x00\xfe" + os.urandom(50) + text)
    return path


@PRECISIONS
def test_a_file_comes_back(tiny_bundle: Path, original: Path, tmp_path: Path, precision: str) -> None:
    packed, restored = tmp_path / "packed", tmp_path / "restored"
    done = run_charrnn(
        "compress", original, "--model", tiny_bundle, "--out", packed, "--precision", precision, "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["num_compressed"] == packed.stat().st_size
    assert report["num_escaped"] >= 50
    done = run_charrnn("decompress", packed, "--model", tiny_bundle, "--out", restored)
    assert done.returncode == 0, done.stderr
    assert restored.read_bytes() == original.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["original", "packed", "restored"]


def test_workers_do_not_show_in_the_file(tiny_bundle: Path, original: Path, tmp_path: Path) -> None:
    data = original.read_bytes()
    data += "😀".encode() * 3 * len(data)  # many bytes, few symbols
    original.write_bytes(data * (2**19 // len(data) + 1))  # two lanes
    files = [tmp_path / "1", tmp_path / "2"]
    for workers, file in enumerate(files, 1):
        coding.compress(original, file, tiny_bundle, workers=workers)
    assert files[0].read_bytes() == files[1].read_bytes()
    report = coding.decompress(files[0], tmp_path / "restored", tiny_bundle, workers=2)
    assert (tmp_path / "restored").read_bytes() == original.read_bytes()
    assert report.num_bytes == original.stat().st_size


def test_coded_bits_are_the_measured_information(tiny_bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text((json.__doc__ or "") * 20)
    report = coding.compress(text, tmp_path / "packed", tiny_bundle)
    bits, measured = coding.measure(text, tiny_bundle)
    assert measured.num_symbols == report.num_symbols
    assert 0 <= 8 * report.num_coded - bits < 8 * 16


def test_what_is_damaged_or_foreign_is_told_and_nothing_is_written(
    tiny_bundle: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed"
    coding.compress(original, packed, tiny_bundle)
    good = packed.read_bytes()
    (tmp_path / "restored").write_text("kept")
    for data, message in [
        (good[:-40], "ends too early"),
        (good[:-40] + bytes([good[-40] ^ 1]) + good[-39:], "damaged"),
        (b"PK\x03\x04" + good, "does not begin like one"),
        (b"", "ends within its header"),
    ]:
        packed.write_bytes(data)
        arguments = ("decompress", packed, "--model", tiny_bundle, "--out", tmp_path / "restored", "--force")
        code, told = main(list(map(str, arguments))), capsys.readouterr().err
        assert (code, told.count("\n")) == (3, 1), told
        assert message in told
        assert (tmp_path / "restored").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["original", "packed", "restored"]


def test_files_that_are_there_are_kept(tiny_bundle: Path, original: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="original exists; choose another name or force it"):
        coding.compress(original, original, tiny_bundle)
    with pytest.raises(DataError, match="missing cannot be read: No such file"):
        coding.compress(tmp_path / "missing", tmp_path / "packed", tiny_bundle)
    with pytest.raises(DataError, match=r"nowhere/packed cannot be written: No such file"):
        coding.compress(original, tmp_path / "nowhere/packed", tiny_bundle)


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_regular_file_is_never_replaced(tiny_bundle: Path, tmp_path: Path, force: bool) -> None:
    source, fifo, link, folder = (tmp_path / name for name in ("source", "fifo", "link", "folder"))
    source.write_text("one")
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    folder.mkdir()
    before = {path.name: path.lstat().st_mode for path in tmp_path.iterdir()}
    for path in (fifo, link, folder, Path("/dev/null")):
        with pytest.raises(DataError, match=rf"{path} is not a regular file: give a file's name$"):
            coding.compress(source, path, tiny_bundle, force=force)
    assert {path.name: path.lstat().st_mode for path in tmp_path.iterdir()} == before


def test_a_link_is_written_through(tiny_bundle: Path, tmp_path: Path) -> None:
    source, link, file = (tmp_path / name for name in ("source", "link", "elsewhere/file"))
    source.write_text("one")
    file.parent.mkdir()
    link.symlink_to(file)
    coding.compress(source, link, tiny_bundle)
    assert (link.is_symlink(), file.is_file(), os.listdir(file.parent)) == (True, True, ["file"])
    with pytest.raises(DataError, match="link exists; choose another name or force it"):
        coding.decompress(file, link, tiny_bundle)
    coding.decompress(file, link, tiny_bundle, force=True)
    assert (link.is_symlink(), file.read_text()) == (True, "one")


def test_a_file_that_cannot_be_read_twice_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for source in (str(tmp_path / "fifo"), "-"):
        with pytest.raises(DataError, match=f"{source} is not a file that can be read twice"):
            coding.compress(source, tmp_path / "packed", tiny_bundle)
        with pytest.raises(DataError, match=f"{source} is not a file that can be read twice"):
            coding.measure(source, tiny_bundle)
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_leaves_nothing_behind(
    tiny_bundle: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    large = tmp_path / "large"
    large.write_bytes((json.__doc__ or "").encode() * 3000)
    command = [sys.executable, "-m", "charrnn", "compress", str(large), "--model", str(tiny_bundle)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "packed")],
        stderr=subprocess.PIPE,
        # Under nohup SIGHUP is ignored, here and in what is started from here.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not any(name.endswith(".partial") for name in os.listdir(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == code
    assert os.listdir(tmp_path) == ["large"]
    assert process.stderr is not None
    process.stderr.close()


DATA = sorted((Path(__file__).parents[3] / "shared" / "data").glob("*"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="there is no ../shared/data")
@pytest.mark.parametrize("path", DATA, ids=lambda path: path.name)
def test_real_corpora_come_back(tiny_bundle: Path, tmp_path: Path, path: Path) -> None:
    report = coding.compress(path, tmp_path / "packed", tiny_bundle)
    coding.decompress(tmp_path / "packed", tmp_path / "restored", tiny_bundle)
    assert (tmp_path / "restored").read_bytes() == path.read_bytes()
    bits, _ = coding.measure(path, tiny_bundle)
    assert 8 * report.num_coded - bits < 1e-3 * report.num_symbols + 400

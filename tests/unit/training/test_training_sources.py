"""What a corpus may be: files, folders, patterns, stdin and what Python carries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn.errors import ConfigError, DataError
from charrnn.training import TrainConfig, Trainer, load_run
from charrnn.training.corpus import sha256_of
from charrnn.training.sources import STDLIB, Words, find_source
from tests.unit.training.test_training_trainer import Diary, last_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "b.txt": "bee ",
        "a/z.txt": "zed ",
        "a/deep/y.txt": "why ",
        "a.txt": "ay ",
        ".hidden": "h",
        "a/.git/x": "g",
    }
    for name, text in files.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "corpus/a/deep/loop").symlink_to("../..")
    (tmp_path / "corpus/twin").symlink_to("a")
    os.mkfifo(tmp_path / "corpus/pipe")
    return tmp_path / "corpus"


def text_of(corpus: Words | None, **kwargs: Path) -> str:
    return b"".join(find_source(corpus, **kwargs).pieces()).decode()


def test_a_folder_is_its_files_in_order_without_hidden_ones_and_loops(folder: Path) -> None:
    expected = "ay why zed bee "
    assert text_of(folder) == expected
    listed = subprocess.run(
        f"cd {folder} && find . -path '*/.*' -prune -o -type f -print | LC_ALL=C sort | xargs cat",
        shell=True,
        capture_output=True,
        check=True,
    )
    assert listed.stdout.decode() == expected
    assert sha256_of(find_source(folder)) == hashlib.sha256(expected.encode()).hexdigest()


def test_patterns_files_and_folders_are_joined_in_the_order_given(folder: Path) -> None:
    assert text_of(str(folder / "*.txt")) == "ay bee "
    assert text_of(str(folder / "a/**/*.txt")) == "why zed "
    (folder / "a/deep/loop").unlink()
    assert text_of([folder / "b.txt", folder / "a", str(folder / "a.tx?")]) == "bee why zed ay "
    odd = folder / "odd[1].txt"
    odd.write_text("odd")
    assert text_of(odd) == "odd"


def test_a_run_in_a_folder_is_no_part_of_the_folders_text(folder: Path, small: TrainConfig) -> None:
    (folder / "b.txt").write_text("bee " * 300)
    run = folder / "runs/one"
    for corpus in (folder, str(folder / "**")):
        assert Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=run).step == 13
        assert Trainer(small).fit(corpus, out=run, resume=True).step == 30
        shutil.rmtree(run)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere.txt", r"cannot read corpus .*nowhere.txt: No such file"),
        ("*.md", r"no file matches .*\*.md: see that it is quoted"),
        ("pipe", "pipe is no file, and a text is read twice: pipe it in, and give -"),
        ("empty", r"folder .*empty holds no files \(hidden ones do not count\)"),
        ("dangling", r"cannot read corpus .*dangling: No such file"),
    ],
)
def test_what_names_nothing_is_refused(word: str, message: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty/.only").write_text("x")
    (folder / "dangling").symlink_to("gone")
    with pytest.raises(DataError, match=message):
        find_source(str(folder / word))


def test_a_link_to_nothing_in_a_folder_is_told(folder: Path) -> None:
    (folder / "dangling").symlink_to("gone")
    with pytest.raises(DataError, match=r"cannot read corpus .*dangling: No such file"):
        find_source(folder)


def test_lists_are_checked() -> None:
    with pytest.raises(DataError, match="an empty list of files"):
        find_source([])
    with pytest.raises(DataError, match=r"stdin \(-\) stands twice"):
        find_source(["-", "-"])
    with pytest.raises(DataError, match=r"stdin \(-\) cannot be read twice: save it"):
        find_source("-")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(folder: Path) -> None:
    (folder / "b.txt").chmod(0)
    with pytest.raises(DataError, match=r"cannot read corpus .*b.txt: Permission denied"):
        text_of(folder)


def test_the_standard_library_is_text() -> None:
    source = find_source(STDLIB)
    text = b"".join(source.pieces()).decode()
    assert 5_000_000 < len(text) < 50_000_000
    assert "def urlopen(" in text
    assert source.words == (STDLIB,)


def test_a_character_may_be_cut_by_the_end_of_a_file(tmp_path: Path, small: TrainConfig) -> None:
    data = ("naïve " * 200).encode()
    cut = data.index(b"\xaf")
    (tmp_path / "x.1").write_bytes(data[:cut])
    (tmp_path / "x.2").write_bytes(data[cut:])
    config = small.replace(max_steps=2)
    Trainer(config).fit(str(tmp_path / "x.*"), out=tmp_path / "run")
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["corpus"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert info["corpus"]["words"] == [str(tmp_path / "x.*")]
    (tmp_path / "x.2").write_bytes(b"!" + data[cut + 1 :])
    with pytest.raises(DataError, match=rf"x.1 is not UTF-8 at byte {cut - 1} \(0xc3"):
        Trainer(config).fit([tmp_path / "x.1", tmp_path / "x.2"], out=tmp_path / "other")
    (tmp_path / "x.2").write_bytes(b"\xaf--\xff")
    with pytest.raises(DataError, match=r"x.2 is not UTF-8 at byte 3 \(0xff"):
        Trainer(config).fit([tmp_path / "x.1", tmp_path / "x.2"], out=tmp_path / "other")


def test_empty_files_are_told(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    diary = Diary()
    config = small.replace(max_steps=1)
    Trainer(config, callbacks=[diary]).fit([corpus, tmp_path / "empty.txt"], out=tmp_path / "run")
    assert diary.notes[0] == f"warning: 1 files of the corpus are empty: {tmp_path / 'empty.txt'}"


def test_replacing_what_is_not_utf8_is_counted(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    corpus.write_bytes(b"\xff" + "\ufffd".encode() + corpus.read_bytes() + b"\xc3")
    diary = Diary()
    config = small.replace(max_steps=1, encoding_errors="replace")
    Trainer(config, callbacks=[diary]).fit(corpus, out=tmp_path / "run")
    assert diary.notes[0] == "warning: 2 sequences that are not UTF-8 are read as U+FFFD"
    run = load_run(tmp_path / "run")
    text = "".join(run.vocab.decode(part) for part in run.tokens.values())
    assert text == corpus.read_bytes().decode(errors="replace")


def test_a_changed_folder_is_refused(folder: Path, small: TrainConfig, tmp_path: Path) -> None:
    (folder / "b.txt").write_text("bee " * 300)
    Trainer(small, callbacks=[Diary(13)]).fit(folder, out=tmp_path / "run")
    (folder / "c.txt").write_text("sea")
    for corpus in (None, folder):
        with pytest.raises(ConfigError, match="the corpus has changed"):
            Trainer(small).fit(corpus, out=tmp_path / "run", resume=True)
    (folder / "c.txt").unlink()
    assert Trainer(small).fit(out=tmp_path / "run", resume=True).step == 30


def test_stdin_is_kept_and_resumed(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(corpus.read_bytes())))
    Trainer(small).fit(corpus, out=tmp_path / "whole")
    Trainer(small, callbacks=[Diary(13)]).fit("-", out=tmp_path / "run")
    assert (tmp_path / "run/stdin.txt").read_bytes() == corpus.read_bytes()
    (tmp_path / "run").rename(tmp_path / "moved")
    diary = Diary()
    Trainer(small, callbacks=[diary]).fit("-", out=tmp_path / "moved", resume=True)
    assert "stdin is not read" in diary.notes[0]
    assert last_weights(tmp_path / "moved") == last_weights(tmp_path / "whole")
    (tmp_path / "moved/stdin.txt").unlink()
    assert Trainer(small).fit(out=tmp_path / "moved", resume=True).step == 30


def test_stdin_that_is_no_text_leaves_nothing(
    small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff" * 1000)))
    with pytest.raises(DataError, match=r"stdin.txt is not UTF-8 at byte 0"):
        Trainer(small).fit("-", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_first_days_still_opens(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    info = json.loads((tmp_path / "run/run.json").read_text())
    info["corpus"]["path"] = info["corpus"].pop("words")[0]
    del info["sha256"]
    (tmp_path / "run/run.json").write_text(json.dumps(info))
    assert load_run(tmp_path / "run").end_token is None
    assert Trainer(small).fit(out=tmp_path / "run", resume=True).step == 30


def test_the_command_takes_several_texts(corpus: Path, tmp_path: Path) -> None:
    pace = ["--max-steps", "1", "--batch-size", "2", "--bptt", "8", "--hidden-size", "4", "--device", "cpu"]
    command = [sys.executable, "-m", "charrnn", "train", corpus, "-", "--out", tmp_path / "run", *pace]
    subprocess.run(command, input=b"more\n", check=True, capture_output=True)
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["corpus"]["words"] == [str(corpus), "-"]
    assert info["corpus"]["sha256"] == hashlib.sha256(corpus.read_bytes() + b"more\n").hexdigest()


def test_a_corpus_by_name_is_what_was_fetched_and_never_fetches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_DATA", str(folder))
    monkeypatch.chdir(folder)
    with pytest.raises(
        DataError, match=r"corpus warpeace is not in .*: charrnn data get warpeace fetches it"
    ):
        find_source("data:warpeace")
    with pytest.raises(DataError, match="no corpus is called 'peace': charrnn data list"):
        find_source("data:peace")
    (folder / "warpeace.txt").write_text("Well, Prince")
    (folder / "data:warpeace").write_text("a file of that name does not stand in its way")
    source = find_source("data:warpeace")
    assert b"".join(source.pieces()) == b"Well, Prince"
    assert source.words == ("data:warpeace",)


def test_what_comes_with_python_has_such_a_name_too() -> None:
    assert find_source("data:pydoc-topics").parts == find_source(None).parts

"""Downloads from a server that behaves, and from servers that do not."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from charrnn.cli import main
from charrnn.data import Corpus, download, read_catalogue
from charrnn.data.catalogue import Expected, Member
from charrnn.errors import DataError

TEXT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(TEXT).hexdigest()


@dataclass
class Serving:
    """What the server does: of each answer only ``cut`` bytes come; ``asked`` is where answers began."""

    body: bytes = TEXT
    cut: int | None = None
    knows_ranges: bool = True
    status: int = 200
    url: str = ""
    asked: list[int] = field(default_factory=list)


@pytest.fixture
def serving() -> Iterator[Serving]:
    it = Serving()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if it.knows_ranges else 0
            it.asked.append(start)
            if it.status != 200:
                self.send_error(it.status)
                return
            if start and start >= len(it.body):
                self.send_error(416)
                return
            rest = it.body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest if it.cut is None else rest[: it.cut])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.url = f"http://127.0.0.1:{server.server_address[1]}/text"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


def corpus(it: Serving, expected: Expected | None = None, member: Member | None = None) -> Corpus:
    return Corpus("text", "a text", it.url, "free", expected or Expected(len(TEXT), SHA256), member)


def test_a_download_is_checked_and_told(serving: Serving, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "text"
    assert download(corpus(serving), path, progress=lambda *it: told.append(it)) == SHA256
    assert path.read_bytes() == TEXT
    assert told[-1] == (len(TEXT), len(TEXT))
    assert [file.name for file in tmp_path.iterdir()] == ["text"]
    blob = Expected(git_sha1=hashlib.sha1(b"blob %d\0" % len(TEXT) + TEXT).hexdigest())
    assert download(corpus(serving, blob), tmp_path / "other") == SHA256


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on(serving: Serving, tmp_path: Path, knows_ranges: bool) -> None:
    path, serving.knows_ranges, serving.cut = tmp_path / "text", knows_ranges, 400_000
    if knows_ranges:
        download(corpus(serving), path)
        assert serving.asked == [0, 400_000, 800_000]
    else:
        with pytest.raises(DataError, match=r"broke off 3 times .*400,000 bytes are kept in .*text.partial"):
            download(corpus(serving), path)
        serving.cut = None
        download(corpus(serving), path)
    assert path.read_bytes() == TEXT


def test_the_next_try_goes_on(serving: Serving, tmp_path: Path) -> None:
    path, serving.cut = tmp_path / "text", 0
    (tmp_path / "text.partial").write_bytes(TEXT[:1000])
    with pytest.raises(DataError, match="broke off 3 times"):
        download(corpus(serving), path)
    assert (tmp_path / "text.partial").read_bytes() == TEXT[:1000]
    serving.cut, serving.asked = None, []
    download(corpus(serving), path)
    assert (serving.asked, path.read_bytes()) == ([1000], TEXT)
    # All of it is there, unchecked: nothing is fetched again.
    (tmp_path / "text.partial").write_bytes(TEXT)
    serving.asked = []
    download(corpus(serving), path)
    download(corpus(serving, Expected(sha256=SHA256)), path)
    assert serving.asked == [0]


def test_without_a_hash_nothing_old_is_trusted(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "text.partial").write_bytes(b"old")
    download(corpus(serving, Expected(len(TEXT))), tmp_path / "text")
    assert (serving.asked, (tmp_path / "text").read_bytes()) == ([0], TEXT)


def longer_than_all(path: Path, it: Serving) -> None:
    path.with_name("text.partial").write_bytes(TEXT + b"more")


def wrong_start(path: Path, it: Serving) -> None:
    path.with_name("text.partial").write_bytes(b"x" * 1000)


def other_text(path: Path, it: Serving) -> None:
    it.body = TEXT[:-1] + b"x"


def shorter_text(path: Path, it: Serving) -> None:
    it.body = TEXT[:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_start, f"sha256 {SHA256} was expected"),
        (other_text, f"sha256 {SHA256} was expected"),
        (shorter_text, "1,024,000 bytes were expected, 1,023,999 came"),
    ],
)
def test_what_is_wrong_is_deleted(
    serving: Serving, tmp_path: Path, change: Callable[[Path, Serving], None], message: str
) -> None:
    change(tmp_path / "text", serving)
    with pytest.raises(
        DataError, match=f"is not what it was: {message}.*; it was deleted, take the text from"
    ):
        download(corpus(serving), tmp_path / "text")
    assert list(tmp_path.iterdir()) == []


def test_more_than_all_begins_anew(serving: Serving, tmp_path: Path) -> None:
    longer_than_all(tmp_path / "text", serving)
    assert download(corpus(serving, Expected(sha256=SHA256)), tmp_path / "text") == SHA256
    assert serving.asked[-1] == 0


@pytest.mark.parametrize(
    ("status", "word"), [(404, "answers 404"), (500, "answers 500"), (403, "answers 403")]
)
def test_a_refusal_is_told(serving: Serving, tmp_path: Path, status: int, word: str) -> None:
    serving.status = status
    with pytest.raises(DataError, match=word):
        download(corpus(serving), tmp_path / "text")
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot reach 127.0.0.1:1 .*: go online and try again, or take the"):
        download(Corpus("a", "b", "http://127.0.0.1:1/x", "", Expected()), tmp_path / "text")


def test_a_disk_that_does_not_take_it(serving: Serving) -> None:
    with pytest.raises(DataError, match="cannot write /dev/full/text: "):
        download(corpus(serving), Path("/dev/full/text"))


def zipped(name: str, text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (zipped("inner", TEXT), None),
        (zipped("inner", TEXT[1:]), "inner in .* is not what it was: 1,024,000 bytes were expected"),
        (zipped("other", TEXT), "is no zip archive with inner"),
        (TEXT, "is no zip archive with inner"),
    ],
)
def test_a_file_of_an_archive(serving: Serving, tmp_path: Path, body: bytes, message: str | None) -> None:
    serving.body = body
    whole = Expected(len(body), hashlib.sha256(body).hexdigest())
    wanted = corpus(serving, whole, Member("inner", Expected(len(TEXT), SHA256)))
    if message is None:
        assert download(wanted, tmp_path / "text") == SHA256
        assert [file.name for file in tmp_path.iterdir()] == ["text"]
    else:
        with pytest.raises(DataError, match=message):
            download(wanted, tmp_path / "text")
        assert not (tmp_path / "text").exists()
        assert not (tmp_path / "text.extracted").exists()


def test_the_catalogue_is_whole() -> None:
    found = read_catalogue()
    assert {"tiny-shakespeare", "warpeace", "linux", "names", "enwik8"} <= set(found)
    assert all(it.url.startswith(("https://", "http://mattmahoney.net/")) for it in found.values())


def test_a_catalogue_of_ones_own(
    serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARRNN_DATA", "kept/here")
    entry = f'about = "mine"\nurl = "{serving.url}"\nsha256 = "{SHA256}"\nlicence = "mine"\n'
    (tmp_path / "my.toml").write_text(f"[mine]\n{entry}")
    command = ["data", "--catalogue", "my.toml"]
    assert main([*command, "get", "mine"]) == 0
    out, err = capsys.readouterr()
    assert (out, Path("kept/here/mine.txt").read_bytes()) == ("kept/here/mine.txt\n", TEXT)
    assert f"sha256 {SHA256}, as expected" in err
    assert "next: charrnn train data:mine --out runs/mine" in err
    assert main([*command, "get", "mine"]) == 3
    assert capsys.readouterr().err == (
        "error: kept/here/mine.txt exists: give another --out, or --force to replace it\n"
    )
    assert main([*command, "get", "mine", "--force", "--out", "no/such"]) == 3
    monkeypatch.setenv("CHARRNN_DATA", "my.toml/below")
    capsys.readouterr()
    assert main([*command, "get", "mine"]) == 3
    assert "cannot make my.toml/below: Not a directory; give --out, or" in capsys.readouterr().err
    assert main([*command, "info", "mine", "--json"]) == 0
    capsys.readouterr()
    assert main([*command, "get", "yours"]) == 3
    assert capsys.readouterr().err == "error: no corpus is called 'yours'; there are mine\n"
    (tmp_path / "my.toml").write_text("[mine]\ncolour = 3\n")
    assert main([*command, "list"]) == 3
    assert "my.toml is no catalogue of corpora: " in capsys.readouterr().err


def test_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARRNN_DATA", str(tmp_path))
    (tmp_path / "enwik8.txt").write_text("fetched before")
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert "tiny-shakespeare     1.1 MB  " in listed
    assert "charrnn train python-stdlib" in listed
    assert main(["data", "list", "--json"]) == 0
    corpora = {corpus["name"]: corpus for corpus in json.loads(capsys.readouterr().out)}
    assert corpora["tiny-shakespeare"]["expected"]["num_bytes"] == 1115394
    fetched = {name for name, corpus in corpora.items() if corpus["is_fetched"]}
    assert fetched == {"enwik8", "pydoc-topics", "python-stdlib"}
    assert [line.split()[0] for line in listed.splitlines() if line.endswith("; fetched")] == ["enwik8"]
    assert main(["data", "info", "enwik8"]) == 0
    assert "member    enwik8" in capsys.readouterr().out
    assert main(["data", "get", "python-stdlib"]) == 3
    assert "comes with Python" in capsys.readouterr().err

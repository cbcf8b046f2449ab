"""A device that is not there: said in one line, before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from charrnn import Engine
from charrnn.errors import BundleError, ConfigError, RequestError
from tests.servers import run_charrnn

without_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="a GPU is there")


def refused(*arguments: str | Path) -> tuple[int, str]:
    done = run_charrnn(*arguments)
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


@without_gpu
@pytest.mark.parametrize("more", [(), ("--check",), ("--precision", "fp32")])
def test_a_server_without_its_gpu_does_not_start(tiny_bundle: Path, more: tuple[str, ...]) -> None:
    code, said = refused("serve", tiny_bundle, "--listen", "127.0.0.1:0", "--device", "cuda:1", *more)
    assert code == 3
    assert "device cuda:1 cannot be used: " in said
    assert "take --device cpu" in said


@without_gpu
def test_a_file_asks_for_a_device_as_the_command_line_does(tiny_bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('[serve]\ndevice = "cuda"\nlisten = "127.0.0.1:0"\n')
    code, said = refused("serve", tiny_bundle, "--config", config)
    assert (code, "device cuda:0 cannot be used: " in said) == (3, True)


@without_gpu
def test_a_text_without_its_gpu_is_none(tiny_bundle: Path) -> None:
    assert refused("sample", tiny_bundle, "--device", "cuda")[0] == 3
    with pytest.raises(ConfigError, match="device cuda:0 cannot be used: "):
        Engine(tiny_bundle, device="cuda")
    with Engine(tiny_bundle) as engine:  # nothing is left of the attempt
        assert engine.generate(max_tokens=5, seed=1).read()


def test_what_is_no_device_and_what_a_gpu_does_not_compute(tiny_bundle: Path) -> None:
    with pytest.raises(RequestError, match='device is "gpu"; it must be cpu, cuda, or cuda:N'):
        Engine(tiny_bundle, device="gpu")
    with pytest.raises(RequestError, match="cuda:0 computes fp32 only; leave out --precision int8"):
        Engine(tiny_bundle, device="cuda", precision="int8")
    with pytest.raises(BundleError, match="fp16"):
        Engine(tiny_bundle, device="cuda", precision="fp16")

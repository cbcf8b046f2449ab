"""What to send, and when.

Knows how people write it; what can be done is checked where it is done, in Rust.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from charrnn.addresses import check_address, check_token
from charrnn.errors import DataError, RequestError
from charrnn.tls import Tls

MAX_ACTIVE = 4096
"""Requests of an open load under way at once; one that comes due beyond them is not sent, and counted."""
STREAMS_PER_CONNECTION = 512
"""Half of what one connection to ``charrnn serve`` may hold."""
MAX_SECONDS = 604_800
"""Of each part of a run: a week."""
MAX_SPREAD = 10**9
MAX_SIGMA = 10
DISTINCT = 64
"""Texts that a run with ``check`` compares with."""

Spread = Mapping[str, Any]
"""How numbers are spread: ``{"uniform": [1, 9]}``, ``{"exponential": {"mean": 200}}`` or
``{"lognormal": {"median": 200, "sigma": 0.8}}``."""

_SPREAD = re.compile(
    r"(?P<low>\d+)(\.\.(?P<high>\d+))?|exp:(?P<mean>[^:]+)|lognormal:(?P<median>[^:]+):(?P<sigma>[^:]+)"
)
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def parse_spread(words: str) -> Spread:
    """``200``, ``100..300``, ``exp:200`` (mean) or ``lognormal:200:0.8`` (median and sigma).

    Raises:
        RequestError: anything else.
    """
    match = _SPREAD.fullmatch(words.strip())
    try:
        if match and match["low"]:
            if not 1 <= int(match["low"]) <= int(match["high"] or match["low"]) <= MAX_SPREAD:
                raise RequestError(f"{words!r} is not within 1 and {MAX_SPREAD:,}, the smaller number first")
            return {"uniform": [int(match["low"]), int(match["high"] or match["low"])]}
        if match and not all(_is_spread(match[name]) for name in ("mean", "median") if match[name]):
            raise RequestError(f"{words!r} is not of a mean or median within 1 and {MAX_SPREAD:,}")
        if match and match["sigma"] and not 0 <= float(match["sigma"]) <= MAX_SIGMA:
            raise RequestError(f"{words!r} is not of a sigma within 0 and {MAX_SIGMA}")
        if match and match["mean"]:
            return {"exponential": {"mean": float(match["mean"])}}
        if match:
            return {"lognormal": {"median": float(match["median"]), "sigma": float(match["sigma"])}}
    except RequestError:
        raise
    except ValueError:
        pass
    raise RequestError(f"{words!r} is none of 200, 100..300, exp:200 and lognormal:200:0.8")


def _is_spread(words: str) -> bool:
    return 1 <= float(words) <= MAX_SPREAD


def parse_slo(words: str) -> dict[str, float]:
    """``first_char=100ms,inter_char=20ms,request=5s``, or some of them, as limits in milliseconds.

    Raises:
        RequestError: another name, or no time.
    """
    limits = {}
    for part in filter(None, words.split(",")):
        name, _, value = part.strip().partition("=")
        match = re.fullmatch(r"([0-9.]+)(us|ms|s)", value.strip())
        if name not in ("first_char", "inter_char", "request") or match is None:
            raise RequestError(
                f"{part!r} in an SLO is not like first_char=100ms, inter_char=20ms or request=5s"
            )
        if f"{name}_ms" in limits:
            raise RequestError(f"{name} stands twice in the SLO {words!r}; give it one limit")
        try:
            limits[f"{name}_ms"] = float(match[1]) * _MS[match[2]]
        except ValueError:
            raise RequestError(f"{value!r} in an SLO is no time; write it like 100ms") from None
    return limits


def read_prompts(path: Path) -> list[Mapping[str, Any]]:
    """Prompts of a file, one a line: plain, or in a ``.jsonl`` file ``{"prompt": "...", "max_tokens": 200}``.

    Raises:
        DataError: a file that cannot be read, is empty, or mixes the two.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read prompts from {path}: {error}") from error
    if not lines:
        raise DataError(f"{path} has no prompts: write one a line")
    if path.suffix not in (".jsonl", ".ndjson"):
        return [{"text": line} for line in lines]
    return [_prompt(path, number, line) for number, line in enumerate(lines, 1)]


def _prompt(path: Path, number: int, line: str) -> Mapping[str, Any]:
    need = f'{path}, line {number}: write {{"prompt": "...", "max_tokens": 200}}; max_tokens may be left out'
    try:
        read = json.loads(line)
    except ValueError as error:
        raise DataError(need) from error
    if not isinstance(read, dict) or not set(read) <= {"prompt", "max_tokens"}:
        raise DataError(need)
    text, length = read.get("prompt", ""), read.get("max_tokens")
    if not isinstance(text, str) or not (length is None or (type(length) is int and length > 0)):
        raise DataError(need)
    return {"text": text, "max_tokens": length}


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """One run. Exactly one of ``rate`` and ``streams`` says how requests are sent.

    Args:
        address: ``host:port``.
        rate: requests a second, on a schedule that no answer delays (open loop).
        streams: so many texts at once, each followed by the next (closed loop).
        arrivals: of an open loop: independent of one another, or equally far apart.
        duration_s: seconds that count, after ``warmup_s`` that do not; requests under way at the end get
            ``drain_s`` more.
        seed: of the schedule and of every request; the same plan sends the same requests.
        prompts: ``{"text": ..., "max_tokens": ...}`` each, of which a request takes one.
        max_tokens: characters of a text whose prompt says nothing.
        cancel_fraction: of requests that are cancelled at a random character.
        slow_fraction: of requests that are read slowly, a message every ``slow_read_ms``; in no latency.
        deadline_ms: that a request has, from when it was due.
        slo: limits in milliseconds of ``first_char_ms``, ``inter_char_ms``, ``request_ms``.
        distinct: so many different requests again and again; ``None`` makes each its own.
        check: compare every text with that of the same request alone, before the load.
        requests: end after so many.
        connections: ``None`` takes enough for the streams.
        multiplex: send requests on calls that they share (``GenerateMany``), but for those read slowly, which
            would hold up others.
        token: sent with every request.
        insecure: send it to another machine even where anybody on the way can read it.

    Raises:
        RequestError: an address that is no ``host:port``, not exactly one of ``rate`` and ``streams``, or a
            token that would be readable on its way.
    """

    address: str
    rate: float | None = None
    streams: int | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"
    duration_s: float = 30.0
    warmup_s: float = 5.0
    drain_s: float = 30.0
    seed: int = 0
    model: str = ""
    prompts: Sequence[Mapping[str, Any]] = ({"text": ""},)
    max_tokens: Spread = None  # type: ignore[assignment]
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    chunk_chars: int | None = None
    max_chunk_delay_ms: int | None = None
    cancel_fraction: float = 0.0
    slow_fraction: float = 0.0
    slow_read_ms: float = 100.0
    deadline_ms: Spread | None = None
    slo: Mapping[str, float] | None = None
    distinct: int | None = None
    check: bool = False
    requests: int | None = None
    max_active: int = MAX_ACTIVE
    connections: int | None = None
    multiplex: bool = False
    threads: int = 1
    csv: str | None = None
    tls: Tls | None = None
    token: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        check_address(self.address)
        check_token(self.token, self.address, may_be_read=self.insecure or self.tls is not None)
        if (self.rate is None) == (self.streams is None):
            raise RequestError("a load needs a rate or a number of streams, and not both")

    def with_rate(self, rate: float) -> Self:
        """The same at another rate."""
        return replace(self, rate=rate, streams=None)

    def with_streams(self, streams: int) -> Self:
        """The same with another number of streams."""
        return replace(self, rate=None, streams=streams)

    def to_json(self) -> str:
        """As ``_native.run_load`` takes it."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        at_once = min(self.streams or self.max_active, 1_000_000)
        rate, streams, arrivals = (fields.pop(name) for name in ("rate", "streams", "arrivals"))
        is_open = {"open": {"rate": rate, "poisson": arrivals == "poisson"}}
        fields["load"] = is_open if streams is None else {"closed": {"streams": streams}}
        fields["max_tokens"] = self.max_tokens or {"uniform": [256, 256]}
        fields["prompts"] = [{"text": "", "max_tokens": None, **prompt} for prompt in self.prompts]
        fields["slo"] = {
            f"{name}_ms": (self.slo or {}).get(f"{name}_ms")
            for name in ("first_char", "inter_char", "request")
        }
        fields["distinct"] = self.distinct or (DISTINCT if self.check else None)
        fields["connections"] = self.connections or math.ceil(at_once / STREAMS_PER_CONNECTION)
        del fields["insecure"]
        fields["tls"] = None if self.tls is None else _tls_fields(self.tls)
        return json.dumps(fields)


def _tls_fields(tls: Tls) -> dict[str, Any]:
    identity = None if tls.cert is None else (tls.cert, tls.key)
    return {"ca": tls.ca, "server_name": tls.server_name, "identity": identity}

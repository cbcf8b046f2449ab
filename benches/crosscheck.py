"""``charrnn bench`` beside clients that share no code with it: ``python benches/crosscheck.py ADDR``.

The same load in turns from ``charrnn bench``, from a client on grpc.aio and, where it is installed, from ghz
(``go install github.com/bojand/ghz/cmd/ghz@latest``), which knows requests only. Each figure is the median of
some rounds, each ratio that of the rounds' ratios, since a machine drifts. Exit code 1 where one is further
than 5 % from 1. A p99 is told and not judged: of a few hundred requests it is the third slowest.

Rates are low and prompts long, so that what a Python client takes for itself is small beside what the server
takes. On a machine that does other work too, ask ``benches/servers/paced.py`` instead, which only waits.
``--alone`` measures with the client on grpc.aio only, which also has a closed loop: ``--streams``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from aio_client import QUANTILES, Figures, Load, grpc_aio
from google.protobuf import descriptor_pb2

from charrnn._pb import charrnn_pb2 as pb

TOLERANCE = 0.05
TIMES = ("first_char_ms", "request_ms")


def ghz(address: str, load: Load) -> Figures:
    """Requests only, and from when they were sent; it learns the contract from the server's reflection."""
    stopping = {"max_tokens": load.max_tokens}
    request = {"prompt": load.prompt, "sampling": {"seed": "{{.RequestNumber}}"}, "stopping": stopping}
    options = {
        "--call": "charrnn.v1.CharRnn.Generate",
        "--data": json.dumps(request),
        "--rps": load.rate,
        "--total": load.num_requests,
        "--skipFirst": round(load.rate * load.warmup),
        "--format": "json",
    }
    with tempfile.NamedTemporaryFile(suffix=".protoset") as contract:
        contract.write(protoset())
        contract.flush()
        options["--protoset"] = contract.name
        found = printed_json(["ghz", "--insecure", "--async", *flat(options), address])
    if found["statusCodeDistribution"].keys() != {"OK"}:
        raise SystemExit(f"requests of ghz failed: {found['errorDistribution']}")
    times = {f"p{each['percentage']}": each["latency"] for each in found["latencyDistribution"]}
    times["mean"] = found["average"]
    return {f"request_ms.{name}": times[name] / 1e6 for name in (*QUANTILES, "mean")}


def protoset() -> bytes:
    """The contract, compiled: ghz's own compiler refuses proto3's optional."""
    found = descriptor_pb2.FileDescriptorSet()
    pb.DESCRIPTOR.CopyToProto(found.file.add())
    return found.SerializeToString()


def charrnn_bench(address: str, load: Load) -> Figures:
    """``charrnn bench`` with the same plan."""
    options = {
        "--rate": load.rate,
        "--arrivals": "constant",
        "--duration": load.seconds,
        "--warmup": load.warmup,
        "--prompt": load.prompt,
        "--max-tokens": load.max_tokens,
    }
    command = [sys.executable, "-m", "charrnn", "bench", address, "--json", *flat(options)]
    (run,) = printed_json(command)["runs"]
    if run["outcomes"].keys() != {"ok"}:
        raise SystemExit(f"requests of charrnn bench failed: {run['outcomes']}, {run['messages']}")
    times = {f"{name}.{q}": run[name][q] for name in TIMES for q in (*QUANTILES, "mean")}
    return {"chars_per_s": run["chars_per_s"]} | times


def flat(options: dict[str, Any]) -> list[str]:
    """As a command line has them."""
    return [str(part) for option in options.items() for part in option]


def printed_json(command: Sequence[str]) -> Any:
    """What a command prints on stdout."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} exited with {done.returncode}")
    return json.loads(done.stdout)


def ratios(ours: Sequence[Figures], theirs: Sequence[Figures]) -> Figures:
    """Medians of the rounds' ratios, of the figures that both have."""
    names = [name for name in ours[0] if name in theirs[0]]
    pairs = list(zip(ours, theirs, strict=True))
    return {name: statistics.median(a[name] / b[name] for a, b in pairs) for name in names}


def off(found: Figures) -> list[str]:
    """The judged figures that are too far from 1."""
    judged = {name: ratio for name, ratio in found.items() if not name.endswith(".p99")}
    return [name for name, ratio in judged.items() if not abs(ratio - 1) <= TOLERANCE]


def compare(rounds: dict[str, list[Figures]]) -> list[str]:
    """Print our figures and theirs with ratios; return what is off."""
    ours, wrong = rounds.pop("charrnn bench"), []
    print(f"{'':<20}{'charrnn bench':>14}" + "".join(f"{name:>14}{'ratio':>8}" for name in rounds))
    found = {name: ratios(ours, theirs) for name, theirs in rounds.items()}
    for figure in ours[0]:
        line = f"{figure:<20}{middle(ours, figure):14.2f}"
        for name, theirs in rounds.items():
            has = figure in found[name]
            line += f"{middle(theirs, figure):14.2f}{found[name][figure]:8.3f}" if has else f"{'':22}"
        print(line)
    for name, each in found.items():
        wrong += [f"{figure} beside {name}" for figure in off(each)]
    print(json.dumps({"bench": "crosscheck", "ratios": found, "off": wrong}))
    return wrong


def middle(rounds: Sequence[Figures], figure: str) -> float:
    """The median of the rounds."""
    return statistics.median(each[figure] for each in rounds)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="host:port of a server, with no other load")
    parser.add_argument("--rate", type=int, default=8, help="requests a second, evenly spaced")
    parser.add_argument("--streams", type=int, default=0, help="closed loop of so many; needs --alone")
    parser.add_argument("--seconds", type=float, default=20.0, help="of every run, after the warm-up")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds that do not count")
    parser.add_argument("--prompt", default="the " * 30, help="what the model reads first")
    parser.add_argument("--max-tokens", type=int, default=120, help="characters of a text")
    parser.add_argument("--rounds", type=int, default=3, help="how often each client takes its turn")
    parser.add_argument("--alone", action="store_true", help="the grpc.aio client only")
    options = parser.parse_args()
    if options.streams and not options.alone:
        parser.error("--streams needs --alone")
    return options


def main() -> None:
    """Take turns, print the table, then the JSON line."""
    given = vars(read_options())
    address, num_rounds, is_alone = (given.pop(name) for name in ("address", "rounds", "alone"))
    load = Load(**given)
    clients: dict[str, Callable[[str, Load], Figures]] = {"grpc.aio": grpc_aio}
    if not is_alone:
        clients |= {"charrnn bench": charrnn_bench} | ({"ghz": ghz} if shutil.which("ghz") else {})
    rounds: dict[str, list[Figures]] = {name: [] for name in clients}
    for _ in range(num_rounds):
        for name, client in clients.items():
            rounds[name].append(client(address, load))
    if is_alone:
        (alone,) = rounds.values()
        print(
            json.dumps({"bench": "crosscheck", "figures": {name: middle(alone, name) for name in alone[0]}})
        )
    elif wrong := compare(rounds):
        raise SystemExit(f"further than {TOLERANCE:.0%} from 1: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

"""Runs of plans: one, a sweep, or a search for the knee.

Knows when to run which plan; the report of a run is a mapping as docs/bench.md describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn import _native
from charrnn.bench.plan import LoadPlan
from charrnn.errors import ServerError, ServerUnavailableError
from charrnn.sampler import refusing_overflow
from charrnn.tls import why_not

Report = dict[str, Any]
OnTick = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Watch:
    """Who looks on: ``on_tick`` sees every second of a run, ``is_stopped`` is asked whether it is to end."""

    on_tick: OnTick = lambda tick: None
    is_stopped: Callable[[], bool] = lambda: False

    def look(self, tick: str | None) -> bool:
        """As ``_native.run_load`` asks: whether the run goes on."""
        if tick is not None:
            self.on_tick(json.loads(tick))
        return not self.is_stopped()


NOBODY = Watch()

GOOD_SHARE = 0.99
"""Of requests that have to meet the SLO for it to hold."""
KNEE_RATIO = 1.05
"""The search ends when the rates at which the SLO holds and fails are this close."""


def run_load(plan: LoadPlan, watch: Watch = NOBODY) -> Report:
    """Carry out ``plan``.

    Ctrl-C, as the wish of ``watch``, ends the run early, with the report so far marked ``"interrupted"``.

    Raises:
        RequestError: a plan that cannot be carried out, or whose first request the server refuses.
        ServerUnavailableError: nobody answers at the address, or TLS keeps the two apart.
        ServerError: no charrnn server answers there or, with ``check``, a text that runs alone failed.
        KeyboardInterrupt: it was ended before the load began.
    """
    try:
        with refusing_overflow():
            report, interrupted = _native.run_load(plan.to_json(), watch.look)
    except ServerError as error:
        if why := why_not(plan.address, plan.tls):
            raise ServerUnavailableError(why) from error
        raise
    return {**json.loads(report), "interrupted": interrupted}


def steps(low: float, high: float, count: int) -> list[float]:
    """``count`` numbers from ``low`` to ``high``, each as many times the one before.

    >>> steps(10, 1000, 3)
    [10.0, 100.0, 1000.0]
    """
    if count == 1:
        return [float(low)]
    ratio = (high / low) ** (1 / (count - 1))
    return [round(low * ratio**step, 6) for step in range(count)]


def sweep(plans: Sequence[LoadPlan], watch: Watch = NOBODY) -> Iterator[Report]:
    """The reports of ``plans``, in turn; none after one that was interrupted."""
    for plan in plans:
        report = run_load(plan, watch)
        yield report
        if report["interrupted"]:
            return


def slo_holds(report: Report) -> bool:
    """Whether ``GOOD_SHARE`` of the requests met the SLO. None at all do not."""
    return (report["good_share"] or 0.0) >= GOOD_SHARE


def find_knee(
    plan: LoadPlan, low: float, high: float, run: Callable[[LoadPlan], Report] = run_load
) -> Iterator[Report]:
    """Runs that close in on the highest rate from ``low`` to ``high`` at which the SLO holds.

    Doubles the rate until the SLO fails, then halves the ratio between the two until it is at most
    ``KNEE_RATIO``. Noise moves the answer by about the spread of single runs: longer ones find it closer.
    """
    good, bad, rate = 0.0, math.inf, low
    while rate <= high:
        report = run(plan.with_rate(rate))
        yield report
        if report["interrupted"]:
            return
        good, bad = (rate, bad) if slo_holds(report) else (good, rate)
        if good == 0.0 or bad <= good * KNEE_RATIO or good == high:
            return
        rate = min(good * 2, high) if bad == math.inf else math.sqrt(good * bad)


def knee(reports: Sequence[Report]) -> float | None:
    """The highest rate at which the SLO held, of those that were tried; ``None`` if it never did."""
    held = [report["plan"]["load"]["open"]["rate"] for report in reports if slo_holds(report)]
    return max(held, default=None)

"""Load on a server, and what each layer beneath it costs.

    plan      what to send and when
    load      runs of plans, sweeps over rates, the knee
    document  the JSON document of runs: written, read, compared
    layers    steps, draws, engine and clients, each beside the one before
    figures   plots, by matplotlib
    page      one HTML file with them

Knows what users ask and see; sending and measuring are the Rust crate charrnn-bench's.

Example:
    >>> from charrnn.bench.load import run_load  # doctest: +SKIP
    >>> from charrnn.bench.plan import LoadPlan
    >>> run_load(LoadPlan(address="127.0.0.1:50051", rate=50))["first_char_ms"]["p99"]
"""

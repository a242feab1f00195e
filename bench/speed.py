"""The benchmark: every contender's result is checked, then its time taken, case by case."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import grid, inputs, measure
from bench.contenders import AbsentError, Call, Contender
from bench.contenders.roofline import Roofline, traffic

LARGE_MIB = 64.0
PEERS = ("torch", "onednn", "jax", "numpy", "compile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a part of the grid, within two minutes")
    parser.add_argument("--only", metavar="REGEX", help="cases whose name matches, such as 'ln .* bwd'")
    parser.add_argument(
        "--shape", action="append", help='a shape beside the grid, such as "ln 777x1023"; repeatable'
    )
    parser.add_argument(
        "--threads", type=int, default=min(2, os.cpu_count() or 1), help="default: %(default)s"
    )
    parser.add_argument("--isa", help="force normkit's instruction set, such as avx2")
    parser.add_argument(
        "--peers", default="torch,onednn", help=f"of {', '.join(PEERS)}; default: %(default)s"
    )
    parser.add_argument("--cold", action="store_true", help="empty the caches before every execution")
    parser.add_argument("--rounds", type=int, help="default: 9, or 5 with --quick")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="default: %(default)s")


def environment(threads: int) -> dict[str, str]:
    """What libraries read when they are loaded: the number of threads, and where oneDNN's device is."""
    from bench.contenders.onednn import package_environment

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DNNL_CPU_THREADS", "NORMKIT_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), **package_environment()}


def restart_with(wanted: dict[str, str]) -> None:
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, {**os.environ, **wanted})


def contenders(peers: list[str], threads: int) -> tuple[list[Contender], dict[str, str]]:
    """Those that are here, and why the others are not."""
    from bench.contenders.jax_jit import Jax
    from bench.contenders.onednn import OneDnn
    from bench.contenders.ours import Ours
    from bench.contenders.plain_numpy import NumPy
    from bench.contenders.torch_eager import Torch

    makers: dict[str, list[tuple[str, Callable[[], Contender]]]] = {
        "torch": [("torch", lambda: Torch(threads))],
        "onednn": [
            ("oneDNN SYCL", lambda: OneDnn("oneDNN SYCL", package=True)),
            ("oneDNN OpenMP", lambda: OneDnn("oneDNN OpenMP", package=False)),
        ],
        "jax": [("jax", Jax)],
        "numpy": [("numpy", NumPy)],
        "compile": [("torch.compile", lambda: Torch(threads, compiles=True))],
    }
    found: list[Contender] = [Ours("normkit out="), Ours("normkit", fresh=True)]
    absent: dict[str, str] = {}
    for peer in peers:
        for name, make in makers[peer]:
            try:
                found.append(make())
            except AbsentError as reason:
                absent[name] = str(reason)
    return found, absent


def extras(case: grid.Case, threads: int) -> list[Contender]:
    """What the targets ask beside: one thread, AVX2, and the speed of memory."""
    import normkit as nk
    from bench.contenders.ours import Ours

    more: list[Contender] = []
    if threads > 1 and 1.0 <= case.mib <= 8.0:
        more.append(Ours("normkit 1 thread", threads=1))
    if nk.isa.active().startswith("avx512"):
        more.append(Ours("normkit avx2", isa="avx2"))
    if case.mib >= LARGE_MIB:
        try:
            more.append(Roofline("memory", traffic(case)[0], threads))
        except AbsentError as reason:
            print(f"{case.name}: without the speed of memory: {reason}")
    return more


def run_case(
    case: grid.Case, everyone: list[Contender], rounds: int, *, cold: bool = False
) -> dict[str, Any]:
    """Times and notes of one case, as the JSON file has them."""
    data = inputs.make(case)
    calls: dict[str, Call] = {}
    record: dict[str, Any] = {
        "case": case.name,
        "group": case.group,
        "mib": case.mib,
        "errors": {},
        "notes": {},
        "wrong": {},
    }
    for contender in everyone:
        if not contender.supports(case):
            continue
        try:
            call = contender.prepare(data)
            results = call.results()
        except (RuntimeError, MemoryError) as error:
            record["wrong"][contender.name] = f"failed: {error}"
            continue
        error_found = inputs.error_of(data, results) if results else 0.0
        record["errors"][contender.name] = error_found
        if not error_found <= inputs.TOLERANCE:
            record["wrong"][contender.name] = f"WRONG by {error_found:.1e} of the largest element"
            continue
        record["notes"][contender.name] = call.note
        calls[contender.name] = call
        del results
    record["seconds"] = measure.interleaved(calls, rounds, cold=cold)
    return record


def machine() -> dict[str, Any]:
    import normkit as nk

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = names[0] if names else model
    config = nk.show_config()
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "isa": config["isa_active"],
        "cache_bytes": config["cache_bytes"],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def chosen(arguments: argparse.Namespace) -> list[grid.Case]:
    cases = [case for text in arguments.shape or [] for case in grid.parse(text)]
    if not cases:
        cases = grid.standard()
    if arguments.quick and not arguments.shape:
        cases = [case for case in cases if grid.QUICK.match(case.name)]
    if arguments.only:
        cases = [case for case in cases if re.search(arguments.only, case.name)]
    return cases


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    restart_with(environment(arguments.threads))
    peers = [peer for peer in arguments.peers.split(",") if peer]
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        raise SystemExit(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    cases = chosen(arguments)
    if not cases:
        raise SystemExit("no case matches; names are like 'ln 1024x768 fwd' and 'bn 32x64x56x56 nhwc bwd'")
    import normkit as nk

    if arguments.isa:
        nk.isa.use(arguments.isa)
    everyone, absent = contenders(peers, arguments.threads)
    for name, reason in absent.items():
        print(f"without {name}: {reason}")
    rounds = arguments.rounds or (5 if arguments.quick else 9)
    began = time.monotonic()
    document: dict[str, Any] = {
        "machine": machine(),
        "threads": arguments.threads,
        "rounds": rounds,
        "cold": arguments.cold,
        "date": time.strftime("%Y-%m-%d"),
        "versions": {contender.name: contender.version for contender in everyone},
        "absent": absent,
        "cases": [],
    }
    for case in _progress(cases):
        document["cases"].append(
            run_case(case, everyone + extras(case, arguments.threads), rounds, cold=arguments.cold)
        )
    document["bandwidth"] = bandwidth(arguments.threads, rounds)
    document["minutes"] = (time.monotonic() - began) / 60
    arguments.json.write_text(json.dumps(document, indent=1))
    return document


def bandwidth(threads: int, rounds: int) -> list[dict[str, Any]]:
    """Bytes per second that a copy and a streaming copy reach, by the size of an array."""
    try:
        kinds = {
            "copy": Roofline("copy", 1, threads, streams=False),
            "streaming copy": Roofline("stream", 1, threads),
        }
    except AbsentError as reason:
        print(f"without the speed of memory: {reason}")
        return []
    found = []
    for exponent in range(15, 28):
        size = 1 << exponent
        seconds = measure.interleaved(
            {name: kind.of_bytes(size) for name, kind in kinds.items()}, min(rounds, 5)
        )
        found.append({"bytes": size, **{name: 2 * size / measure.median(s) for name, s in seconds.items()}})
    return found


def _progress(cases: list[grid.Case]) -> Any:
    if not importlib.util.find_spec("tqdm") or not sys.stderr.isatty():
        return cases
    from tqdm import tqdm

    return tqdm(cases, unit="case", leave=False)

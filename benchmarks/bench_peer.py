"""Calibration beside its peer: `mmlab calibrate schedule` and what hftbacktest's tutorial does, as whole commands.

Both find A and k for every 15 minutes of the generated day from the 2 hours before, 88 times. Commands run in turn,
A B C A B C, from process start to its end. The peer runs in an environment of its own, since it needs an older numpy;
it is made once, in the temporary folder. Its event files are made from the same lake before anything is timed. Its
windows are those of mmlab; the tutorial itself fits the last 10 minutes every 5 seconds, which is more work. The peer
runs twice: as the tutorial has it, on the whole book, and `light`, lightened where that changes no figure
(`benchmarks/peer/tutorial.py`) and on the touch alone, which is all that either calibration looks at.

The peer's two figures are not estimates of the same two numbers: it counts both sides together, at most one print in
100 ms, by the mid of 100 ms before, and only prints that go beyond a distance. Here they are converted to a side and a
tick, and checked to be of the right order only.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl

from benchmarks.market import DAY, SPEC, lake_with_day
from benchmarks.table import Timing, markdown, ratio, time_pairs, write
from mmlab.store.lake import Lake

DELTAS = 200
ROUNDS, CALLS = 5, 6
PEER_VERSION = "2.4.4"
PEER = (f"hftbacktest=={PEER_VERSION}", "numpy<2.3")
SCRIPTS = Path(__file__).parent / "peer"


@dataclass(frozen=True)
class Found:
    """What a command found in each window: A per second and side, k per tick."""

    A: list[float]
    k: list[float]

    @property
    def median(self) -> tuple[float, float]:
        """Over the windows."""
        return statistics.median(self.A), statistics.median(self.k)


@dataclass(frozen=True)
class Ran:
    """One whole process, and what it found."""

    seconds: float
    cpu_s: float
    peak_mib: float
    found: Found


def environment(cache: Path) -> dict[str, str]:
    """Ours, but numba keeps its kernels in `cache`, and Python its modules' code, as it does unless told otherwise."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "NUMBA_CACHE_DIR": str(cache)}


def whole(command: Sequence[object], cache: Path, found: Callable[[str], Found]) -> Ran:
    """Run a command from process start to its end.

    Linux starts a child's peak memory at its parent's, so this process must stay smaller than what it measures.
    """
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=out, env=environment(cache))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        out.seek(0)
        return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found(out.read()))


def peer_python() -> Path:
    """The interpreter of the peer's environment, which is made if it is not there."""
    folder = Path(tempfile.gettempdir()) / "mmlab-benchmarks-peer"
    python = folder / "bin" / "python"
    probe = f"import hftbacktest; assert hftbacktest.__version__ == {PEER_VERSION!r}"
    if not python.exists() or subprocess.run([python, "-c", probe], check=False).returncode:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
    return python


def arguments(lake: Path, out: str) -> list[str]:
    """`calibrate schedule` with its defaults but for 200 distances and the estimator whose errors are right."""
    return [
        "calibrate", "schedule", "--symbol", "BENCH", "--day", str(DAY), "--data-root", str(lake), "--out-root", out,
        "--deltas", ",".join(map(str, range(1, DELTAS + 1))), "--max-delta-ticks", str(DELTAS),
        "--fit-method", "nested_mle", "--train-window-min", "120", "--step-min", "15",
    ]  # fmt: skip


def mmlab(lake: Path, cache: Path) -> Ran:
    """One whole process of ours."""
    with tempfile.TemporaryDirectory() as out:

        def found(_: str) -> Found:
            [file] = Path(out).glob("calibration/**/windows.parquet")
            windows = pl.read_parquet(file, hive_partitioning=False)
            assert windows["source"].unique().to_list() == ["fit"]
            return Found(windows["A"].to_list(), windows["k"].to_list())

        return whole((Path(sys.executable).parent / "mmlab", *arguments(lake, out)), cache, found)


@dataclass(frozen=True)
class Peer:
    """The peer's commands on its event files, in `folder`."""

    python: Path
    folder: Path

    def file(self, mode: str) -> Path:
        """Its events: the touch alone for `light`, the whole book for `written`."""
        return self.folder / f"{mode}.npz"

    def convert(self, day: Path) -> dict[str, int]:
        """Write both event files of the day; the number of events of each."""
        jobs = {"written": SPEC.levels, "light": 1}
        return {
            mode: int(subprocess.check_output([self.python, SCRIPTS / "tape.py", day, str(n), self.file(mode)]))
            for mode, n in jobs.items()
        }

    def command(self, mode: str, calls: int = 1) -> tuple[object, ...]:
        """The tutorial's calibration, `calls` times in one process."""
        script = SCRIPTS / "tutorial.py"
        return self.python, script, mode, self.file(mode), calls, SPEC.tick_size, SPEC.lot_size

    def run(self, mode: str, cache: Path) -> Ran:
        """One whole process."""
        return whole(self.command(mode), cache, lambda text: per_tick(json.loads(text)["fits"]))

    def in_process_s(self, mode: str, cache: Path) -> float:
        """Median seconds of a call that compiles nothing."""
        command = [str(part) for part in self.command(mode, CALLS)]
        text = subprocess.check_output(command, env=environment(cache))
        return statistics.median(json.loads(text)["seconds"][1:])


def per_tick(fits: list[tuple[float, float]]) -> Found:
    """The peer's A counts both sides, and its k is per half tick."""
    return Found([A / 2 for A, _ in fits], [2 * k for _, k in fits])


def in_process_s(lake: Path) -> float:
    """Median seconds of the same command when its process has run it before."""
    from mmlab.cli.app import app

    def call() -> None:
        with tempfile.TemporaryDirectory() as out, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            app(arguments(lake, out), standalone_mode=False)

    [timing] = time_pairs(call, repeats=CALLS - 1)
    return timing.median


def check(ours: Found, peers: Sequence[Found]) -> None:
    """mmlab finds the truth; the peer finds the same on both tapes, and the right order."""
    A, k = ours.median
    assert abs(A / SPEC.A - 1) < 0.02, A
    assert abs(k / SPEC.k - 1) < 0.02, k
    assert max(abs(A / SPEC.A - 1) for A in ours.A) < 0.05, ours.A
    assert max(abs(k / SPEC.k - 1) for k in ours.k) < 0.05, ours.k
    for peer in peers:
        assert peer == peers[0]
        assert len(peer.A) == len(ours.A)
        assert SPEC.A / 2 < peer.median[0] < SPEC.A * 2, peer.median
        assert SPEC.k / 2 < peer.median[1] < SPEC.k * 2, peer.median


def timing(runs: Sequence[Ran]) -> Timing:
    """Seconds of the whole processes."""
    return Timing(tuple(r.seconds for r in runs), runs[-1].found)


def row(engine: str, what: str, runs: Sequence[Ran], inside_s: float | None, ours: Sequence[Ran]) -> tuple[str, ...]:
    """A line of the table."""
    A, k = runs[-1].found.median
    return (
        engine,
        what,
        f"{timing(runs).median:.2f}",
        f"{statistics.median(r.cpu_s for r in runs):.2f}",
        "" if inside_s is None else f"{inside_s:.2f}",
        f"{max(r.peak_mib for r in runs):.0f}",
        f"{A:.3f}",
        f"{k:.4f}",
        f"**{ratio(timing(runs), timing(ours)):.1f}**",
    )


def main() -> None:
    """The first processes, then all in turn, then the calls inside a process."""
    python = peer_python()
    subprocess.run([sys.executable, "-c", "from benchmarks.market import lake_with_day; lake_with_day()"], check=True)
    lake = lake_with_day()  # made above, so that its memory is not this process's
    [ref] = Lake(lake).find("BENCH", DAY)
    with tempfile.TemporaryDirectory() as folder:
        peer, cache = Peer(python, Path(folder)), Path(folder) / "numba"
        n_events = peer.convert(ref.path)
        first, first_light = [mmlab(lake, cache)], [peer.run("light", cache)]
        rounds = [(mmlab(lake, cache), peer.run("written", cache), peer.run("light", cache)) for _ in range(ROUNDS)]
        ours, written, light = (list(runs) for runs in zip(*rounds, strict=True))
        inside = in_process_s(lake), peer.in_process_s("written", cache), peer.in_process_s("light", cache)
    check(ours[-1].found, [written[-1].found, light[-1].found])
    them = f"hftbacktest {PEER_VERSION}"
    rows = [
        row(f"mmlab {version('mmlab')}", f"`calibrate schedule`, {DELTAS} distances", ours, inside[0], ours),
        row(them, "as the tutorial has it, whole book", written, inside[1], ours),
        row(them, "light: the touch alone, fits cached", light, inside[2], ours),
        row(f"mmlab {version('mmlab')}", "its very first process, kernels compiled", first, None, first),
        row(them, "light, its very first process", first_light, None, first),
    ]
    head = (
        "engine", "measured", "whole process, s", "of CPU, s", "in process, s", "peak memory, MiB", "A", "k",
        "ratio to mmlab",
    )  # fmt: skip
    write("peer", f"{markdown(head, rows)}\n\n{notes(python, n_events, len(ours[-1].found.A))}")


def notes(python: Path, n_events: dict[str, int], n_windows: int) -> str:
    """What the table cannot say."""
    names = ("numba", "numpy")
    code = f"from importlib.metadata import version; print(*map(version, {names}))"
    versions = subprocess.check_output([python, "-c", code], text=True).split()
    return (
        f"{n_windows} windows each; A and k are medians over them (truth: {SPEC.A} and {SPEC.k}). The peer has "
        f"{' and '.join(f'{a} {b}' for a, b in zip(names, versions, strict=True))} and reads {n_events['written']:,} "
        f"events of the whole book or {n_events['light']:,} of the touch."
    )


if __name__ == "__main__":
    main()

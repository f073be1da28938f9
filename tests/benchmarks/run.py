"""How fast is it, compared with what the machine can do? One command each; ratios are measured within one run.

    python tests/benchmarks/run.py speech|peers|long|many|small|locked [--data DIR]

It needs espeak-ng and ffmpeg (Debian's packages) to make its audio; `peers` also installs m4bmaker and m4b-util from PyPI into
a virtual environment of their own. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import speech

AIOM4B = [sys.executable, "-m", "aiom4b"]

# An installed program has its modules compiled; a check-out may compile them anew at each start, in every process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def encode_only(seconds: float = 60.0) -> dict[str, float]:
    """Return how many seconds of PCM one core encodes in a second: fed block by block, and as our own encoder feeds it."""
    program = f"""
import os, time, json
os.sched_setaffinity(0, {{sorted(os.sched_getaffinity(0))[0]}})
import av, numpy as np
from aiom4b.engine import encode
from aiom4b.models import Encoder
source = [np.frombuffer(f.planes[0], np.float32, f.samples) for f in av.open({str(_sample())!r}).decode(audio=0)]
pcm = np.concatenate(source)[None, : int({seconds} * 44100) // 1024 * 1024].clip(-0.95, 0.95)
length = pcm.shape[1] / 44100
settings = Encoder(bit_rate=64000, asked=54400, sample_rate=44100, channels=1, aac_coder="fast")
def plain():
    context = encode._open(settings)
    for start in range(0, pcm.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[:, start:start + 1024]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, start
        for packet in context.encode(frame):
            bytes(packet)
def ours():
    chunks = (pcm[:, start:start + 172 * 1024] for start in range(0, pcm.shape[1], 172 * 1024))
    for packets in encode.packets(chunks, settings):
        pass
best = {{}}
for _ in range(5):
    for name, work in (("plain", plain), ("ours", ours)):
        began = time.perf_counter(); work(); best.setdefault(name, []).append(length / (time.perf_counter() - began))
print(json.dumps({{name: sorted(rates)[2] for name, rates in best.items()}}))
"""
    return json.loads(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    )


_data = Path(tempfile.gettempdir()) / "aiom4b-benchmarks"


def _sample() -> Path:
    return next(speech.book(_data, 1, 90).glob("*.mp3"))


class Watch(threading.Thread):
    """Samples, ten times a second, how busy the cores are and how much memory the processes of one session take."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self._session = session
        self._over = threading.Event()
        self._began = _busy()
        self.memory: dict[int, tuple[str, int]] = {}

    def run(self) -> None:
        while not self._over.wait(0.1):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    self._look(int(entry))

    def _look(self, process: int) -> None:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
            if int(stat.rpartition(")")[2].split()[3]) != self._session:
                return
            status = Path(f"/proc/{process}/status").read_text()
            command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except (OSError, ValueError):
            return
        peak = next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
        kind = "worker" if "forkserver" in command else "main"
        self.memory[process] = (kind, max(peak, self.memory.get(process, ("", 0))[1]))

    def stop(self) -> tuple[float, dict[str, list[int]]]:
        """Return the share of the cores' time that was busy, and the peaks (MiB) of main process and workers."""
        self._over.set()
        self.join()
        busy, total = _busy()
        share = (busy - self._began[0]) / max(1, total - self._began[1])
        peaks: dict[str, list[int]] = {}
        for kind, peak in self.memory.values():
            peaks.setdefault(kind, []).append(peak)
        return share, {kind: sorted(values, reverse=True) for kind, values in peaks.items()}


def _busy() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def convert(source: Path, *options: str, workers: int = 0) -> dict[str, object]:
    """Convert a book into an empty library and return what it printed, with the wall time, busy share and memory added."""
    place = Path(tempfile.mkdtemp(prefix="aiom4b-bench-", dir=_data))
    for name in ("library", "backup"):
        (place / name).mkdir()
    command = [
        *AIOM4B,
        "convert",
        str(source),
        "--library",
        str(place / "library"),
        "--json",
        "--workers",
        str(workers),
    ]
    command += [*options] if "--no-backup" in options else ["--backup", str(place / "backup"), *options]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    watch = Watch(process.pid)
    watch.start()
    out, _ = process.communicate()
    wall = time.monotonic() - began
    share, peaks = watch.stop()
    document = json.loads(out)
    shutil.rmtree(place)
    assert document["ok"], document
    return {**document["books"][0], "wall": wall, "busy": share, "memory": peaks}


def _tell(title: str, **figures: object) -> None:
    print(
        f"{title}: "
        + ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
        ),
        flush=True,
    )


def run_speech() -> None:
    """2.5 hours of speech: end to end against encoding alone, and how it scales."""
    source = speech.book(_data, 6, 1513)
    cores = len(os.sched_getaffinity(0))
    ratios = []
    for _ in range(3):
        rates = encode_only()
        found = convert(source)
        seconds = found["seconds"]
        length = found["samples"] / found["sample_rate"]
        speed = length / found["wall"]
        ratios.append((speed / (cores * rates["plain"]), speed / (cores * rates["ours"])))
        _tell("end to end", speed=speed, wall=found["wall"], plain_encoder=rates["plain"], our_encoder=rates["ours"])
        _tell("  ratio to cores × encode only", plain=ratios[-1][0], ours=ratios[-1][1], due=0.85)
        _tell("  seconds", **seconds)
        _tell("  busy", share=found["busy"], memory_MiB=found["memory"], bitrate=found["bitrate"])
    _tell(
        "median ratio",
        plain=statistics.median(one for one, _ in ratios),
        ours=statistics.median(one for _, one in ratios),
    )
    scaled = []
    for _ in range(3):
        one = convert(source, workers=1)["seconds"]["convert"]
        many = convert(source, workers=cores)["seconds"]["convert"]
        scaled.append(many / (one / cores))
        _tell("convert step", one_worker=one, all_workers=many, ratio_to_ideal=scaled[-1], due="≤ 1.1")
    _tell("median ratio to ideal", convert=statistics.median(scaled))


def run_peers() -> None:
    """The same files by m4bmaker and m4b-util."""
    source = speech.book(_data, 6, 1513)
    for name, options in (
        ("m4b-util", ["bind", "-o", ".", "-n", "book.m4b", str(source)]),
        ("m4bmaker", ["--no-prompt", "--narrator", "Ada Speaker", "--output", "book.m4b", str(source)]),
    ):
        tool = _data / f"peers-{name}"  # one environment each: what they depend on contradicts
        if not (tool / "bin" / name).exists():
            subprocess.run([sys.executable, "-m", "venv", str(tool)], check=True)
            subprocess.run([str(tool / "bin" / "pip"), "install", "-q", name], check=True)
        before = convert(source)["wall"]
        place = Path(tempfile.mkdtemp(prefix="aiom4b-peer-", dir=_data))
        began = time.monotonic()
        done = subprocess.run(
            [str(tool / "bin" / name), *options],
            cwd=place,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        wall = time.monotonic() - began
        made = list(place.rglob("*.m4b"))
        ours = statistics.mean((before, convert(source)["wall"]))  # the machine's speed drifts: before and after
        _tell(name, wall=wall, aiom4b=ours, times_slower=wall / ours, due="≥ 4.5", exit=done.returncode, made=len(made))
        if not made:
            print(done.stdout[-2000:], done.stderr[-2000:])
        shutil.rmtree(place)


def run_long() -> None:
    """One MP3 of 20 hours: busy cores, memory, serial time."""
    hour = next(speech.book(_data, 1, 3600).glob("*.mp3"))
    source = _data / "twenty-hours"
    source.mkdir(exist_ok=True)
    whole = source / "Twenty Hours.mp3"
    if not whole.exists():
        listing = _data / "hours.txt"
        listing.write_text(f"file '{hour}'\n" * 20)
        subprocess.run(
            [
                "ffmpeg",
                "-v",
                "error",
                "-y",
                "-f",
                "concat",
                "-safe",
                "0",
                "-i",
                str(listing),
                "-c",
                "copy",
                "-f",
                "mp3",
                str(whole),
            ],
            check=True,
        )
    found = convert(source)
    _tell(
        "20 hours",
        wall=found["wall"],
        speed=found["samples"] / found["sample_rate"] / found["wall"],
        busy=found["busy"],
        due="≥ 0.85",
    )
    _tell("  seconds", **found["seconds"])
    _tell("  memory MiB", **found["memory"])


def run_many() -> None:
    """330 files of 1.5 s."""
    found = convert(speech.book(_data, 330, 1.5))
    _tell("330 files", wall=found["wall"], due="≤ 5", chapters=len(found["chapters"]), samples=found["samples"])
    _tell("  seconds", **found["seconds"])


def run_small() -> None:
    """What a start costs: `version`, and a book of one minute."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([str(Path(sys.executable).parent / "aiom4b"), "version"], check=True, capture_output=True)
        times.append(time.monotonic() - began)
    _tell("version", median=statistics.median(times), due="≤ 0.3")
    walls = [convert(speech.book(_data, 1, 60))["wall"] for _ in range(3)]
    _tell("one minute", median=statistics.median(walls), due="≤ 2.5")


def run_locked() -> None:
    """An AAXC of 10 hours (590 MB): unlocked, copied, proved and published, beside `ffmpeg -c copy`, which proves nothing."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from audible_files import IV, KEY, lock_aaxc, plain_book

    source = _data / "ten-hours-locked"
    source.mkdir(exist_ok=True)
    locked = source / "Ten Hours.aaxc"
    if not locked.exists():
        plain = plain_book(_data / "ten-hours.m4b", 120.0, rate=44100, channels=2, times=300)
        lock_aaxc(plain, locked)
        plain.unlink()
    (source / "Ten Hours.key").write_text(f"Key={KEY.hex()}\nIV={IV.hex()}\n")
    parts = json.loads(
        subprocess.run(
            [sys.executable, "-c", _PARTS, str(locked), KEY.hex(), IV.hex()], check=True, capture_output=True, text=True
        ).stdout
    )
    speeds = []
    for _ in range(3):
        copied = _data / "copied.m4b"
        command = ["ffmpeg", "-v", "error", "-y", "-audible_key", KEY.hex(), "-audible_iv", IV.hex(), "-i", str(locked)]
        began = time.monotonic()
        subprocess.run([*command, "-map", "0:a:0", "-c", "copy", "-movflags", "+faststart", str(copied)], check=True)
        bare = time.monotonic() - began
        copied.unlink()
        found = convert(source)
        speeds.append(found["samples"] / found["sample_rate"] / found["wall"])
        _tell("10 hours, locked", speed=speeds[-1], wall=found["wall"], ffmpeg_copy=bare, busy=found["busy"])
        _tell("  seconds", **found["seconds"])
        _tell("  memory MiB", **found["memory"])
    cores = len(os.sched_getaffinity(0))
    _tell("median", speed=statistics.median(speeds), due="≥ 1500")
    _tell("by itself, s", **parts)
    share = parts["proof on one core"] / cores / found["seconds"]["total"]
    _tell("share of the proof", of_all_cores_time=share)


_PARTS = """
import json, os, sys, tempfile, time
from aiom4b.engine import copying, mux, probe
from aiom4b.models import AudibleKey, Chapter
path, key, iv = sys.argv[1:]
opened = AudibleKey(key=key, iv=iv)
audio = probe.examine(path, probe.ProbeLimits(max_file_size=1 << 40)).audio
each = 5168
stretches = tuple(range(at, min(at + each, audio.frames)) for at in range(0, audio.frames, each))
with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
    began = time.perf_counter()
    mux.mux(mux.MuxRequest(
        folder=folder, name="book.m4b", pieces=(mux.Piece(path=path, packets=audio.frames, ours=False, key=opened),),
        stretches=stretches, encoder=None, sample_rate=audio.sample_rate, block=audio.samples_per_frame,
        priming=audio.start_skip, samples=audio.samples, chapters=(Chapter(title="One", start=0),)))
    writing = time.perf_counter() - began
began = time.perf_counter()
part = copying.Part(path=path, first=0, stop=audio.frames, key=opened)
copying.stretches(copying.CopyRequest(parts=(part,), stretches=tuple(map(len, stretches)), audio=audio))
print(json.dumps({"writing": writing, "proof on one core": time.perf_counter() - began}))
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speech", "peers", "long", "many", "small", "locked"])
    parser.add_argument("--data", type=Path, default=_data, help="where generated audio is kept")
    arguments = parser.parse_args()
    _data = arguments.data
    _data.mkdir(parents=True, exist_ok=True)
    globals()[f"run_{arguments.what}"]()

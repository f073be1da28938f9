"""What does Prometheus get to read? Text built from what is so at the moment of asking; nothing is kept for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aiom4b import __version__
from aiom4b.control.service import Health
from aiom4b.jobs.job import Metrics, Status
from aiom4b.jobs.title import TitleStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system under a place of ours, in bytes; 0 and 0 where it doesn't tell."""

    place: str
    available: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that is told. Counters (``totals``, crashes) count from the start of the process, as Prometheus expects.

    ``licences`` are those that Audible was asked for in the last 24 hours.
    """

    jobs: Mapping[Status, int]
    running: int
    paused: bool
    queue_age: float
    totals: Metrics
    titles: Mapping[TitleStatus, int]
    licences: int
    health: Health
    disks: Sequence[Disk]
    lag: float
    uptime: float


def text(reading: Reading) -> bytes:
    """Return a reading in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Once(reading))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        now, totals = self._reading, self._reading.totals
        yield _labelled(
            "aiom4b_jobs", "Jobs in the history, by status.", "status", {str(key): now.jobs[key] for key in now.jobs}
        )
        yield _gauge("aiom4b_jobs_in_progress", "Jobs in progress.", now.running)
        yield _gauge("aiom4b_paused", "1 while no new job is begun.", now.paused)
        yield _gauge("aiom4b_queue_age_seconds", "How long the oldest queued job has been waiting.", now.queue_age)
        seconds = CounterMetricFamily(
            "aiom4b_job_seconds", "Seconds that finished jobs took, by step.", labels=["step"]
        )
        cpu = CounterMetricFamily(
            "aiom4b_job_cpu_seconds", "Seconds of CPU that finished jobs took, by step.", labels=["step"]
        )
        for family, spent in ((seconds, totals.wall_seconds), (cpu, totals.cpu_seconds)):
            for step, value in spent.items():
                family.add_metric([str(step)], value)
            yield family
        yield CounterMetricFamily("aiom4b_audio_seconds", "Seconds of audio in finished books.", totals.audio_seconds)
        wall = sum(totals.wall_seconds.values())
        yield _gauge(
            "aiom4b_audio_seconds_per_second",
            "Seconds of audio for each second that finished jobs took.",
            totals.audio_seconds / wall if wall else 0.0,
        )
        yield CounterMetricFamily("aiom4b_read_bytes", "Bytes of the sources of finished books.", totals.bytes_in)
        yield CounterMetricFamily("aiom4b_published_bytes", "Bytes of finished books.", totals.bytes_out)
        titles = {str(status): now.titles[status] for status in now.titles}
        yield _labelled("aiom4b_titles", "Titles of the Audible libraries, by status.", "status", titles)
        asked = "Licences that Audible was asked for in the last 24 hours."
        yield _gauge("aiom4b_audible_licences_per_day", asked, now.licences)
        yield _gauge("aiom4b_healthy", "1 while the service does what it is for.", now.health.ok)
        if (watcher := now.health.watcher) is not None:
            yield _gauge("aiom4b_watcher_up", "1 while the source directory is being watched.", watcher.state == "up")
            yield _gauge("aiom4b_source_entries", "Entries of the source directory.", watcher.entries)
            if watcher.last_scan is not None:
                age = "Seconds since the whole source directory was looked through."
                yield _gauge("aiom4b_scan_age_seconds", age, watcher.last_scan)
        known = [disk for disk in now.disks if disk.size]
        yield _labelled(
            "aiom4b_disk_free_bytes",
            "Free space, by directory.",
            "place",
            {disk.place: disk.available for disk in known},
        )
        yield _labelled(
            "aiom4b_disk_size_bytes",
            "Size of the file system, by directory.",
            "place",
            {d.place: d.size for d in known},
        )
        yield _gauge("aiom4b_workers", "Worker processes that may run at once.", now.health.workers)
        yield CounterMetricFamily(
            "aiom4b_worker_restarts", "Worker processes that crashed and were replaced.", now.health.worker_crashes
        )
        yield _gauge("aiom4b_event_loop_lag_seconds", "Longest delay of the event loop in the last minute.", now.lag)
        yield _gauge("aiom4b_uptime_seconds", "Seconds since the service started.", now.uptime)
        yield _labelled("aiom4b_build", "The version that is running.", "version", {__version__: 1})


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, float(value))


def _labelled(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

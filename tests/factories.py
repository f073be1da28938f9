"""What does a source look like? Values for tests, each with just the facts that the test is about."""

import hashlib
import itertools
from collections.abc import Sequence

from aiom4b.models import (
    AudioFacts,
    Codec,
    Evidence,
    FileIdentity,
    FileTags,
    Fingerprint,
    Mark,
    Samples,
    Sha256,
    Sidecar,
    Source,
    SourceFile,
)

_inodes = itertools.count(1000)


def identity(size=1_000_000, **facts):
    return FileIdentity(
        **({"device": 1, "inode": next(_inodes), "size": size, "mtime_ns": 10**18, "ctime_ns": 10**18} | facts)
    )


def audio_facts(seconds=300.0, codec=Codec.MP3, sample_rate=44100, **facts):
    """Return facts that agree with each other: ``samples`` is the given length, the padding fills the last frame."""
    per_frame = facts.pop("samples_per_frame", 1152 if codec is Codec.MP3 else 1024)
    samples = round(seconds * sample_rate)
    start_skip = facts.pop("start_skip", 1105 if codec is Codec.MP3 else 1024)
    frames = -(-(samples + start_skip) // per_frame)
    known = {
        "channels": 1,
        "start_skip": Samples(start_skip),
        "end_discard": Samples(frames * per_frame - start_skip - samples),
        "bit_rate": 64_000,
        "declared_frames": frames,
        "gapless": True,
        "mpeg_version": 1 if codec is Codec.MP3 else 0,
        "decoder_config": b"" if codec is Codec.MP3 else b"\x12\x08",
        "anchors": b"",
    }
    return AudioFacts(
        **(
            {
                "codec": codec,
                "sample_rate": sample_rate,
                "frames": frames,
                "samples_per_frame": per_frame,
                "samples": Samples(samples),
            }
            | known
            | facts
        )
    )


def source_file(path, *, seconds=300.0, codec=None, sha256=None, audio=None, **tags):
    """Return an audio file; further keywords are its tags. The content's hash is made from the path unless given.

    ``chapters`` and ``markers`` may be given as (seconds, title) pairs.
    """
    for name in ("chapters", "markers"):
        if name in tags:
            tags[name] = marks(*tags[name])
    aac = path.lower().endswith((".m4b", ".m4a"))
    return SourceFile(
        path=path,
        identity=identity(),
        sha256=Sha256(sha256 or hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()),
        audio=audio or audio_facts(seconds, codec or (Codec.AAC if aac else Codec.MP3)),
        tags=FileTags(**tags),
    )


def source_files(*paths, **tags):
    """Return one file for each path; a tag given as a list has one value for each file."""
    return tuple(
        source_file(path, **{key: value[place] if isinstance(value, list) else value for key, value in tags.items()})
        for place, path in enumerate(paths)
    )


def source(*files, name="Book", root="/drop/Book", sidecars: Sequence[Sidecar] = (), **evidence):
    """Return a book of these files (paths or SourceFiles); further keywords are its Evidence."""
    members = tuple(source_file(file) if isinstance(file, str) else file for file in files)
    content = sorted((file.identity.size, file.sha256) for file in members)
    digest = hashlib.sha256("".join(f"{size} {sha256}\n" for size, sha256 in content).encode())
    return Source(
        root=root,
        name=name,
        files=members,
        sidecars=tuple(sidecars),
        evidence=Evidence(**evidence),
        fingerprint=Fingerprint(digest.hexdigest()),
    )


def marks(*pairs):
    """Return chapter marks from (seconds, title) pairs."""
    return tuple(Mark(start_us=round(seconds * 1_000_000), title=title) for seconds, title in pairs)

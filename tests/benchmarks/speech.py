"""Where does the benchmarks' speech come from? espeak-ng reads numbered sentences; ffmpeg makes MP3s of it."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

_SUBJECTS = [
    "the keeper",
    "a grey horse",
    "my uncle",
    "the river",
    "nobody",
    "the last train",
    "an old sailor",
    "her letter",
    "the storm",
    "winter",
]
_VERBS = ["remembers", "follows", "forgets", "answers", "carries", "breaks", "hears", "crosses", "fears", "buys"]
_OBJECTS = [
    "the silent village",
    "a box of matches",
    "every promise",
    "seven dark stairs",
    "the road to the sea",
    "his own shadow",
]


def text(sentences: int, seed: int) -> str:
    """Return that many sentences, always the same for a seed."""
    chance = random.Random(seed)
    return " ".join(
        f"{chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_OBJECTS)}, number {chance.randrange(9999)}."
        for _ in range(sentences)
    )


def book(folder: Path, files: int, seconds_each: float, *, rate: int = 44100, bit_rate: str = "64k") -> Path:
    """Make a book of spoken MP3s, mono, tagged and numbered; kept for the next run. Returns its folder."""
    name = hashlib.sha256(f"{files} {seconds_each} {rate} {bit_rate} 3".encode()).hexdigest()[:10]
    made = folder / f"book-{name}"
    if made.exists():
        return made
    partial = folder / f".{made.name}"
    partial.mkdir(parents=True, exist_ok=True)
    for number in range(1, files + 1):
        words = partial / "words.txt"
        words.write_text(text(int(seconds_each / 3.2) + 3, number))
        wav = partial / "speech.wav"
        subprocess.run(["espeak-ng", "-s", "150", "-f", str(words), "-w", str(wav)], check=True)
        tags = {
            "title": f"Chapter {number}",
            "album": "The Benchmark",
            "artist": "Ada Speaker",
            "track": f"{number}/{files}",
        }
        sound = ["-t", str(seconds_each), "-ar", str(rate), "-ac", "1", "-b:a", bit_rate]
        told = [word for name, value in tags.items() for word in ("-metadata", f"{name}={value}")]
        mp3 = str(partial / f"{number:03d} Chapter {number}.mp3")
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(wav), *sound, *told, mp3], check=True)
        words.unlink()
        wav.unlink()
    partial.rename(made)
    return made

"""What do the files beside the audio say? The only users of defusedxml."""

from aiom4b.adapters.sidecars.companions import is_companion, stem_of
from aiom4b.adapters.sidecars.evidence import kind_of, read_evidence
from aiom4b.adapters.sidecars.keys import FoundKey, of_voucher, read_keys
from aiom4b.adapters.sidecars.writing import metadata_json

__all__ = [
    "FoundKey",
    "is_companion",
    "kind_of",
    "metadata_json",
    "of_voucher",
    "read_evidence",
    "read_keys",
    "stem_of",
]

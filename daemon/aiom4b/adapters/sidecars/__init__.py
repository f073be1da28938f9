"""What do the files beside the audio say? The only users of defusedxml."""

from aiom4b.adapters.sidecars.evidence import kind_of, read_evidence
from aiom4b.adapters.sidecars.writing import metadata_json

__all__ = ["kind_of", "metadata_json", "read_evidence"]

"""What do the files beside the audio say? The only users of defusedxml."""

from aiom4b.adapters.sidecars.evidence import kind_of, read_evidence

__all__ = ["kind_of", "read_evidence"]

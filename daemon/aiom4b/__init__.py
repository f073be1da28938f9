"""aiom4b: an unattended service that turns folders of audio into proved audiobooks."""

__version__ = "0.1.0"

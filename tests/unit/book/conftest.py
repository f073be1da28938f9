"""How patient is hypothesis here? The machines are shared: a slow example is no failure."""

from hypothesis import settings

settings.register_profile("patient", deadline=None, database=None)
settings.load_profile("patient")

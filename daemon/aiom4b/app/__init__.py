"""How are the parts put together? Built from the settings, started and stopped in order."""

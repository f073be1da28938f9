"""Audible, as its own apps speak to it: the only user of the `audible` library and of httpx.

Knows no database and no jobs. What strangers send becomes frozen values here, and what they refuse errors of ours.
"""

"""For all tests: no property fails because the machine was busy; how fast things are is measured in ``bench``."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", parent=settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("patient")

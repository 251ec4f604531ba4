"""Helpers for the notebooks: what they start from, displayed source code, printed checks, and interactive figures."""

from __future__ import annotations

from spinet.notebook.code import check, source
from spinet.notebook.pictures import described, explore
from spinet.notebook.start import Lesson, input_path, lesson, output_path

__all__ = ["Lesson", "check", "described", "explore", "input_path", "lesson", "output_path", "source"]

"""What is done with one set, stage after stage."""

from uecwatchd.pipeline.attempt import show_refusal, stages_of, work
from uecwatchd.pipeline.job import Tools

__all__ = ["Tools", "show_refusal", "stages_of", "work"]

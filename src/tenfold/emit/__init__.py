"""What other tools need to carry a plan out."""

from tenfold.emit.skypilot import skypilot_task, write_skypilot

__all__ = ["skypilot_task", "write_skypilot"]

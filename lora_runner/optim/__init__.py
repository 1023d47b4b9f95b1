"""Flat buffers, clipping, AdamW and schedules for all seats of a pack at once."""

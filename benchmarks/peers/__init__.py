"""The programs that ours is measured beside, written as their own documentation says."""

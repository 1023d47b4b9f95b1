"""The programs that ours is measured beside, written as their documentation recommends."""

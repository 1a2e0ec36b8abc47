"""What each toy component computes, as text."""

FORWARD = {"encoder": "y = x * 2", "head": "z = y @ p"}
